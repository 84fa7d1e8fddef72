"""What the commands of the goal tables have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.solvers.tables import markdown, plain


def parser(prog: str, description: str, out: Path) -> argparse.ArgumentParser:
    """--rows, --out, --resume, --write, --list."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("--rows", help="comma-separated shell patterns; see --list")
    made.add_argument("--out", type=Path, default=out, help="folder of the results; default %(default)s")
    made.add_argument("--resume", action="store_true", help="skip what the folder holds of this version")
    made.add_argument("--write", type=Path, help="also write the table as markdown to this file")
    made.add_argument("--list", action="store_true", help="print the rows and stop")
    return made


def matches(name: str, patterns: str | None) -> bool:
    """Whether a name is meant."""
    return patterns is None or any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


def write(
    introduction: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: str, files: Iterable[Path | None]
) -> None:
    """The table on stdout, and with its introduction as markdown in each file; notes: markdown blocks for under it."""
    text = introduction + markdown(head, rows) + "\n" + notes
    for path in filter(None, files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(plain(head, rows))
    print(notes, end="")
