"""Tensor formats in a menu: ranks of a layer from a share of its numbers, and the names of such choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from allocator.actions import Action, Cp, Layer, TensorFormat, Tt, Tucker2, parse
from allocator.actions.action import require_whole
from allocator.actions.tensor_format import STEPS, refuse_matrices
from allocator.actions.tensor_ranks import RULES, Ranks
from allocator.errors import ActionError

RANK_KEYS: Mapping[str, tuple[str, ...]] = {"tucker2": ("rank_out", "rank_in"), "cp": ("rank",), "tt": ("ranks",)}


def resolved(choice: Mapping[str, Any], layer: Layer, stored: Mapping[str, Any]) -> TensorFormat | None:
    """The action of a menu's choice on a layer, None if it cannot be done to it or saves nothing.

    ``fraction``, in (0, 1], in place of ranks: the share of the layer's numbers that the format may store; the ranks
    are as large as that allows, rounded down to multiples of ``multiple`` (1), at least one multiple. Parts are stored
    by ``stored`` unless the choice says else.

    Raises:
        ActionError: a choice that is wrong whatever the layer.
    """
    kind, keys = str(choice["kind"]), RANK_KEYS[str(choice["kind"])]
    given = dict(choice) if "parts" in choice else {**dict.fromkeys(STEPS, stored), **choice}
    share, multiple = given.pop("fraction", None), given.pop("multiple", 1)
    require_multiple(kind, share, multiple)
    if share is None:
        action = parse(given)
    else:
        if any(key in given for key in keys) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ActionError(f"{kind} takes either {' and '.join(keys)} or a fraction in (0, 1] of its numbers")
        least = parse({**given, **{key: [1, 1] if key == "ranks" else 1 for key in keys}})
        ranks = _ranks(least, share, multiple, layer)
        if ranks is None:
            return None
        action = parse({**given, **dict(zip(keys, [list(ranks)] if kind == "tt" else ranks, strict=True))})
    assert isinstance(action, TensorFormat)
    try:
        action.check(layer)
    except ActionError:
        return None  # a matrix, groups, a rank beyond this layer: the menu is for many layers
    return action if action.stored_bytes(layer) < action.last.stored_bytes(layer) else None


def require_multiple(kind: str, share: object, multiple: object) -> None:
    """Raise ActionError unless ``multiple`` is an integer ≥ 1, and 1 where ranks are given and not a share."""
    require_whole(kind, "multiple", multiple, 1)
    if share is None and multiple != 1:
        raise ActionError(f"action {kind}: multiple rounds the ranks of a fraction, and none is given; leave it out")


def _ranks(least: Action, share: float, multiple: int, layer: Layer) -> Ranks | None:
    """The ranks that a share allows; None for a layer that cannot have the format."""
    try:
        refuse_matrices(least.kind, layer)
    except ActionError:
        return None
    shape = least.shape(layer) if isinstance(least, (Cp, Tt)) else layer.weight_shape
    return RULES[least.kind].ranks(shape, share, multiple)


def name_of(action: TensorFormat, short_name: Callable[[Action], str]) -> str:
    """What the choice is called: ``tucker16x8_int8``, ``cp20_int8``, ``cp20_whole_int8``, ``tt12-6-12_int8``."""
    if isinstance(action, Tucker2):
        head = f"tucker{action.rank_out}x{action.rank_in}"
    elif isinstance(action, Tt):
        head = "tt" + "-".join(map(str, action.ranks))
    else:
        assert isinstance(action, Cp)
        head = f"cp{action.rank}"
    return "_".join([head, *_suffixes(action, _stored(action, short_name))])


def label_of(action: TensorFormat, share: float, short_name: Callable[[Action], str]) -> str:
    """What it shares with such choices of other layers: ``tucker25%``, ``cp25%_whole``, ``tt25%_int4``."""
    stored = _stored(action, short_name)
    head = f"{action.kind.removesuffix('2')}{100 * share:g}%"
    return "_".join([head, *_suffixes(action, [] if stored == ["int8"] else stored)])


def _stored(action: TensorFormat, short_name: Callable[[Action], str]) -> list[str]:
    """How the parts are stored: one name, or three where they differ."""
    named = [short_name(part) for part in (action.first, action.core, action.last)]
    return named[:1] if len({*named}) == 1 else named


def _suffixes(action: TensorFormat, stored: list[str]) -> list[str]:
    whole = ["whole"] if isinstance(action, Cp) and action.kernel == "whole" else []
    return [*whole, *stored, *([] if action.weighting == "none" else [action.weighting])]
