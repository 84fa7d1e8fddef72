"""Performance profile (Dolan and Moré, Math. Programming 91, 2002): who solves what share of the cases how soon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.solvers.records import Record, wrong

LARGEST = 1e6


def factors(records: Iterable[Record], which: str = "first") -> Mapping[str, list[float]]:
    """Solver → τ of each case: its CPU seconds over the least of all; infinite where it did not solve it.

    Solved: optimality proved by the core, or claimed and not beaten. Cases that nobody solved are left out; a
    case that a solver was not tried on counts as not solved. Seconds are those of the whole solve, the core's proof
    included, for ours; those of its own call for a MIP library.
    """
    records = [r for r in records if r.case != "imports" and r.solver != "frontier"]
    false = wrong(records)
    spent: dict[tuple[str, int], dict[str, float]] = {}
    for r in records:
        seconds = r.seconds("library", which) or r.seconds("whole", which)
        if r.says_optimal and seconds is not None and (r.case, r.seed, r.solver) not in false:
            spent.setdefault((r.case, r.seed), {})[r.solver] = seconds
    names = dict.fromkeys(r.solver for r in records)
    return {n: [c.get(n, float("inf")) / min(c.values()) for c in spent.values()] for n in names}


def plot(records: Iterable[Record], path: Path, which: str = "first") -> bool:
    """Draw the shares over τ; False where matplotlib is missing or nothing was solved."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = factors(records, which)
    count = max((len(f) for f in found.values()), default=0)
    if not count:
        return False
    finite = [t for f in found.values() for t in f if np.isfinite(t)]
    end = min(LARGEST, 2 * max(finite))
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    share = np.arange(1, count + 1) / count
    for name, taus in found.items():
        tau = np.sort(taus)
        kept = tau <= end
        x = np.concatenate([[1.0], tau[kept], [end]])
        y = np.concatenate([[0.0], share[kept], [share[kept][-1] if kept.any() else 0.0]])
        axes.step(x, y, where="post", label=name)
    axes.set_xscale("log")
    axes.set_xlim(1.0, end)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("CPU seconds over those of the quickest")
    axes.set_ylabel(f"share of the {count} cases solved")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True
