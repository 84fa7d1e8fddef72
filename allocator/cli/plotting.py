"""A drawing of a frontier: objective against resource, with uniform allocations and the file's budgets beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from allocator.curve import Frontier
    from allocator.problem import Problem

MOST_DRAWN = 5000


def uniform_points(problem: Problem, resource: str) -> list[tuple[str, float, float]]:
    """Label, total of the resource and objective where all groups take that label: labels that stand once in each.

    Choices that pins or `allowed` exclude are counted too: uniform is a yardstick, not an answer.
    """
    codes = problem.label_codes
    found = []
    for code, label in enumerate(codes.table):
        rows = np.flatnonzero(codes.code == code)
        if len(rows) == problem.group_count and np.array_equal(problem.group_of[rows], np.arange(len(rows))):
            outcome = problem.evaluate(rows - problem.indptr[:-1])
            found.append((label, float(outcome.totals[resource]), outcome.objective))
    return sorted(found, key=lambda point: point[1])


def draw_frontier(problem: Problem, found: Frontier, path: str) -> None:
    """Write the drawing; its kind follows the ending of the path.

    Raises:
        UsageError: an ending that matplotlib does not write.
    """
    from allocator.figures import pyplot, written

    plt = pyplot()
    from matplotlib.ticker import EngFormatter

    some = np.unique(np.linspace(0, len(found) - 1, MOST_DRAWN).astype(np.int64))
    costs, objectives = found.costs[some].astype(np.float64), found.objectives[some]
    uniform = uniform_points(problem, found.resource)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.step(costs, objectives, where="post", label="frontier", linewidth=1.2)
    if len(some) <= 200:
        axes.plot(costs, objectives, ".", color="C0")
    if uniform:
        axes.plot([c for _, c, _ in uniform], [o for *_, o in uniform], "x--", color="C1", label="uniform")
        for label, cost, objective in uniform:
            axes.annotate(label, (cost, objective), textcoords="offset points", xytext=(4, 4), fontsize=8)
    for i, row in enumerate(b for b in problem.budgets if b.resource == found.resource and b.tags is None):
        for limit in (row.max, row.min):
            if limit is not None:
                axes.axvline(float(limit), color="C2", linestyle=":", label=None if i else "budget")
    values = np.array([*objectives.tolist(), *[o for *_, o in uniform]])
    if values.min() > 0:
        axes.set_yscale("log")
    elif values.max() > 0:  # logarithms above the size of what is below 0
        axes.set_yscale("symlog", linthresh=max(-float(values.min()), 1e-4 * float(values.max())))
        axes.set_ylim(2 * float(values.min()), 2 * float(values.max()))
    unit = problem.resources[found.resource].unit
    axes.xaxis.set_major_formatter(EngFormatter(unit="B" if unit == "byte" else ""))
    axes.set_xlabel(found.resource if unit in ("byte", "1") else f"{found.resource} ({unit})")
    axes.set_ylabel("objective" if list(problem.minimize) != ["loss"] else "loss")
    axes.legend()
    written(figure, path, dpi=100)
