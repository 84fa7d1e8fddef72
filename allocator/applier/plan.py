"""Which stored weight gets which action: a solution, resolved against a model before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from allocator.actions import Action, Corrected, parse
from allocator.applier.attention import OpenAttention
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.layers import ROOT, Unit, uncovered, units
from allocator.applier.modules import is_compressed, runs_in_parts
from allocator.applier.opening import Opening
from allocator.applier.trial import lets_through
from allocator.errors import ActionError


class HasActions(Protocol):
    """What the applier needs of a solution."""

    @property
    def actions(self) -> Mapping[str, Mapping[str, Any]]:
        """Group to action."""

    @property
    def modules(self) -> Mapping[str, Sequence[str]]:
        """Group to module names; a group that is missing is its own only module."""


PlainSolution = Mapping[str, Mapping[str, Any]]
"""The same without the core: {group: {"action": {...}, "modules": [...]}}, modules optional."""


@dataclass(frozen=True)
class Step:
    """One action on one stored weight; a group of several weights gives several steps."""

    group: str
    unit: Unit
    action: Action


def actions_and_modules(solution: HasActions | PlainSolution) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Group to action (JSON), and group to module names, of either form of solution; ActionError if it is neither."""
    if isinstance(solution, Mapping):
        entries = dict(solution)
        for group, entry in entries.items():
            if not isinstance(entry, Mapping) or "action" not in entry:
                raise ActionError(f'group {group!r}: expected {{"action": …, "modules": […]}}, got {entry!r}')
        actions: dict[str, Any] = {group: entry["action"] for group, entry in entries.items()}
        modules = {group: entry.get("modules", [group]) for group, entry in entries.items()}
    else:
        actions, modules = dict(solution.actions), dict(solution.modules)
        if not actions:
            raise ActionError("the solution names no action: it has no allocation, or no choice in it carries one")
        # A Solution of the core also says its choices; one without an action must not pass for "leave as it is".
        for group in [*modules, *(getattr(solution, "choices", None) or ())]:
            if group not in actions:
                raise ActionError(f"group {group!r}: its choice carries no action; give every choice one to apply it")
    named: dict[str, list[str]] = {}
    for group in actions:
        names = modules.get(group, [group])
        if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
            raise ActionError(f"group {group!r}: modules must be a list of names, got {names!r}")
        named[group] = list(names)
    return actions, named


def modules_of(steps: Iterable[Step]) -> list[str]:
    """Names of all modules that the steps reach."""
    return [name for step in steps for name in step.unit.modules]


def plan(model: nn.Module, solution: HasActions | PlainSolution) -> tuple[Step, ...]:
    """Every step that a solution asks for, in the order of its groups; reads the model and changes nothing.

    A weight that several modules share is done once, for all of them, even where the group names only one. Parts of
    attention have the names that they get when it is opened (`opening`).

    Raises:
        ActionError: a module that the model lacks or that no action reaches, a weight claimed by two groups, an
            action that cannot be read or done; the text names group, module and reason.
    """
    with Opening(model):
        return _plan(model, solution)


def _plan(model: nn.Module, solution: HasActions | PlainSolution) -> tuple[Step, ...]:
    actions, modules = actions_and_modules(solution)
    by_module = {name: unit for unit in units(model) for name in unit.modules}
    claimed: dict[str, str] = {}
    steps: list[Step] = []
    for group, described in actions.items():
        try:
            action = parse(described)
            for unit in _units_of(model, modules[group], by_module):
                if claimed.setdefault(unit.name, group) != group:
                    raise ActionError(
                        f"weight of {', '.join(unit.modules)} belongs to group {claimed[unit.name]!r} too; "
                        "tied modules must be in one group"
                    )
                require_doable(model, unit, action)
                steps.append(Step(group, unit, action))
        except ActionError as error:
            raise ActionError(f"group {group!r}: {error}") from error
    return tuple(steps)


def _units_of(model: nn.Module, names: Sequence[str], by_module: Mapping[str, Unit]) -> list[Unit]:
    found: dict[str, Unit] = {}
    for name in names:
        unit = by_module.get("" if name == ROOT else name) or _by_identity(model, name, by_module)
        found.setdefault(unit.name, unit)
    return list(found.values())


def _by_identity(model: nn.Module, name: str, by_module: Mapping[str, Unit]) -> Unit:
    """The unit of a second name of a module that is registered twice, or the reason why there is none."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        part = name.rpartition(".")[2]
        why = "; attention has q_proj, k_proj, v_proj and out_proj" if part.startswith("in_proj") else ""
        raise ActionError(f"the model has no module {name!r}; names are those of named_modules(){why}") from error
    for known, unit in by_module.items():
        if model.get_submodule(known) is module:
            return unit
    if is_compressed(module):
        raise ActionError(f"module {name!r} is compressed already; start from the original model")
    if isinstance(module, OpenAttention):
        raise ActionError(f"module {name!r} is attention, which is four layers: name {name}.q_proj and its like")
    reasons = [f"{u.name}: {u.reason}" for u in uncovered(model) if u.name.rpartition(".")[0] == name]
    why = "; ".join(reasons) or f"a {type(module).__name__} has no weight that actions reach"
    raise ActionError(f"module {name!r} cannot be compressed ({why})")


def require_doable(model: nn.Module, unit: Unit, action: Action) -> None:
    """Raise ActionError, naming the module and the reason, unless an action can be done to a weight and its modules."""
    try:
        action.check(unit.layer)
    except ActionError as error:
        raise ActionError(f"module {unit.name!r}: {error}") from error
    kind = kind_of(action)
    for name in unit.modules:
        module = model.get_submodule(name)
        if isinstance(action, Corrected) and isinstance(module, nn.Embedding):
            raise ActionError(
                f"module {name!r}: an embedding looks rows up, and its outputs have no bias to correct; use the action "
                f"of this weight by itself: {action.action.to_json()}"
            )
        if not isinstance(kind, FactoredKind) or kind.whole_too or runs_in_parts(module):
            continue
        if not lets_through(module, kind.through(action)):
            raise ActionError(
                f"module {name!r}: {type(module).__name__} has a forward of its own, so several layers cannot "
                "stand in for it; quantize or keep it"
            )
