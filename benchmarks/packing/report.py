"""The table of goals, and under it every width, scheme and granularity."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from benchmarks.goal import Verdict, verdict
from benchmarks.packing import speed
from benchmarks.packing.goals import GOALS, ROWS, WIDTHS
from benchmarks.solvers.tables import markdown, times
from benchmarks.store import Line

INTRODUCTION = """# Packing and unpacking against their goals

Printed by `make bench-packing`; `benchmarks/packing/goals.py` holds the goals. GB are float32 weights before packing or
after unpacking, a second is one of CPU time on one thread; a matrix of 1024 × 4096, medians of seven calls after the
first. `torch` is the package's own way without its C extension, in the same run; the bytes and the weights are compared
and are the same. Packing begins at the float32 matrix and includes the scales.

"""
HEAD = ("kind", "pack, GB/s", "× torch", "first", "unpack, GB/s", "× torch", "first", "other")


def judge(kept: Mapping[str, Line]) -> list[Verdict]:
    """Every goal, against the rows that were measured; of a width the slowest row counts."""
    found = []
    for goal in GOALS:
        rows = WIDTHS.get(goal.row, (goal.row,))
        values = [kept[name].values[goal.value] for name in rows if name in kept and goal.value in kept[name].values]
        whole = len(values) == len(rows)
        found.append(verdict(goal, min(values) if whole else None, f"{len(values)} of {len(rows)} rows are there"))
    return found


def remarks(kept: Mapping[str, Line]) -> str:
    """The machine, all rows, and what embeddings gain."""
    lines = [kept[name] for name in ROWS if name in kept]
    said = [v for v in judge(kept) if v.met is not None]
    loads = sorted(line.load for line in lines) or [0.0]
    out = [
        f"{sum(bool(v.met) for v in said)} of {len(said)} goals measured are met.",
        f"Machine: {'; '.join(sorted({line.machine for line in lines})) or 'none'}; load average "
        f"{median(loads):.1f} in the median, {loads[-1]:.1f} at most.",
        "`first`: the first call. `other`: unpacking by numpy, where it can (`unpackbits`, halves), and of a matrix of "
        "67 MB, for whose pages the system is asked at every call: that is then what it takes.",
        markdown(HEAD, [_cells(line) for line in lines if "pack" in line.values]).rstrip(),
    ]
    looked = kept.get("embedding")
    if looked is not None:
        out.append(
            "A packed embedding of 32,000 × 512 at 4 bits, 64 rows looked up: "
            f"{looked.values['rows_ms']:.3g} ms; by way of the whole weight {looked.values['whole_ms']:.3g} ms."
        )
    small = kept.get("small")
    if small is not None:
        out.append(
            f"A layer of {' × '.join(map(str, speed.SMALL))} at 3 bits: packed in {small.values['pack_us']:.0f} µs, "
            f"unpacked in {small.values['unpack_us']:.0f} µs, which is calls and not bytes."
        )
    return "\n\n".join(out) + "\n"


def _cells(line: Line) -> tuple[str, ...]:
    found = line.values
    other = (("unpack_numpy", "numpy"), ("unpack_large", "67 MB"))
    ways = ((f"{found[way]:.2f}", _ratio(found, way), f"{found[f'{way}_first']:.2f}") for way in ("pack", "unpack"))
    said = ", ".join(f"{what} {found[key]:.2f}" for key, what in other if key in found)
    return line.name, *(cell for way in ways for cell in way), said


def _ratio(found: Mapping[str, float], way: str) -> str:
    """To torch's own way; a dash for halves, which have no other."""
    other = found.get(f"{way}_torch")
    return "-" if other is None else times(found[way] / other)
