"""The table of goals, and under it every row with its pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.goal import Verdict, verdict
from benchmarks.interactions.goals import GOALS
from benchmarks.interactions.pieces import Found, Row, Settings
from benchmarks.interactions.rows import ROWS
from benchmarks.solvers.tables import markdown
from benchmarks.store import Store

INTRODUCTION = """# Losses with interactions against their goals

Printed by `make bench-interactions`. `benchmarks/interactions/goals.py` holds the goals, a file beside it each kind of
row. Seconds are CPU seconds of the first call in a fresh process, on one thread, with those of its child processes;
imports come before the clock. "Proved" is what the core has checked, never what a backend says.

- **real**: the two trained Fashion-MNIST networks (154 and 126 choices), `ggn` on their own calibration data, at 2.5,
  3, 3.5, 4 and 5 bits on average. The optimum is the best that either run found; `proved` tells where it is one.
- **toy**: 8 layers × 5 widths that share 12 axes, two of them downhill; 6 seeds × 5 budgets, and all 390,625
  allocations of each looked at.
- **synthetic**: `benchmarks/interactions/instances.py` says what is drawn, and below stands what came of it. The best
  known of 226 groups comes from a long run (`--long`, {long:.0f} s a seed here: searches of doubled effort, each with
  its own random numbers). Greedy takes pairs into account, from the dearest choices down.
- **chain**: ResNet-50 and Llama 3 8B by shape, pair terms between neighbours only. A peer counts if its allocation is
  the optimum; its seconds are those of its library's own call, without our building of the model. Every backend has the
  time of `--time-limit`.
- **held-out**: KL(float ‖ compressed) on all 10,000 test pictures. Additive: `kl` measured on all calibration data,
  solved exactly. Quadratic: `ggn` with interactions. Refined: `allocator.refine` from there with its default passes.
  Uniform: the most bits that fit. Means over three draws of calibration data.

"""


def judge(store: Store, settings: Settings) -> Iterator[Verdict]:
    """Every goal, against the pieces of the present version."""
    figures = {row.name: figures_of(store, row, settings) for row in ROWS.values()}
    for goal in GOALS:
        row = ROWS[goal.row]
        yield verdict(goal, figures[goal.row].get(goal.value), _missing(store, row, settings))


def found(store: Store, row: Row, settings: Settings) -> Found:
    """The pieces of a row that were measured."""
    kept = {piece.name: store.get(row.name, piece.name, piece.version(settings)) for piece in row.pieces}
    return {name: line for name, line in kept.items() if line is not None}


def figures_of(store: Store, row: Row, settings: Settings) -> Mapping[str, float]:
    """What a row's pieces come to."""
    return row.figures(found(store, row, settings))


def remarks(store: Store, settings: Settings) -> str:
    """What the figures rest on: the machine, every row's figures and pieces."""
    rows = {name: found(store, row, settings) for name, row in ROWS.items()}
    lines = [line for pieces in rows.values() for line in pieces.values()]
    verdicts = list(judge(store, settings))
    said = [v for v in verdicts if v.met is not None]
    loads = sorted(line.load for line in lines) or [0.0]
    out = [
        f"{sum(bool(v.met) for v in said)} of {len(said)} goals measured are met; {len(verdicts) - len(said)} are not "
        "measured.",
        f"Machine: {'; '.join(sorted({line.machine for line in lines})) or 'none'}; load average "
        f"{median(loads):.1f} in the median, {loads[-1]:.1f} at most.",
    ]
    for name, pieces in rows.items():
        if any(line.values for line in pieces.values()):
            out += _told(ROWS[name], pieces)
    return "\n\n".join(out) + "\n"


def _told(row: Row, pieces: Found) -> Iterator[str]:
    yield f"## {row.name}"
    figures = row.figures(pieces)
    if figures:
        yield ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    for name, line in pieces.items():
        if name.endswith("facts") and line.values:
            yield f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in line.values.items())
    head, rows = row.table(pieces)
    if rows:
        yield markdown(head, rows).rstrip()
    for name, line in pieces.items():
        if line.note:
            yield f"{name}: not measured: {line.note}"


def _missing(store: Store, row: Row, settings: Settings) -> str:
    kept = found(store, row, settings)
    notes = [line.note for line in kept.values() if line.note]
    absent = [piece.name for piece in row.pieces if piece.name not in kept]
    if absent:
        return f"{len(absent)} of {len(row.pieces)} pieces to run"
    return notes[0] if notes else "see the pieces below"
