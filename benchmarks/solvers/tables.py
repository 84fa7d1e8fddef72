"""Rows of text as a markdown or a plain table, and durations in words."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float | None) -> str:
    """Three digits in s, ms or µs; a dash for None."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-6)} µs"


def times(ratio: float) -> str:
    """A factor: two places below 2, one below 10, else none."""
    return f"{ratio:.{2 if ratio < 2 else 1 if ratio < 10 else 0}f}×"


def _digits(value: float) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:.{max(3 - whole, 0)}f}" if value else "0"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub draws it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded with spaces."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = ["-" * w for w in widths]
    shown = [head, rule, *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in shown) + "\n"
