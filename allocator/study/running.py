"""The study: one layer approximated at a time, six errors of it, and what happens to the network before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from allocator.applier.layers import Unit, units
from allocator.errors import UsageError
from allocator.faithfulness.held_out import Change, HeldOut
from allocator.progress import Progress, silent
from allocator.study.correlating import Correlation, correlations
from allocator.study.errors_of_layers import errors, layer_inputs
from allocator.study.tensor_formats import FORMATS, formats_named, suits
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload
from profilers._groups import model_sha256, versions
from profilers._replay import Recording

FEWER = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of a layer's weights that are taken away, as in the published study."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One approximation of one layer.

    Attributes:
        layer: its name.
        tensor_format: what it is approximated by.
        fewer: share of the layer's weights that were to be taken away.
        parameters: numbers that are stored instead of ``weights``.
        weights: the layer's.
        errors: the six, by name (`errors_of_layers.ERRORS`).
        drops: what the network loses on evaluation data: ``kl``, ``loss`` and, where the task has it, ``accuracy``.
    """

    layer: str
    tensor_format: str
    fewer: float
    parameters: int
    weights: int
    errors: dict[str, float]
    drops: dict[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """All approximations, and how well each error orders what they do. ``original``: metrics of the float network."""

    workload: str
    rows: tuple[Row, ...]
    correlations: tuple[Correlation, ...]
    original: dict[str, float]
    samples: int
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": "allocation-study",
            "version": 1,
            "workload": self.workload,
            **self.about,
            "samples": self.samples,
            "original": self.original,
            "correlations": [vars(one) for one in self.correlations],
            "rows": [vars(row) for row in self.rows],
        }


def study(
    workload: Workload,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    fewer: Sequence[float] = FEWER,
    ends: bool = False,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """Approximate every layer by every format at every level, alone, and correlate errors with what is lost.

    Linear and ungrouped convolution layers; linear and 1 × 1 ones by SVD alone. Errors of outputs, those of the first
    module that uses the weight, are averages over calibration data. Drops are measured on evaluation data: the rise
    of the cross entropy and of KL(float ‖ approximated), the fall of the accuracy, all before any fine-tuning. The
    model is left bit-identical. Method: Schuurmans, Batselier and Kooij, "How informative is the approximation error
    from tensor decomposition for neural network compression?" (ICLR 2023).

    Args:
        workload: the float network with its data.
        formats: names of `tensor_formats.FORMATS`.
        fewer: shares of a layer's weights to take away, each above 0 and below 1.
        ends: also the first and the last layer, which the published study leaves alone.
        samples: rows of evaluation data to use; all for None.
        seed: of random starts (CP) and of the bootstrap.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        UsageError: an unknown format, a level out of range, or no layer to approximate.
        UnavailableError: tensorly is not installed.
    """
    for level in fewer:
        if not 0 < level < 1:
            raise UsageError(f"a level of {level:g}: give shares of the weights to take away, above 0 and below 1")
    if samples is not None and samples < 2:
        raise UsageError(f"samples {samples}: give 2 or more")
    tick = progress or silent
    wanted, before = formats_named(formats), model_sha256(workload.model)
    workload.check()
    layers = _layers(workload.model, ends)
    if not layers:
        raise UsageError(
            f"{workload.name} has no layer to approximate: linear or ungrouped convolutions, "
            f"{'any' if ends else 'the first and the last one left alone (--ends takes them too)'}"
        )
    jobs = [
        (unit, one, level)
        for unit in layers
        for one in wanted
        if suits(one, unit.weight.shape)
        for level in fewer
    ]  # fmt: skip
    held_out, named = HeldOut(workload, samples), dict(workload.model.named_modules())
    found: list[tuple[Any, ...]] = []
    with untouched(workload.model), torch.no_grad():
        inputs: list[Tensor] = []
        seen = None
        for done, (unit, one, level) in enumerate(jobs):
            tick("approximated", done, len(jobs))
            modules = tuple(named[name] for name in unit.modules)
            if unit is not seen:
                inputs, seen = layer_inputs(workload, modules[0], list(workload.calibration)), unit
            made = one(unit.weight.detach().double().cpu().numpy(), 1 - level, seed)
            if made is None:
                continue
            other = torch.from_numpy(made.weight).to(unit.weight)
            change = Change(unit.weight, modules, other)
            found.append((unit, one.name, level, made.parameters, errors(change, modules[0], inputs), change))
        drops, original, rows_used = _dropped(held_out, [job[-1] for job in found], tick)
    rows = tuple(
        Row(layer=u.name, tensor_format=name, fewer=level, parameters=size, weights=u.weight.numel(), errors=dict(e),
            drops=drop)
        for (u, name, level, size, e, _), drop in zip(found, drops, strict=True)
    )  # fmt: skip
    return Study(
        workload=workload.name,
        rows=rows,
        correlations=tuple(correlations(rows, seed)),
        original=original,
        samples=rows_used,
        about={"seed": seed, "model_sha256": before, "versions": versions()},
    )


def _layers(model: Module, ends: bool) -> list[Unit]:
    """Linear and ungrouped convolution layers, without the first and the last one unless asked for."""
    found = [unit for unit in units(model) if unit.layer.kind != "embedding" and unit.layer.groups == 1]
    return found if ends else found[1:-1]


def _dropped(
    held_out: HeldOut, changes: Sequence[Change], tick: Progress
) -> tuple[list[dict[str, float]], dict[str, float], int]:
    """What every change does to each metric (a rise of the loss, a fall of the accuracy), the metrics, and samples."""
    modules = list(dict.fromkeys(module for change in changes for module in change.modules))
    cells: list[dict[str, list[tuple[Tensor, Tensor]]]] = [{} for _ in range(len(changes) + 1)]
    samples = 0
    for _, recordings in held_out.chunks(modules):
        samples += sum(len(recording.logits) for recording in recordings)
        for i, some in enumerate([[], *([change] for change in changes)]):
            for recording, logits in zip(recordings, held_out.logits(recordings, some), strict=True):
                for name, cell in _metrics(held_out, recording, logits).items():
                    cells[i].setdefault(name, []).append(cell)
            tick("measured", i, len(changes))
    values = [
        {name: ratio(*(torch.cat([c[k] for c in column]) for k in (0, 1))).value for name, column in one.items()}
        for one in cells
    ]
    original = values[0]
    drops = [
        {
            name: value - original[name] if name in ("kl", "loss") else original[name] - value
            for name, value in v.items()
        }
        for v in values[1:]
    ]
    return drops, {name: value for name, value in original.items() if name != "kl"}, samples


def _metrics(held_out: HeldOut, recording: Recording, logits: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    task = held_out.workload.task
    found = {k: v for k, v in task.metrics(logits, recording.batch).items() if k in ("loss", "accuracy")}
    return {"kl": per_sample(divergence(recording.logits, logits), task.mask(recording.batch)), **found}
