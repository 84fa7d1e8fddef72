"""What there is to measure: every layer with its choices, their weights and their costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from allocator.actions import Layer
from allocator.applier.approximate import Approximator
from allocator.applier.layers import Unit, kind_of, units
from allocator.applier.plan import require_doable
from allocator.applier.statistics import LayerStatistics
from allocator.errors import ActionError, UsageError
from allocator.grouping.channels import ChannelSpace
from allocator.menu_items import MenuItem
from allocator.space import NO_LEVELS, Space
from allocator.tasks.batches import take
from allocator.workload import Workload
from profilers._parts import Parts
from profilers._switch import switched
from profilers._trace import Use, trace
from profilers._workers import Workers


@dataclass(eq=False)
class Target:
    """One stored weight with its menu: what becomes a group of the problem.

    Attributes:
        unit: names and parameter, as the applier sees them.
        modules: the modules that use the weight, parallel to ``unit.modules``.
        layer: with its positions per sample.
        menu: the choices.
        statistics: of the layer, if a choice needs any.
        others: choices of the layer that are not in this menu, because it is a stretch of a longer one.
        forms: stored forms of slow choices that were made already, by their places (`profilers._forms`).
    """

    unit: Unit
    modules: tuple[Module, ...]
    layer: Layer
    menu: list[MenuItem]
    statistics: LayerStatistics | None = field(default=None, repr=False)
    others: int = 0
    forms: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    _approximator: Approximator | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Group name: the first module's."""
        return self.unit.name

    @property
    def offered(self) -> int:
        """Choices of the layer, in this menu or not."""
        return len(self.menu) + self.others

    def approximation(self, place: int) -> Tensor:
        """The weight under choice ``place``, in the weight's own shape and dtype; a new tensor. Rows that nobody reads
        are as they were."""
        with self._approximating() as approximator:
            return approximator.as_scored(self.menu[place].action)

    def shift(self, place: int) -> Tensor | None:
        """[rows]: what choice ``place`` adds to every output beside its weight; None for most."""
        with self._approximating() as approximator:
            return approximator.shift(self.menu[place].action)

    def idle(self, place: int) -> bool:
        """Whether choice ``place`` changes not one bit."""
        return self.shift(place) is None and torch.equal(self.approximation(place), self.unit.weight)

    @contextmanager
    def changed(self, place: int) -> Iterator[bool]:
        """The network with choice ``place`` made, for a moment; whether that changes a bit."""
        other, shift = self.approximation(place), self.shift(place)
        if shift is None and torch.equal(other, self.unit.weight):
            yield False
            return
        with switched(self.unit.weight, other, shift, self.modules):
            yield True

    def changes(self) -> Iterator[tuple[int, Tensor]]:
        """(place, Δ = approximation − weight) of every choice that changes any bit of the weight, or of the outputs."""
        weight = self.unit.weight.detach()
        for place in range(len(self.menu)):
            delta = self.approximation(place).sub_(weight)
            if bool(delta.any()) or self.shift(place) is not None:
                yield place, delta

    def missing(self) -> list[int]:
        """Places of the choices whose stored forms take long to make, and were not made yet."""
        approximator = self._approximator or self._new_approximator()
        slow = (place for place, item in enumerate(self.menu) if approximator.slow(item.action))
        return [place for place in slow if place not in self.forms]

    def form(self, places: Sequence[int]) -> dict[int, Tensor]:
        """uint8, the stored forms of some choices; what was worked out on the way is not kept."""
        approximator = self._new_approximator()
        return {place: approximator.pack(self.menu[place].action) for place in places}

    def take(self, forms: Mapping[int, Tensor]) -> None:
        """Stored forms of choices, as `form` made them: those are not made again."""
        self.forms = {**self.forms, **{place: form.to(self.unit.weight.device) for place, form in forms.items()}}
        self._approximator = None

    def _new_approximator(self) -> Approximator:
        approximator = Approximator(self.unit.weight, self.layer, self.statistics)
        for place, form in self.forms.items():
            approximator.give(self.menu[place].action, form)
        return approximator

    @contextmanager
    def _approximating(self) -> Iterator[Approximator]:
        """The weight under its choices; what was worked out about it on the way is kept for the next time."""
        approximator = self._approximator or self._new_approximator()
        yield approximator
        if approximator.worth_keeping:
            self._approximator = approximator


@dataclass(frozen=True, eq=False)
class Plan:
    """A workload and its targets, in the model's order; ``skipped`` are the layers that get no group,
    ``channels`` the network's channel spaces if its rules leave channels out.

    ``parts`` keeps what is finished of a long measurement; ``memory`` what later shards of it can use again;
    ``workers`` says where shards run; ``model_sha256`` is of the network as it was handed in, before its attention was
    opened, None where nobody said.
    """

    workload: Workload
    targets: tuple[Target, ...]
    skipped: tuple[tuple[Unit, Layer], ...]
    channels: tuple[ChannelSpace, ...] | None = None
    parts: Parts = field(default_factory=Parts)
    memory: dict[object, Any] = field(default_factory=dict)
    workers: Workers = field(default_factory=Workers)
    model_sha256: str | None = None


def plan(workload: Workload, space: Space) -> Plan:
    """Lay out groups and choices; runs one calibration sample to count positions. Call it inside `untouched`
    and `Opening`. For a space that leaves out channels they are found and ranked here (`profilers._channels`).

    Raises:
        UsageError: nothing to compress; a rule names no layer; weights are not float32; a layer with choices is never
            called by the forward pass.
        ActionError: a choice that cannot be done to a layer.
    """
    from profilers._channels import channel_levels, channel_spaces  # they measure layers, which takes a plan of its own

    model = workload.model
    named: Mapping[str, Module] = dict(model.named_modules())
    found = units(model)
    if not found:
        raise UsageError(f"the model of {workload.name} has no layer to compress: no linear, conv or embedding weight")
    space.check_names([name for unit in found for name in unit.modules])
    _check_float32(found, space)
    first = next(iter(workload.calibration))
    modules = [named[name] for unit in found for name in unit.modules]
    uses = trace(workload.task, model, take(first, 0, 1), modules)
    spaces = channel_spaces(workload, found, space)
    levels = channel_levels(workload, found, space, spaces)
    targets: list[Target] = []
    skipped: list[tuple[Unit, Layer]] = []
    for unit in found:
        own = tuple(named[name] for name in unit.modules)
        layer = _placed(unit, {module: uses[module] for module in own})
        menu = _doable(model, unit, space.menu(unit.modules, layer, levels.get(unit.name, NO_LEVELS)))
        if menu is None:
            skipped.append((unit, layer))
            continue
        if not any(uses[module].starts for module in own):
            raise UsageError(
                f"layer {unit.name} is never called by the forward pass: either it is unused, or its weight is read "
                "past its module, as F.linear(x, layer.weight) does, and cannot be followed. Give the space a rule "
                f'{{"modules": "{unit.name}", "choices": "skip"}} before the others, or call it as a module'
            )
        targets.append(Target(unit, own, layer, menu))
    if not targets:
        raise UsageError(f"the space skips every layer of {workload.name}: give at least one layer choices")
    return Plan(workload, tuple(targets), tuple(skipped), spaces)


def _doable(model: Module, unit: Unit, menu: list[MenuItem] | None) -> list[MenuItem] | None:
    """The choices that can be done to the weight's modules: the menu is for many layers."""
    kept: list[MenuItem] = []
    refused: ActionError | None = None
    for item in menu or []:
        try:
            require_doable(model, unit, item.action)
        except ActionError as error:
            refused = error
        else:
            kept.append(item)
    if refused is not None and not kept:
        raise ActionError(
            f"none of the choices of layer {unit.name} can be done to it: {refused}. Give its rule the choice "
            '{"kind": "keep"}, or "skip" the layer'
        ) from refused
    return kept or menu


def _check_float32(found: Sequence[Unit], space: Space) -> None:
    for unit in found:
        rule = space.rule_for(unit.modules, unit.layer.kind)
        if rule is not None and rule.choices != "skip" and unit.weight.dtype != torch.float32:
            raise UsageError(
                f"the weight of layer {unit.name} is {unit.weight.dtype}: curvature and small divergences need "
                "float32. Profile model.float() and apply the solution to either"
            )


def _placed(unit: Unit, uses: Mapping[Module, Use]) -> Layer:
    """The unit's layer with its positions per sample, of a convolution also those of its inputs.

    Only modules that do what the layer does count; the rest of a tied weight only looks up.
    """
    doing = [use for module, use in uses.items() if kind_of(module) == unit.layer.kind]
    positions = -(-sum(use.outputs for use in doing) // _features(unit.layer))
    if not unit.layer.kind.startswith("conv"):
        return unit.layer.at(positions)
    channels = unit.layer.weight_shape[1] * unit.layer.groups
    return unit.layer.at(positions, -(-sum(use.inputs for use in doing) // channels))


def _features(layer: Layer) -> int:
    """Output elements per position: rows, or the width of an embedding."""
    return layer.columns if layer.kind == "embedding" else layer.rows
