"""Shares of channels: which levels the rules of a space give each channel space, and the choices that come of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allocator.actions import Kept, Slim
from allocator.errors import ActionError

if TYPE_CHECKING:
    from allocator.grouping.channels import ChannelSpace


@dataclass(frozen=True)
class Share:
    """How many of a space's channels stay: the share, rounded to a multiple, half to even; at least one multiple.

    >>> Share(0.3, 8).channels(64), Share(0.01).channels(20), Share(0.9, 16).channels(16)
    (16, 1, 16)
    """

    keep: float
    multiple: int = 1

    @staticmethod
    def read(choice: Mapping[str, Any]) -> Share:
        """From a choice ``{"kind": "slim", "keep": …, "multiple": …}``; ActionError for what is no share."""
        keep, multiple = choice["keep"], choice.get("multiple", 1)
        if not isinstance(keep, (int, float)) or isinstance(keep, bool) or not 0 < keep < 1:
            raise ActionError(f"action slim: keep must be a share of the channels between 0 and 1, got {keep!r}")
        if not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1:
            raise ActionError(f"action slim: multiple must be an integer ≥ 1, got {multiple!r}")
        return Share(float(keep), multiple)

    def channels(self, of: int) -> int:
        """Channels that stay of so many; all of them where the multiple leaves no other way."""
        return min(of, self.multiple * max(1, round(self.keep * of / self.multiple)))


@dataclass(frozen=True)
class Levels:
    """What a layer may do: the channels that stay at each share, of its outputs (rows) and its inputs (columns).

    ``same``: rows and columns are the channels of one space, so that they go together.
    """

    rows: Mapping[Share, Kept] = field(default_factory=dict)
    columns: Mapping[Share, Kept] = field(default_factory=dict)
    same: bool = False


def is_share(choice: object) -> bool:
    """Whether a choice of a rule is a share of channels, to be resolved for each layer."""
    return isinstance(choice, Mapping) and choice.get("kind") == "slim" and "keep" in choice


def wanted(choices: Sequence[Mapping[str, Any]] | str) -> list[Share]:
    """The shares that a rule gives its layers."""
    return [] if isinstance(choices, str) else [Share.read(choice) for choice in choices if is_share(choice)]


def levels(
    spaces: Sequence[ChannelSpace],
    shares: Mapping[str, Sequence[Share]],
    kept: Callable[[ChannelSpace, int], tuple[int, ...]],
) -> dict[str, Levels]:
    """The levels of every layer that has any, by its name.

    A share is a level of a space if all its consumers' rules give it and it leaves a channel out. A producer takes part
    if its rule gives all levels of the space; else its rows stay, which costs bytes and harms nothing.

    Args:
        spaces: of the network.
        shares: of each layer's rule.
        kept: which channels of a space stay where so many do; rising.
    """
    rows: dict[str, ChannelSpace] = {}
    columns: dict[str, ChannelSpace] = {}
    found: dict[ChannelSpace, dict[Share, Kept]] = {}
    for space in spaces:
        common = [one for one in shares.get(space.consumers[0], ()) if one.channels(space.count) < space.count]
        common = [one for one in common if all(one in shares.get(name, ()) for name in space.consumers)]
        found[space] = {one: Kept(space.count, kept(space, one.channels(space.count))) for one in common}
        if common:
            columns |= dict.fromkeys(space.consumers, space)
            rows |= {name: space for name in space.producers if set(common) <= set(shares.get(name, ()))}
    return {
        name: Levels(
            found[rows[name]] if name in rows else {},
            found[columns[name]] if name in columns else {},
            rows.get(name) == columns.get(name),
        )
        for name in {**rows, **columns}
    }


def slim_choices(choice: Mapping[str, Any], menu: Sequence[Mapping[str, Any]], own: Levels) -> list[tuple[str, Slim]]:
    """What one share of a rule makes of a layer: (levels in words, action), none where the layer has no such level.

    Rows and columns may be at different levels, so that a share stands for all pairs of it, of all channels, and of the
    shares with the same other keys that come before it in the ``menu``. Unless told, columns that stay take over what
    they can (`weighting` input).

    Raises:
        ActionError: keys that are wrong.
    """

    def others(one: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one.items() if key not in ("keep", "multiple")}

    this, rest = Share.read(choice), others(choice)
    unknown = set(rest) - {"kind", "values", "weighting"}
    if unknown or "values" not in rest:
        raise ActionError(
            "action slim: a share of channels has the keys keep, multiple, values and weighting, and needs keep and "
            f"values; got {dict(choice)!r}"
        )
    like = [one for one in menu if is_share(one) and others(one) == rest]
    before: list[Share | None] = [None, *(Share.read(one) for one in like[: like.index(choice)])]
    pairs = [(this, other) for other in before] + [(other, this) for other in before] + [(this, this)]
    found = []
    for row, column in pairs:
        rows, columns = (own.rows.get(row) if row else None), (own.columns.get(column) if column else None)
        lacking = (row and not rows) or (column and not columns)
        if lacking or (own.same and row != column):
            continue
        weighting = rest.get("weighting", "input") if columns else "none"
        action = Slim(values=rest["values"], rows=rows, columns=columns, weighting=weighting)
        words = [f"{side}{100 * share.keep:g}%" for side, share in (("r", row), ("c", column)) if share]
        found.append(("_".join(words), action))
    return found
