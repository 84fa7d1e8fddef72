"""The channels that a space's shares leave out: found on the network, ranked on its data, coupled in the problem."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from allocator.actions import Kept, Slim
from allocator.applier.layers import Unit
from allocator.errors import UsageError
from allocator.grouping.channels import ChannelSpace, channels_of
from allocator.grouping.ranking import importance, most_important
from allocator.grouping.shares import Levels, levels, wanted
from allocator.progress import silent
from allocator.space import Space
from allocator.workload import Workload
from profilers._plan import Target
from profilers._statistics import statistics_for

RANKED_BY = frozenset({"input_moment"})


def channel_spaces(workload: Workload, found: Sequence[Unit], space: Space) -> tuple[ChannelSpace, ...] | None:
    """The channel spaces of the network; None if no rule of the space leaves channels out."""
    rules = [rule.choices for rule in space.rules if not isinstance(rule.choices, str)]
    slim = any(isinstance(choice, Mapping) and choice.get("kind") == "slim" for rule in rules for choice in rule)
    return channels_of(workload, found) if slim else None


def channel_levels(
    workload: Workload,
    found: Sequence[Unit],
    space: Space,
    spaces: Sequence[ChannelSpace] | None,
) -> dict[str, Levels]:
    """Which channels stay at each share of the space, by layer; measures the consumers once over the calibration data.

    To be called inside `untouched` and `opened`.
    """
    if not spaces:
        return {}
    rules = {unit.name: space.rule_for(unit.modules, unit.layer.kind) for unit in found}
    shares = {name: [] if rule is None else wanted(rule.choices) for name, rule in rules.items()}
    tried = levels(spaces, shares, lambda one, count: tuple(range(count)))
    consumers = dict.fromkeys(name for one in spaces for name in one.consumers if tried.get(name, Levels()).columns)
    if not consumers:
        return {}
    units = {unit.name: unit for unit in found}
    statistics = statistics_for(workload, dict.fromkeys(consumers, RANKED_BY), silent)
    ranked = {one: importance(one, units, statistics) for one in spaces if set(one.consumers) <= set(consumers)}
    return levels(spaces, shares, lambda one, count: most_important(ranked[one], count))


def channel_couplings(
    targets: Sequence[Target], spaces: Sequence[ChannelSpace] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows by which all layers of a space leave out the same channels, and what ``meta`` says of the spaces.

    For two layers A and B and a level c, exactly one of A's choices at c and B's choices not at c is taken: both are at
    c, or neither is. Neighbours in the list of a space's layers are joined, at every level but the one of all channels,
    which then follows. Spaces none of whose rows may go need no coupling; nothing is said where nobody looked for them.

    Raises:
        UsageError: a choice leaves out rows of which it is not known that nobody else reads them.
    """
    if spaces is None:
        return [], []
    by_name = {target.name: target for target in targets}
    produced = {name: space for space in spaces for name in space.producers}
    for target in targets:
        if any(_kept(target, place, "rows") for place in range(len(target.menu))) and target.name not in produced:
            raise UsageError(
                f"a choice of layer {target.name} leaves out rows, but its output channels are in no channel space, "
                "so that something may read them: leave out columns only"
            )
    rows: list[dict[str, Any]] = []
    meta: list[dict[str, Any]] = []
    for space in spaces:
        members = [(by_name[name], "columns") for name in space.consumers if name in by_name]
        writing = [(by_name[name], "rows") for name in space.producers if name in by_name]
        writing = [one for one in writing if _levels(*one)]
        if not writing:
            continue
        absent = [name for name in space.consumers if name not in by_name]
        if absent:
            raise UsageError(
                f"choices leave out rows of {writing[0][0].name}, but layer {absent[0]}, which is skipped, reads them"
            )
        members += writing
        found = list(dict.fromkeys(kept for one in members for kept in _levels(*one)))
        for a, b in itertools.pairwise(members):
            for kept in found:
                joined = [*_choices(*a, kept, True), *_choices(*b, kept, False)]
                rows.append({"kind": "exactly", "choices": joined, "count": 1})
        meta.append(
            {
                "name": space.name,
                "channels": space.count,
                "producers": list(space.producers),
                "consumers": list(space.consumers),
                "kept": [len(kept.kept) for kept in found],
            }
        )
    return rows, meta


def _kept(target: Target, place: int, side: str) -> Kept | None:
    action = target.menu[place].action
    return getattr(action, side) if isinstance(action, Slim) else None


def _levels(target: Target, side: str) -> list[Kept]:
    found = [_kept(target, place, side) for place in range(len(target.menu))]
    return list(dict.fromkeys(kept for kept in found if kept is not None))


def _choices(target: Target, side: str, kept: Kept, at: bool) -> list[list[str]]:
    """The choices of a layer that keep these channels, or those that do not."""
    return [
        [target.name, item.name] for place, item in enumerate(target.menu) if (_kept(target, place, side) == kept) == at
    ]
