"""The part of a space that a method can take: bit-widths alone, ranks alone, or a pair of widths."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from allocator.actions.quantize import ROUNDINGS
from allocator.errors import UsageError
from allocator.space import Rule, Space

Kinds = Literal["any", "bits", "ranks"]

FRACTIONS = tuple(step / 16 for step in range(1, 16))
"""Of the full rank: what methods of ranks choose from, since one decomposition serves all of them."""
KEEP: Mapping[str, Any] = {"kind": "keep", "dtype": "float32"}


def menu_of(space: Space, kinds: Kinds, bits: Collection[int] | None = None, *, keep: bool = True) -> Space:
    """The space with only such choices in every rule; layers that are pinned or skipped stay so.

    - ``bits``: rounding to the space's widths, or to ``bits`` in the space's manner of rounding, and what
      the space keeps if ``keep`` and no ``bits`` are given.
    - ``ranks``: `FRACTIONS` of the full rank, factors stored as in the space's first low-rank choice, and `keep`,
      which is offered even where the space does not: some layers cannot be factored.

    Raises:
        UsageError: a rule that is left without a choice.
    """
    if kinds == "any":
        return space
    return replace(space, rules=tuple(_rule(rule, kinds, bits, keep) for rule in space.rules))


def directions(space: Space) -> Space:
    """The space with every bit-width rounded to nearest, all down and all up, as choices of their own.

    A choice that says how it is rounded stays as it is, and so does symmetric 1 bit, whose codes are signs.
    """

    def turned(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        sign = choice.get("bits") == 1 and choice.get("scheme", "symmetric") == "symmetric"
        if choice.get("kind") != "quantize" or "rounding" in choice or sign:
            return [choice]
        return [{**choice, "rounding": way} for way in ROUNDINGS]

    def rule(one: Rule) -> Rule:
        if isinstance(one.choices, str):
            return one
        return replace(one, choices=tuple(itertools.chain.from_iterable(map(turned, one.choices))))

    return replace(space, rules=tuple(map(rule, space.rules)))


def _rule(rule: Rule, kinds: Kinds, bits: Collection[int] | None, keep: bool) -> Rule:
    if isinstance(rule.choices, str):
        return rule
    choices = rule.choices
    kept = [choice for choice in choices if choice.get("kind") == "keep"]
    if kinds == "ranks":
        first = next((choice for choice in choices if choice.get("kind") == "low_rank"), {})
        factors = {key: first[key] for key in ("left", "right") if key in first}
        ranks = [{"kind": "low_rank", "fraction": share, **factors} for share in FRACTIONS]
        return replace(rule, choices=(*ranks, *(kept or [KEEP])))
    rounded = [choice for choice in choices if choice.get("kind") == "quantize"]
    if not rounded:
        raise UsageError(
            f"the rule {rule.modules!r} of the space has no bit-width, and this method chooses between bit-widths: "
            'add {"kind": "quantize", "bits": 4, …}, or "pin" these layers'
        )
    if bits is not None:
        rounded = [{**rounded[0], "bits": width} for width in bits]
        kept = []
    return replace(rule, choices=(*rounded, *(kept if keep else ())))
