"""Predicted against measured, on logarithmic axes: one panel for each predictor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from allocator.errors import UsageError
from allocator.figures import pyplot, written

if TYPE_CHECKING:
    from allocator.faithfulness.report import Fidelity

KINDS: dict[str, tuple[str, str, str]] = {
    "single": ("single choices", ".", "#999999"),
    "all": ("random, every choice", "o", "#0072B2"),
    "low": ("random, low", "v", "#D55E00"),
    "middle": ("random, middle", "s", "#E69F00"),
    "high": ("random, high", "^", "#009E73"),
    "uniform": ("uniform", "X", "#000000"),
    "optimal": ("optimal", "D", "#CC79A7"),
}
"""Words, marker and colour: Okabe and Ito's, which colour-blind people tell apart, and shapes differ too."""
COLUMNS = 3


def draw(found: Fidelity, path: str) -> None:
    """Write the drawing; its kind follows the ending of the path. The identity line stands where sizes can be compared.

    Raises:
        UsageError: an ending that matplotlib does not write; nothing was measured.
    """
    plt = pyplot()

    if not len(found.singles) and not found.wholes:
        raise UsageError(f"--plot {path}: nothing was measured; ask for single choices or allocations")
    count = len(found.predictors)
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.8 * rows + 0.7), layout="constrained", squeeze=False
    )
    for i, panel in enumerate(axes.flat):
        if i < count:
            _panel(panel, found, i)
        else:
            panel.set_axis_off()
    handles: dict[str, Any] = {}
    for panel in axes.flat[:count]:
        drawn, names = panel.get_legend_handles_labels()
        handles = dict(zip(names, drawn, strict=True)) | handles
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
    figure.suptitle(f"{found.workload}: predicted and measured loss on {found.samples} evaluation samples", fontsize=10)
    written(figure, path)


def _panel(panel: Any, found: Fidelity, i: int) -> None:
    predictor = found.predictors[i]
    kinds = np.array([whole.kind for whole in found.wholes])
    hidden = 0
    shown: list[float] = []
    for kind, (words, marker, colour) in KINDS.items():
        if kind == "single":
            x, y = found.single_loss, found.single_predicted[i]
        else:
            x, y = found.whole_loss[kinds == kind], found.whole_predicted[i][kinds == kind]
        alive = x != 0  # an allocation that changes no bit has nothing to show
        x, y = x[alive], y[alive]
        positive = (x > 0) & (y > 0)
        hidden += int((~positive).sum())
        if positive.any():
            style = {"s": 14, "linewidths": 0.4, "edgecolors": "white"} if kind != "single" else {"s": 12}
            panel.scatter(x[positive], y[positive], marker=marker, c=colour, label=words, alpha=0.85, **style)
            shown += [*x[positive].tolist(), *y[positive].tolist()]
    panel.set_xscale("log")
    panel.set_yscale("log")
    if predictor.in_nats and shown:
        ends = [min(shown), max(shown)]
        panel.plot(ends, ends, color="#555555", linewidth=0.9, linestyle="--", label="predicted = measured")
    judgement = found.judgements[predictor.name]
    more = f"\n{hidden} at or below 0 not shown" if hidden else ""
    panel.set_title(f"{predictor.name}: {judgement.words}{more}", fontsize=9)
    panel.set_xlabel(f"measured KL (nat per {found.per})", fontsize=8)
    panel.set_ylabel("predicted (nat)" if predictor.in_nats else "predicted (own unit)", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(which="major", linewidth=0.3, alpha=0.5)
