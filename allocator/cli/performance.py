"""Performance profile (Dolan and Moré, Math. Programming 91, 2002) of a comparison: who is how often near the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from allocator.comparison_rows import Row

QUANTITIES = ("time", "regret")
LARGEST = 1e6
SMALLEST = 1e-9  # of S: an objective below it counts as this


def factors(rows: Iterable[Row], quantity: str) -> Mapping[str, list[float]]:
    """Solver → τ of each run, infinite where it has nothing to show.

    A run is one problem at one budget with one seed; those that nobody has anything to show for are left out.
    "time": wall seconds over the least of all backends whose answer was the optimum: proved by the core, or claimed
    and not wrong. "regret": 1 + regret / |best objective|, of every checked allocation.
    """
    rows = list(rows)
    runs: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        runs.setdefault((row.sha256, row.seed), {})[row.solver] = row
    names = list(dict.fromkeys(r.solver for r in rows))
    found: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        taus = _times(run) if quantity == "time" else _regrets(run)
        if taus:
            for name in names:
                found[name].append(taus.get(name, math.inf))
    return found


def _times(run: Mapping[str, Row]) -> dict[str, float]:
    right = {n: r.seconds for n, r in run.items() if r.says_optimal and not r.wrong and r.objective is not None}
    least = max(min(right.values(), default=0.0), 1e-9)
    return {n: max(s / least, 1.0) for n, s in right.items()}


def _regrets(run: Mapping[str, Row]) -> dict[str, float]:
    found = {}
    for name, row in run.items():
        if row.objective is not None and row.regret is not None:
            size = max(abs(row.objective - row.regret), SMALLEST * row.scale, 5e-324)
            found[name] = 1.0 + row.regret / size
    return found


def draw_profile(rows: Iterable[Row], path: str, quantity: str = "time") -> None:
    """Draw the share of runs within a factor τ of the best, over τ.

    Raises:
        UsageError: an unknown quantity, an ending that matplotlib does not write, nothing to draw.
    """
    from allocator.errors import UsageError
    from allocator.figures import pyplot, written

    if quantity not in QUANTITIES:
        raise UsageError(f"--plot-by {quantity}: there are {' and '.join(QUANTITIES)}")
    found = factors(rows, quantity)
    count = max((len(f) for f in found.values()), default=0)
    if not count:
        raise UsageError(f"--plot {path}: no run has {'an optimum' if quantity == 'time' else 'an allocation'} to draw")
    plt = pyplot()

    finite = [t for f in found.values() for t in f if math.isfinite(t)]
    end = min(LARGEST, 1 + 1.2 * (max(finite) - 1) + 1e-3)
    share = np.arange(1, count + 1) / count
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for i, (name, taus) in enumerate(found.items()):
        tau = np.sort(taus)
        kept = tau <= end
        x = np.concatenate([[1.0], tau[kept], [end]])
        y = np.concatenate([[0.0], share[kept], [share[kept][-1] if kept.any() else 0.0]])
        axes.step(x, y, where="post", label=name, linestyle=("-", "--", ":")[i // 10 % 3])
    if end > 10:
        axes.set_xscale("log")
    axes.set_xlim(1.0, end)
    axes.set_ylim(0.0, 1.02)
    words = {"time": "wall seconds over those of the quickest", "regret": "1 + regret / |best objective|"}
    axes.set_xlabel(f"τ: {words[quantity]}")
    axes.set_ylabel(f"share of {count} runs {'solved' if quantity == 'time' else 'within τ'}")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    axes.grid(alpha=0.3)
    written(figure, path, dpi=150)
