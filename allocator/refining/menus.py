"""The choices of a problem, whoever stated it, as a space for a profiler: under their own names, none left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch.nn import Module

from allocator.actions import Layer, parse
from allocator.errors import UsageError
from allocator.faithfulness.weights import Weights
from allocator.grouping.shares import Levels
from allocator.menu_items import MenuItem
from allocator.problem import Problem
from allocator.space import NO_LEVELS, Rule, Space
from allocator.statement import BoolArray


@dataclass(frozen=True)
class Menus(Space):
    """Exactly these choices of exactly these weights; every other layer is skipped.

    A `Space` of rules would not do: it names choices by their actions, of which two may share a name, and leaves out
    those that save nothing.

    Attributes:
        menus: first module name of a stored weight, to its choices.
        groups: the same key, to the place of the group in the problem.
    """

    rules: tuple[Rule, ...] = ()
    menus: Mapping[str, tuple[MenuItem, ...]] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)

    def rule_for(self, modules: Sequence[str], kind: str) -> Rule | None:
        """A rule of this weight's choices."""
        own = self.menus.get(modules[0])
        return None if own is None else Rule(choices=tuple(item.action.to_json() for item in own), modules=modules[0])

    def menu(self, modules: Sequence[str], layer: Layer, levels: Levels = NO_LEVELS) -> list[MenuItem] | None:
        """The choices of this weight; None if it is skipped."""
        own = self.menus.get(modules[0])
        return None if own is None else list(own)


def menus_of(problem: Problem, model: Module, rows: BoolArray) -> Menus:
    """The choices of these rows [N], resolved against the model: names, actions and layers are checked here.

    Raises:
        UsageError: a choice without an action; a group that is not one stored weight.
        ActionError: a module that the model lacks, a weight that two groups name, an action that cannot be done to it.
    """
    weights = Weights(model, problem.replace(allowed=rows))
    menus: dict[str, tuple[MenuItem, ...]] = {}
    groups: dict[str, int] = {}
    for place, group in enumerate(problem.groups):
        own = [choice for choice in group.choices if rows[choice.row]]
        if not own:
            continue
        units = [name for name, _ in weights.units(own[0].row)]
        if len(units) != 1:
            raise UsageError(
                f"group {group.name!r} is {len(units)} stored weights of the network ({', '.join(units)}): refining "
                "measures one weight at a time; state the problem with one group for each, coupled by same_choice"
            )
        menus[units[0]] = tuple(MenuItem(one.name, one.label, parse(dict(one.action or {}))) for one in own)
        groups[units[0]] = place
    return Menus(menus=menus, groups=groups)
