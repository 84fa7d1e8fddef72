"""Which choices each layer gets: an ordered list of rules, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from allocator.actions import Action, Keep, Layer, LowRank, NumberFormat, Quantize, Slim, Unify, parse
from allocator.errors import ActionError, UsageError
from allocator.grouping.rules import Couple, Coupled, check_pattern, named
from allocator.grouping.shares import Levels, is_share, slim_choices

FORMAT, VERSION = "allocation-space", 1
FACTOR: Mapping[str, Any] = {"kind": "quantize", "bits": 8, "scheme": "symmetric", "granularity": "channel"}
"""How the factors of a low-rank choice are stored unless told: 8 bits per weight, one scale per row."""


NO_LEVELS = Levels()


@dataclass(frozen=True)
class MenuItem:
    """One choice of one layer: its name, the label shared with like choices of other layers, and what is done."""

    name: str
    label: str
    action: Action


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Layers, and what may be done to them.

    Attributes:
        choices: actions as JSON objects; or ``"pin"``: a group whose only choice is to be kept; or ``"skip"``: no
            group at all, its costs count in the offsets. A low-rank action may give ``fraction`` of the full rank in
            place of ``rank``; its factors are at 8 bits per channel (`FACTOR`) unless ``left`` and ``right`` say else.
            A slim action may give ``keep``, a share of channels, and ``multiple``, to which their number is rounded,
            in place of ``rows`` and ``columns`` (`allocator.grouping.shares`).
        modules: a glob over module names, or ``re:`` and a regular expression that must match the whole name.
        kinds: layer kinds (linear, conv1d, conv2d, conv3d, embedding); empty: all.
    """

    choices: tuple[Mapping[str, Any], ...] | Literal["pin", "skip"]
    modules: str = "*"
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.choices, str) and self.choices not in ("pin", "skip"):
            raise UsageError(f'a rule\'s choices are a list of actions, "pin" or "skip", not {self.choices!r}')
        if not self.choices:
            raise UsageError(f'the rule for {self.modules!r} has no choices: list actions, or say "pin" or "skip"')
        check_pattern(self.modules)

    def names(self, modules: Sequence[str]) -> bool:
        """Whether the pattern names one of the modules that share a weight."""
        return named(self.modules, modules)

    def covers(self, modules: Sequence[str], kind: str) -> bool:
        """Whether the rule is about a layer of that kind and with those module names."""
        return (not self.kinds or kind in self.kinds) and self.names(modules)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Space.from_json` reads."""
        out: dict[str, Any] = {"modules": self.modules}
        if self.kinds:
            out["kinds"] = list(self.kinds)
        out["choices"] = self.choices if isinstance(self.choices, str) else [dict(choice) for choice in self.choices]
        return out


@dataclass(frozen=True)
class Space:
    """Ordered rules; the first that covers a layer decides, and a layer that no rule covers is skipped.

    Attributes:
        rules: in order.
        couple: sets of layers that must take one common label (`MenuItem.label`).

    >>> space = Space.simple(bits=(4, 8))
    >>> [item.name for item in space.menu(["fc"], Layer("linear", (10, 64)))]
    ['int4', 'int8', 'rank2_int8', 'rank5_int8', 'keep']
    >>> Space.from_json(space.to_json()) == space
    True
    """

    rules: tuple[Rule, ...]
    couple: tuple[Couple, ...] = ()

    @staticmethod
    def simple(
        bits: Sequence[int] = (2, 3, 4, 8),
        ranks: Sequence[float] = (0.25, 0.5),
        granularity: str = "channel",
        scheme: str = "symmetric",
        group_size: int | None = None,
        *,
        keep: bool = True,
    ) -> Space:
        """The same menu for every layer.

        Args:
            bits: widths to round to.
            ranks: fractions of the full rank min(rows/groups, columns). Each is resolved per layer, with factors at 8
                bits per channel, and dropped where it stores no fewer bytes than the whole layer at 8 bits.
            granularity: weights that share a scale: tensor, channel or group.
            scheme: symmetric or asymmetric.
            group_size: with granularity group.
            keep: offer the weight as it is.
        """
        shared: dict[str, Any] = {"scheme": scheme, "granularity": granularity}
        if group_size is not None:
            shared["group_size"] = group_size
        menu: list[Mapping[str, Any]] = [{"kind": "quantize", "bits": width, **shared} for width in bits]
        menu += [{"kind": "low_rank", "fraction": rank} for rank in ranks]
        if keep:
            menu.append({"kind": "keep", "dtype": "float32"})
        return Space((Rule(choices=tuple(menu)),))

    def rule_for(self, modules: Sequence[str], kind: str) -> Rule | None:
        """The first rule that covers the layer."""
        return next((rule for rule in self.rules if rule.covers(modules, kind)), None)

    def menu(self, modules: Sequence[str], layer: Layer, levels: Levels = NO_LEVELS) -> list[MenuItem] | None:
        """The choices of a layer, None if it is skipped.

        Low-rank choices that cannot be done to the layer or save nothing are left out, and of two with one name
        (fractions that round to the same rank) the first stays; a group size beyond a row means the whole row.
        A share of channels stands for what ``levels`` says of this layer, nothing unless told.

        Raises:
            ActionError: an action that cannot be read or cannot be done to the layer; names layer and action.
        """
        rule = self.rule_for(modules, layer.kind)
        if rule is None or rule.choices == "skip":
            return None
        if rule.choices == "pin":
            return [MenuItem("keep", "keep", Keep())]
        items: dict[str, MenuItem] = {}
        for choice in rule.choices:
            if not isinstance(choice, Mapping):
                raise ActionError(f"a choice of the rule {rule.modules!r} is {choice!r}, not an action object")
            try:
                found = _resolve(choice, rule.choices, layer, levels)
            except ActionError as error:
                raise ActionError(f"layer {modules[0]} and choice {dict(choice)}: {error}") from error
            for item in found:
                first = items.setdefault(item.name, item)
                picked = item.name.endswith("_picked") or isinstance(item.action, Slim)
                if first.action != item.action and picked:
                    raise ActionError(
                        f"layer {modules[0]} has two choices {item.name} with other components or channels: give one "
                        "list for each number of them"
                    )
        if not items:
            raise ActionError(
                f"layer {modules[0]} of shape {layer.weight_shape} is left without a choice by the rule "
                f'{rule.modules!r}: add {{"kind": "keep", "dtype": "float32"}}, or "skip" the layer'
            )
        return list(items.values())

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse patterns that name no module: a misspelt rule would leave its layers unprotected."""
        for place, rule in enumerate(self.rules):
            if not rule.names(names):
                raise UsageError(
                    f"rule {place} of the space, {rule.modules!r}, names no layer of this network; layers are "
                    f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''}. Correct or remove it"
                )

    def coupled(self, groups: Mapping[str, Sequence[str]]) -> list[Coupled]:
        """The sets that ``couple`` makes of these groups (name to modules); UsageError if one rule makes none."""
        return [found for one in self.couple for found in one.sets(groups)]

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{"format": "allocation-space", "version": 1, "rules": [{modules, kinds, choices}…]}``.

        Beside ``rules``, if there are any, ``couple: [{modules, per, name}…]``.
        """
        out: dict[str, Any] = {"format": FORMAT, "version": VERSION, "rules": [rule.to_json() for rule in self.rules]}
        return {**out, "couple": [one.to_json() for one in self.couple]} if self.couple else out

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Space:
        """Read `to_json`; UsageError names the rule and the key that is wrong."""
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            raise UsageError(f'a space starts with "format": "{FORMAT}" and "version": {VERSION}')
        unknown = set(data) - {"format", "version", "rules", "couple"}
        lists = data.get("rules"), data.get("couple", ())
        if unknown or not all(isinstance(one, Sequence) and not isinstance(one, str) for one in lists):
            raise UsageError(
                "a space has the keys format, version, rules (a list) and couple (a list, optional); unknown: "
                f"{sorted(unknown)}"
            )
        rules = []
        for place, rule in enumerate(data["rules"]):
            if not isinstance(rule, Mapping) or "choices" not in rule or set(rule) - {"modules", "kinds", "choices"}:
                raise UsageError(f"rule {place} of the space is {rule!r}: its keys are modules, kinds and choices")
            choices: Any = rule["choices"]
            if isinstance(choices, Sequence) and not isinstance(choices, str):
                choices = tuple(choices)
            rules.append(Rule(choices=choices, modules=rule.get("modules", "*"), kinds=tuple(rule.get("kinds", ()))))
        return Space(tuple(rules), tuple(Couple.from_json(one, i) for i, one in enumerate(data.get("couple", ()))))


def _resolve(
    choice: Mapping[str, Any], menu: Sequence[Mapping[str, Any]], layer: Layer, levels: Levels
) -> list[MenuItem]:
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
    action = parse(choice)
    name = short_name(action)
    if isinstance(action, Unify) and not _saves(action, layer):
        return None
    action = _within(action, layer.columns)
    action.check(layer)
    return MenuItem(name, name, action)


_Action = TypeVar("_Action", bound=Action)


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
    share = given.pop("fraction", None)
    if share is not None:
        if "rank" in given or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ActionError("low_rank takes either a rank or a fraction in (0, 1] of the full rank")
        given["rank"] = max(1, round(share * min(layer.rows // layer.groups, layer.columns)))
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


def short_name(action: Action) -> str:
    """What a choice is called: ``int4``, ``int4_g128``, ``int4_ceil``, ``rank16_int8``, ``keep``, ``keep_float16``."""
    if isinstance(action, Keep):
        return "keep" if action.dtype == "float32" else f"keep_{action.dtype}"
    if isinstance(action, Quantize):
        shared = {"channel": "", "tensor": "_tensor", "group": f"_g{action.group_size}"}[action.granularity]
        scheme = "" if action.scheme == "symmetric" else "_asym"
        method = "" if action.method == "rtn" else f"_{action.method}"
        rounding = "" if action.rounding == "nearest" else f"_{action.rounding}"
        return f"int{action.bits}{shared}{scheme}{method}{rounding}"
    if isinstance(action, LowRank):
        factors = dict.fromkeys((short_name(action.left), short_name(action.right)))
        picked = "" if action.components is None else "_picked"
        picked += "" if action.weighting == "none" else f"_{action.weighting}"
        return f"rank{action.rank}_{'_'.join(factors)}{picked}"
    if isinstance(action, NumberFormat):
        usual = replace(action, granularity=None, group_size=None, scale_dtype=None, method=None, weighting="none")
        shared = "" if action.granularity == usual.granularity else f"_{action.granularity}"
        if action.granularity == "group" and action.group_size != usual.group_size:
            shared = f"_g{action.group_size}"
        scale = "" if action.scale_dtype == usual.scale_dtype else f"_{action.scale_dtype}"
        method = "" if action.method == usual.method else f"_{action.method}"
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return f"{action.format}{shared}{scale}{method}{weighting}"
    if isinstance(action, Slim):
        kept = [("r", action.rows), ("c", action.columns)]
        sides = [f"{side}{len(one.kept)}" for side, one in kept if one is not None]
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return "_".join([action.kind, *sides, short_name(action.values)]) + weighting
    if isinstance(action, Unify):
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return f"unify{action.block}_{100 * action.share:g}%_{short_name(action.values)}{weighting}"
    return "_".join([action.kind, *(f"{v}" for k, v in action.to_json().items() if k != "kind")])
