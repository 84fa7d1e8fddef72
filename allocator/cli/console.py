"""What the verbs share: JSON on stdout, everything human on stderr, progress over two seconds, plain tables."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from allocator.cli.remaining import Remaining, in_words
from allocator.progress import silent

if TYPE_CHECKING:
    from allocator.applier.checkpoint import CheckpointInfo

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Warnings to the user are a line without the place in the source that gave them; all others are as ever."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if category is UserWarning:
                say(f"warning: {message}")
            else:
                before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def number(value: float | None) -> str:
    """A number in a table: short, and never rounded to look equal to 0."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", " ") if abs(value) >= 10000 else str(int(value))
    return f"{value:.6g}"


def size_of(info: CheckpointInfo) -> str:
    """How long a checkpoint's file is, and how much of that a solution did not count."""
    return f"{info.bytes} bytes" + (f", {info.described} of them its description" if info.described else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout; in full width where stdout is not a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        right = bool(rows) and all(_numeric(row[i]) for row in rows)
        drawn.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 200, highlight=False, markup=False).print(drawn)


def _numeric(text: str) -> bool:
    return not text or text[0] in "0123456789–-+.±" or text in ("optimal", "nan")


class Ticker:
    """What long work calls as ticker(stage, done, total); ``draw`` shows it, once two seconds have passed.

    Args:
        draw: called with the stage, done, total and, in words, the time left.
    """

    def __init__(self, draw: Callable[[str, int, int, str], None], tell: Callable[[str], None] = say) -> None:
        self._draw = draw
        self._tell = tell
        self._remaining = Remaining(time.monotonic)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of a unit of work."""
        self._draw(stage, done, total, in_words(self._remaining.seconds(stage, done, total)))

    def resumed(self, stage: str, there: int, total: int) -> None:
        """Say, once, how much an earlier run has left."""
        self._remaining.resumed(stage, there)
        self._tell(f"{stage} resumed: {there} of {total} parts were there")


@contextmanager
def progress(enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A callback progress(what, done, total) that draws on stderr once two seconds have passed.

    On a terminal it is one bar; elsewhere a line every ten seconds. Both say about how long the stage still takes.
    """
    started = time.monotonic()
    if not enabled:
        yield silent
    elif sys.stderr.isatty():
        yield from _bar(started)
    else:
        yield Ticker(_lines(started))


def _lines(started: float) -> Callable[[str, int, int, str], None]:
    last = started

    def line(stage: str, done: int, total: int, left: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - started > QUIET_SECONDS and now - last > LINE_SECONDS:
            last = now
            say(f"{stage}: {done}/{total}{left}")

    return line


def _bar(started: float) -> Iterator[Ticker]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}{task.fields[left]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=1, left="")
    shown = False

    def draw(stage: str, done: int, total: int, left: str) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > QUIET_SECONDS:
            bar.start()
            shown = True
        bar.update(task, description=stage, completed=done, total=max(total, 1), left=left)

    try:
        yield Ticker(draw, lambda text: bar.console.print(text, highlight=False, markup=False))
    finally:
        if shown:
            bar.stop()
