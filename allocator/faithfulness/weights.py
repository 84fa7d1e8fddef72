"""A problem's choices as changes of a network's weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor
from torch.nn import Module

from allocator.applier.approximate import Approximator
from allocator.applier.plan import Step, plan
from allocator.applier.statistics import Statistics
from allocator.errors import UsageError
from allocator.faithfulness.held_out import Change
from allocator.problem import Problem
from allocator.statement import IntArray


class Weights:
    """What the rows of a problem do to a model, resolved for all of them before anything is measured.

    Approximations are kept while they fit ``cache_bytes``, the latest used ones, since random allocations take the
    same few choices again and again.

    Args:
        model: the float network.
        problem: its groups name modules of the model; every choice that may be taken has an action.
        statistics: of the layers, for the choices that need them.
        cache_bytes: memory for approximations.

    Raises:
        UsageError: a choice without an action.
        ActionError: a module that the model lacks, a weight that two groups name, an action that cannot be done to it.
    """

    def __init__(
        self, model: Module, problem: Problem, statistics: Statistics | None = None, cache_bytes: int = 1 << 30
    ) -> None:
        self._model, self._statistics, self._cache_bytes = model, statistics or {}, cache_bytes
        self._kept: OrderedDict[tuple[int, int], tuple[Tensor, Tensor | None]] = OrderedDict()
        self._held = 0
        self._approximators: dict[int, Approximator] = {}
        self._steps: dict[int, tuple[Step, ...]] = {}
        self._resolve(problem)

    @property
    def modules(self) -> list[Module]:
        """Every module whose weight some row changes."""
        steps = [step for steps in self._steps.values() for step in steps]
        names = dict.fromkeys(name for step in steps for name in step.unit.modules)
        return [self._model.get_submodule(name) for name in names]

    def key(self, rows: IntArray) -> tuple[Any, ...]:
        """What a measurement of these rows depends on, beside the network and the data: weights and their actions."""
        return tuple(sorted(unit for row in rows.tolist() for unit in self.units(row)))

    def units(self, row: int) -> list[tuple[str, str]]:
        """(first module name, action) of every stored weight that a row is about."""
        return [(step.unit.name, repr(step.action)) for step in self._steps[row]]

    def changes(self, rows: IntArray) -> list[Change]:
        """What stands in for the weights when these rows are taken, at most one of each group."""
        return [
            Change(step.unit.weight, self._modules_of(step), *self._approximation(row, place, step))
            for row in rows.tolist()
            for place, step in enumerate(self._steps[row])
        ]

    def _resolve(self, problem: Problem) -> None:
        """All groups' first free choices at once, then their second ones: one survey of the model for each."""
        free = [[choice for choice in group.choices if problem.free[choice.row]] for group in problem.groups]
        for place in range(max(map(len, free), default=0)):
            taken = {g.name: (g, own[place]) for g, own in zip(problem.groups, free, strict=True) if place < len(own)}
            entries: dict[str, dict[str, Any]] = {}
            for name, (group, choice) in taken.items():
                if choice.action is None:
                    raise UsageError(
                        f"choice {choice.name!r} of group {name!r} has no action, so what it does to the network is "
                        "not known and cannot be measured: give every choice one, or forbid it"
                    )
                entries[name] = {"action": choice.action, "modules": list(group.modules)}
            for _, choice in taken.values():
                self._steps[choice.row] = ()
            for step in plan(self._model, entries):
                self._steps[taken[step.group][1].row] += (step,)

    def _modules_of(self, step: Step) -> tuple[Module, ...]:
        return tuple(self._model.get_submodule(name) for name in step.unit.modules)

    def _approximation(self, row: int, place: int, step: Step) -> tuple[Tensor, Tensor | None]:
        kept = self._kept.get((row, place))
        if kept is not None:
            self._kept.move_to_end((row, place))
            return kept
        made = self._made(step)
        self._kept[row, place] = made
        self._held += made[0].nbytes
        while self._held > self._cache_bytes and len(self._kept) > 1:
            self._held -= self._kept.popitem(last=False)[1][0].nbytes
        return made

    def _made(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """The approximation and its shift; what was worked out about a weight on the way is kept."""
        weight, statistics = step.unit.weight, self._statistics.get(step.unit.name)
        approximator = self._approximators.get(id(weight)) or Approximator(weight, step.unit.layer, statistics)
        made = approximator.as_scored(step.action), approximator.shift(step.action)
        if approximator.worth_keeping:
            self._approximators[id(weight)] = approximator
        return made
