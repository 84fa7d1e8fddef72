"""The six errors against what they cost, one panel each, formats by colour and shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from allocator.figures import pyplot, written
from allocator.study.errors_of_layers import ERRORS

if TYPE_CHECKING:
    from allocator.study.running import Study

STYLES = (("o", "#0072B2"), ("s", "#E69F00"), ("^", "#009E73"), ("D", "#CC79A7"))
"""Marker and colour of each format in turn: Okabe and Ito's colours, which colour-blind people tell apart."""


def draw(found: Study, path: str) -> None:
    """Write the drawing; its kind follows the ending of the path.

    Raises:
        UsageError: an ending that matplotlib does not write.
    """
    plt = pyplot()

    figure, axes = plt.subplots(3, 2, figsize=(8, 9.6), layout="constrained", sharey=True)
    for error, panel in zip(ERRORS, axes.flat, strict=True):
        _panel(panel, found, error)
    drawn, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(drawn, names, loc="outside lower center", ncols=len(names), fontsize=9)
    figure.suptitle(f"{found.workload}: error of one layer, and KL of the network before fine-tuning", fontsize=10)
    written(figure, path)


def _panel(panel: Any, found: Study, error: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    formats = list(dict.fromkeys(row.tensor_format for row in found.rows))
    for name, (marker, colour) in zip(formats, STYLES, strict=False):
        points = [(row.errors[error], row.drops["kl"]) for row in found.rows if row.tensor_format == name]
        points = [(x, y) for x, y in points if x > 0 and y > 0]
        panel.scatter([x for x, _ in points], [y for _, y in points], marker=marker, c=colour, s=22, label=name,
                      alpha=0.85, edgecolors="white", linewidths=0.4)  # fmt: skip
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # an axis of less than a decade has numbers too
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    tau = {c.drop: c.tau for c in found.correlations if c.error == error and c.selection == "all"}
    said = ", ".join(f"{drop} {value:.2f}" for drop, value in tau.items() if not math.isnan(value))
    panel.set_title(f"{error}: τ {said}", fontsize=9)
    panel.set_xlabel(f"{error.split()[0]} error of {error.split()[1]}", fontsize=8)
    panel.set_ylabel("KL (nat)", fontsize=8)
    panel.tick_params(labelsize=6.5)
    panel.grid(which="major", linewidth=0.3, alpha=0.5)
