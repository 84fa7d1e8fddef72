"""What the verbs share: JSON on stdout, everything human on stderr, progress over two seconds, plain tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

QUIET_SECONDS = 2.0


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr)


def number(value: float | None) -> str:
    """A number in a table: short, and never rounded to look equal to 0."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", " ") if abs(value) >= 10000 else str(int(value))
    return f"{value:.6g}"


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


@contextmanager
def progress(enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A callback progress(what, done, total) that draws on stderr once two seconds have passed.

    On a terminal it is one bar; elsewhere a line every ten seconds.
    """
    started = time.monotonic()
    if not enabled:
        yield lambda what, done, total: None
        return
    if sys.stderr.isatty():
        yield from _bar(started)
    else:
        last = started

        def line(what: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - started > QUIET_SECONDS and now - last > 10:
                last = now
                say(f"{what}: {done}/{total} after {now - started:.0f} s")

        yield line


def _bar(started: float) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=1)
    shown = False

    def draw(what: str, done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > QUIET_SECONDS:
            bar.start()
            shown = True
        bar.update(task, description=what, completed=done, total=max(total, 1))

    try:
        yield draw
    finally:
        if shown:
            bar.stop()
