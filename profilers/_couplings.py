"""The sets of layers of a plan that must take one common label: by rules of the space, or found on the network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from allocator.applier.layers import units
from allocator.errors import UsageError
from allocator.grouping.find import check_kinds, couplings_of
from allocator.grouping.rules import Coupled
from allocator.space import Space
from profilers._plan import Plan


def coupled(plan: Plan, space: Space, kinds: Collection[str]) -> list[Coupled]:
    """The sets that the space names, then those of the kinds asked for; call it inside `untouched` and `Opening`.

    Layers without a group are in no set; nor, in sets that are found, are those with one choice only (pinned, say):
    they would pin the others.

    Raises:
        UsageError: a rule that joins nothing; layers of one set without a choice label in common.
    """
    check_kinds(kinds)
    sets = space.coupled({target.name: target.unit.modules for target in plan.targets})
    if kinds:
        free = {target.name for target in plan.targets if len(target.menu) > 1}
        for found in couplings_of(plan.workload, units(plan.workload.model), kinds):
            members = tuple(name for name in found.groups if name in free)
            if len(members) > 1:
                sets.append(Coupled(found.name, found.kind, members))
    labels = {target.name: [item.label for item in target.menu] for target in plan.targets}
    for one in sets:
        _check_labels(one, labels)
    return sets


def coupling_rows(sets: Sequence[Coupled]) -> dict[str, list[dict[str, Any]]]:
    """``couplings`` of problem.json, each set of groups once, and what ``meta`` says of where each comes from."""
    rows = {frozenset(one.groups): {"kind": "same_choice", "groups": list(one.groups)} for one in sets}
    return {
        "couplings": list(rows.values()),
        "meta": [{"name": one.name, "kind": one.kind, "groups": list(one.groups)} for one in sets],
    }


def _check_labels(one: Coupled, labels: dict[str, list[str]]) -> None:
    if not set.intersection(*(set(labels[name]) for name in one.groups)):
        menus = {", ".join(labels[name]): name for name in reversed(one.groups)}
        shown = "; ".join(f"{name}: {menu}" for menu, name in list(menus.items())[::-1][:4])
        raise UsageError(
            f"the coupled layers {one.name!r} have no choice label in common ({shown}): give them a menu in common, or "
            "couple fewer"
        )
