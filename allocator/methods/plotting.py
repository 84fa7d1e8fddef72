"""Methods side by side: divergence less that of uniform, with intervals, one panel for each budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allocator.errors import UsageError
from allocator.figures import pyplot, written

if TYPE_CHECKING:
    from allocator.methods.standing import Contest, Row

BETTER, WORSE, NEITHER = "#0072B2", "#D55E00", "#777777"
"""Okabe and Ito's colours; markers differ too."""
MARKERS = {BETTER: "v", WORSE: "^", NEITHER: "o"}


def draw(found: Contest, path: str) -> None:
    """Write the drawing; its kind follows the ending of the path. Left of 0 is better than uniform.

    Raises:
        UsageError: an ending that matplotlib does not write; no method was compared with uniform.
    """
    plt = pyplot()

    panels = [
        (budget, rows)
        for budget in dict.fromkeys(row.budget for row in found.rows)
        if (rows := [row for row in found.rows if row.budget == budget and "kl" in row.less_uniform])
    ]
    if not panels:
        raise UsageError(f"--plot {path}: no method could be compared with a uniform allocation under these budgets")
    height = 1.4 + 0.28 * max(len(rows) for _, rows in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.4 * len(panels), height), layout="constrained", squeeze=False
    )
    for panel, (budget, rows) in zip(axes.flat, panels, strict=True):
        _panel(panel, budget, rows)
    figure.suptitle(
        f"{found.workload}: KL less that of uniform, nat, 95 % intervals over {found.samples} held-out samples",
        fontsize=10,
    )
    written(figure, path)


def _panel(panel: Any, budget: str, rows: list[Row]) -> None:
    for place, row in enumerate(reversed(rows)):
        one = row.less_uniform["kl"]
        colour = NEITHER if not one.separated else BETTER if one.high < 0 else WORSE
        panel.plot([one.low, one.high], [place, place], color=colour, linewidth=1.6)
        panel.plot([one.value], [place], MARKERS[colour], color=colour, markersize=5)
    panel.set_yticks(range(len(rows)), [row.method for row in reversed(rows)], fontsize=8)
    panel.axvline(0, color="#000000", linewidth=0.8, linestyle="--")
    panel.set_xscale("symlog", linthresh=_small(rows))
    panel.set_title(f"{budget}: left of the line is better than uniform", fontsize=9)
    panel.tick_params(axis="x", labelsize=7)
    panel.grid(axis="x", linewidth=0.3, alpha=0.5)


def _small(rows: list[Row]) -> float:
    """Where the axis turns linear: about the least difference that is claimed."""
    sizes = [abs(row.less_uniform["kl"].value) for row in rows if row.less_uniform["kl"].separated]
    return max(min(sizes, default=1e-3), 1e-9)
