"""One choice of a space on one layer: shares resolved, and left out where it cannot be done or saves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from allocator import tensor_menu
from allocator.actions import Action, Layer, LowRank, NumberFormat, Prune, Quantize, Slim, Unify, parse, statistics_of
from allocator.choice_names import correction, short_name
from allocator.errors import ActionError
from allocator.grouping.shares import Levels, is_share, slim_choices

FACTOR: Mapping[str, Any] = {"kind": "quantize", "bits": 8, "scheme": "symmetric", "granularity": "channel"}
"""How the factors of a low-rank choice are stored unless told: 8 bits per weight, one scale per row."""

_Action = TypeVar("_Action", bound=Action)


@dataclass(frozen=True)
class MenuItem:
    """One choice of one layer: its name, the label shared with like choices of other layers, and what is done."""

    name: str
    label: str
    action: Action


def resolved(
    choice: Mapping[str, Any], menu: Sequence[Mapping[str, Any]], layer: Layer, levels: Levels
) -> list[MenuItem]:
    """The choices of a layer that one of a menu stands for: one, or none, or several for a share of channels.

    Raises:
        ActionError: a choice that cannot be read, or cannot be done to the layer whatever its sizes.
    """
    if is_share(choice):
        return [_slim(words, action, layer) for words, action in slim_choices(choice, menu, levels)]
    item = _one(choice, layer)
    return [] if item is None else [item]


def _slim(words: str, action: Slim, layer: Layer) -> MenuItem:
    label = short_name(action).split("_", 1 + (action.rows is not None) + (action.columns is not None))[-1]
    name = short_name(action)
    action = replace(action, values=_within(action.values, action.core(layer).columns))
    action.check(layer)
    return MenuItem(name, f"slim_{words}_{label}", action)


def _one(choice: Mapping[str, Any], layer: Layer) -> MenuItem | None:
    if choice.get("kind") == "low_rank":
        return _low_rank(choice, layer)
    if choice.get("kind") in tensor_menu.RANK_KEYS:
        return _tensor_format(choice, layer)
    if choice.get("kind") == "corrected":
        return _corrected(choice, layer)
    if choice.get("kind") == "prune":
        return _prune(choice, layer)
    action = parse(choice)
    name = short_name(action)
    if layer.kind == "embedding" and statistics_of(action):
        return None  # without inputs; the menu is for many layers
    if isinstance(action, Unify) and not _saves(action, layer):
        return None
    action = _within(action, layer.columns)
    action.check(layer)
    return MenuItem(name, name, action)


def _within(action: _Action, columns: int) -> _Action:
    """The action with one group per row where its groups are longer than a row."""
    if isinstance(action, (Quantize, NumberFormat)) and action.group_size is not None and action.group_size > columns:
        return replace(action, granularity="channel", group_size=None)
    return action


def _saves(action: Unify, layer: Layer) -> bool:
    """Whether it can be done to the layer and takes fewer bytes than its values alone: the menu is for many layers."""
    try:
        action.check(layer)
    except ActionError:
        return False
    return action.stored_bytes(layer) < action.values.stored_bytes(Layer("linear", (1, layer.weights)))


def _low_rank(choice: Mapping[str, Any], layer: Layer) -> MenuItem | None:
    given: dict[str, Any] = {"left": FACTOR, "right": FACTOR, **choice}
    share, multiple = given.pop("fraction", None), given.pop("multiple", 1)
    tensor_menu.require_multiple("low_rank", share, multiple)
    if share is not None:
        if "rank" in given or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ActionError("low_rank takes either a rank or a fraction in (0, 1] of the full rank")
        rank = round(share * min(layer.rows // layer.groups, layer.columns))
        given["rank"] = max(1, rank // multiple) * multiple
    action = parse(given)
    assert isinstance(action, LowRank)
    name = short_name(action)
    action = replace(action, left=_within(action.left, action.rank), right=_within(action.right, layer.columns))
    try:
        action.check(layer)
    except ActionError:
        return None  # a rank beyond this layer: the menu is for many layers
    if action.stored_bytes(layer) >= action.left.stored_bytes(layer):
        return None
    _, _, formats = name.removesuffix("_picked").partition("_")
    label = name if share is None else f"rank{100 * share:g}%" + ("" if formats == "int8" else f"_{formats}")
    picked = "" if share is None or action.components is None else "_picked"
    return MenuItem(name, label + picked, action)


def _tensor_format(choice: Mapping[str, Any], layer: Layer) -> MenuItem | None:
    action = tensor_menu.resolved(choice, layer, FACTOR)
    if action is None:
        return None
    name, share = tensor_menu.name_of(action, short_name), choice.get("fraction")
    return MenuItem(name, name if share is None else tensor_menu.label_of(action, share, short_name), action)


def _corrected(choice: Mapping[str, Any], layer: Layer) -> MenuItem | None:
    """The choice inside, resolved as if it stood alone, and corrected; None for an embedding too."""
    inside = choice.get("action")
    if not isinstance(inside, Mapping):
        parse(choice)  # says what is wrong, or takes a finished action
        inside = inside.to_json() if isinstance(inside, Action) else {}
    item = None if layer.kind == "embedding" else _one(inside, layer)
    if item is None:
        return None
    action = parse({**choice, "action": item.action})
    action.check(layer)
    ending = correction(action)
    return MenuItem(item.name + ending, item.label + ending, action)


def _prune(choice: Mapping[str, Any], layer: Layer) -> MenuItem | None:
    action = parse({"values": FACTOR, **choice})
    assert isinstance(action, Prune)
    name, values = short_name(action), action.values
    kept = action.values_layer(layer)
    if isinstance(values, Quantize) and values.group_size is not None and values.group_size > kept.columns:
        whole = "channel" if kept.rows > 1 else "tensor"
        action = replace(action, values=replace(values, granularity=whole, group_size=None))
    try:
        action.check(layer)
    except ActionError:
        return None  # an embedding's inputs, say: the menu is for many layers
    signs_alone = isinstance(values, Quantize) and values.scheme == "symmetric" and values.bits == 1
    if isinstance(values, Quantize) and values.bits < 8 and (action.signs == "apart" or signs_alone):
        values = replace(values, bits=values.bits + 1)  # without pruning it takes a bit more to stand for 0 too
    return MenuItem(name, name, action) if action.stored_bytes(layer) < values.stored_bytes(layer) else None
