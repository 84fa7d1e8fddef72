"""Moments of layers' inputs and outputs, for the actions that are made by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Module

from allocator.applier.layers import kind_of, units
from allocator.applier.optimism import optimism
from allocator.applier.statistics import LayerStatistics, Statistics, needed
from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.splitting import halves
from allocator.workload import Workload
from profilers._calibration import batches
from profilers._capture import captured
from profilers._cotangent import half_hessian
from profilers._parts import batch_seed
from profilers._patches import CONVOLUTIONS, counts, moments
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._watch import watched

STAGE = "layer statistics"
LIMIT = 1.5
"""Optimism of a fit to half of the data up to which all of them may score what is fitted to all of them; that is then
about half as far from 1."""


def with_statistics(plan: Plan, given: Statistics | None, progress: Progress) -> Plan:
    """The plan, every target of which knows what its menu's actions need, on the data that are to score them.

    ``given``: measured already, by name of the weight; else they are measured here, see `fitted`.
    """
    wanted = {target: needed(item.action for item in target.menu) for target in plan.targets}
    wanted = {target: names for target, names in wanted.items() if names}
    if not wanted:
        return plan
    found = given
    if found is None:
        found, scoring = fitted(plan.workload, wanted, progress)
        plan = replace(plan, workload=scoring)
    return replace(plan, targets=tuple(replace(t, statistics=found.get(t.name)) for t in plan.targets))


def fitted(
    workload: Workload, wanted: Mapping[Target, frozenset[str]], progress: Progress
) -> tuple[Statistics, Workload]:
    """What choices are to be fitted to, and a workload whose calibration data are to score them.

    All calibration data do both, so that the very errors that are scored are those that are applied, as long as they
    can: if on no layer a choice that is fitted to one half of them looks better there than on the other by more than
    `LIMIT` (`allocator.applier.optimism`). Else the first half is fitted to, and the second scores. Where a half does
    not reach every layer, as few tokens do not reach every expert, it can do neither alone.
    """
    moments = {target: frozenset({"input_moment"}) for target, names in wanted.items() if "input_moment" in names}
    first, second = halves(workload) if moments else (workload, workload)
    if first is not second:
        try:
            seen, unseen = (_of(half, moments, progress) for half in (first, second))
        except UsageError:
            return _of(workload, wanted, progress), workload  # which says so if all of the data do not reach it either
        if any(optimism(t.unit.weight, t.layer, seen[t.name], unseen[t.name]) > LIMIT for t in moments):
            return _of(first, wanted, progress), second
    return _of(workload, wanted, progress), workload


def of_units(model: Module, wanted: Mapping[str, frozenset[str]]) -> dict[Target, frozenset[str]]:
    """What is wanted of stored weights by name (`Unit.name`), by target."""
    return {
        Target(unit, tuple(map(model.get_submodule, unit.modules)), unit.layer, []): wanted[unit.name]
        for unit in units(model)
        if unit.name in wanted
    }


def statistics_for(workload: Workload, wanted: Mapping[str, frozenset[str]], progress: Progress) -> Statistics:
    """All calibration data's statistics of stored weights by name; to be called inside `untouched` and `opened`."""
    return _of(workload, of_units(workload.model, wanted), progress)


def _of(workload: Workload, wanted: Mapping[Target, frozenset[str]], progress: Progress) -> dict[str, LayerStatistics]:
    return measured(Plan(workload, tuple(wanted), ()), wanted, progress)


def measured(plan: Plan, wanted: Mapping[Target, frozenset[str]], progress: Progress) -> dict[str, LayerStatistics]:
    """One forward pass over all calibration data, and where output gradients are wanted one backward; padding counts.

    Of a weight that an embedding shares with another layer, the other layer's inputs count.

    Raises:
        UsageError: a layer that no calibration data reaches; a network that gradients cannot follow.
    """
    by_inputs = [target for target, names in wanted.items() if names & {"input_moment", "input_mean"}]
    by_outputs = [target for target, names in wanted.items() if "output_fisher" in names]
    total = len(batches(plan)) * (bool(by_inputs) + bool(by_outputs))
    inputs, outputs = _Sums(by_inputs), _Sums(by_outputs)
    done = 0
    for sums, run in ((inputs, _forward), (outputs, _backward)):
        for place in range(len(batches(plan)) if sums.found else 0):
            run(plan, place, sums)
            done += 1
            progress(STAGE, done, total)
    out = {}
    for target, names in wanted.items():
        first, second = inputs.means(target, 2)
        (squares,) = outputs.means(target, 1)
        out[target.name] = LayerStatistics(
            second if "input_moment" in names else None,
            first if "input_mean" in names else None,
            squares if "output_fisher" in names else None,
        )
    return out


class _Sums:
    """Sums over positions, per target."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.found: dict[Target, tuple[Tensor, ...]] = dict.fromkeys(targets, ())
        self._positions = dict.fromkeys(targets, 0)

    def add(self, target: Target, parts: tuple[Tensor, ...], positions: int) -> None:
        held = self.found[target]
        self.found[target] = tuple(a + b for a, b in zip(held, parts, strict=True)) if held else parts
        self._positions[target] += positions

    def means(self, target: Target, parts: int) -> tuple[Tensor | None, ...]:
        """Float32 on the CPU; None for each where nothing was asked for."""
        if target not in self.found:
            return (None,) * parts
        if not self._positions[target]:
            raise UsageError(
                f"layer {target.name} gets no input from the calibration data, so that nothing can be said of it: give "
                "data that reaches it, or take actions that need no statistics"
            )
        return tuple((part / self._positions[target]).float().cpu() for part in self.found[target])


def _forward(plan: Plan, place: int, sums: _Sums) -> None:
    def seen(target: Target, call: Call, output: Tensor) -> None:
        if kind_of(call.module) == target.layer.kind:
            sums.add(target, moments(call.module, call.inputs), counts(call.module, call.inputs, output))

    watched(plan, list(sums.found), batches(plan)[place], seen)


def _backward(plan: Plan, place: int, sums: _Sums) -> None:
    """One sketch of the divergence's curvature."""
    task, model, batch = plan.workload.task, plan.workload.model, batches(plan)[place]
    model.requires_grad_(False)

    def arrive(target: Target, call: Call, gradient: Tensor) -> None:
        if kind_of(call.module) == target.layer.kind:
            behind = len(call.module.kernel_size) if isinstance(call.module, CONVOLUTIONS) else 0
            rows = gradient.movedim(-1 - behind, -1).reshape(-1, target.layer.rows).double()
            sums.add(target, (rows.square().sum(0),), len(rows))

    with captured(list(sums.found), arrive) as capture, torch.enable_grad():
        logits = task.logits(model, batch)
    generator = torch.Generator(logits.device).manual_seed(batch_seed(0, place))
    capture.backward(logits, half_hessian(logits, task.mask(batch), generator))
