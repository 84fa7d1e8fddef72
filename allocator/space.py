"""Which choices each layer gets: an ordered list of rules, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from allocator import kinds as kind_menus
from allocator.actions import Keep, Layer, Slim
from allocator.errors import ActionError, UsageError
from allocator.grouping.rules import Couple, Coupled, check_pattern, named
from allocator.grouping.shares import Levels
from allocator.menu_items import MenuItem, resolved

FORMAT, VERSION = "allocation-space", 1
NO_LEVELS = Levels()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Layers, and what may be done to them.

    Attributes:
        choices: actions as JSON objects; or ``"pin"``: a group whose only choice is to be kept; or ``"skip"``: no
            group at all, its costs count in the offsets. A low-rank action may give ``fraction`` of the full rank in
            place of ``rank``; its factors are at 8 bits per channel (`FACTOR`) unless ``left`` and ``right`` say else.
            tucker2, cp and tt may give ``fraction`` of the layer's numbers in place of ranks, and have such parts too.
            ``multiple`` beside a fraction rounds ranks down to multiples of it, at least one.
            So are the values of a pruned weight unless ``values`` says else.
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

    @staticmethod
    def of_kinds(
        kinds: str | Sequence[str] = kind_menus.JOINT,
        *,
        multiple: int = 1,
        fast: bool = False,
        keep: bool = True,
        rules: Sequence[Rule] = (),
    ) -> Space:
        """Bits, formats, ranks, tensors, sparsity, blocks, channels: any of them, to be chosen from in one solve.

        Args:
            kinds: names out of `allocator.kinds.KINDS`, or ``joint``: all but channels.
            multiple: ranks, and numbers of channels, are multiples of it.
            fast: leave out what takes seconds per choice on large layers.
            keep: offer the weight as it is, of which the budgets in % then are parts.
            rules: of another space: those that skip or pin layers come first, the others are left out.

        Raises:
            UsageError: a kind that is none, or nothing of it is fast; a multiple below 1.

        >>> [item.name for item in Space.of_kinds("blocks").menu(["fc"], Layer("linear", (64, 64)))][-2:]
        ['int8_gptq', 'keep']
        """
        return Space.of_menu(kind_menus.menu(kinds, multiple=multiple, fast=fast, keep=keep), rules=rules)

    @staticmethod
    def of_menu(choices: Sequence[Mapping[str, Any]], *, rules: Sequence[Rule] = ()) -> Space:
        """The same choices for every layer, and for embeddings those of them that can do without inputs.

        ``rules``: of another space; those that skip or pin layers come first, the others are left out.
        """
        kept = tuple(rule for rule in rules if isinstance(rule.choices, str))
        looked_up = tuple(one for one in map(kind_menus.without_inputs, choices) if one is not None)
        tables = (Rule(choices=looked_up, kinds=("embedding",)),) if looked_up else ()
        return Space((*kept, *tables, Rule(choices=tuple(choices))))

    def rule_for(self, modules: Sequence[str], kind: str) -> Rule | None:
        """The first rule that covers the layer."""
        return next((rule for rule in self.rules if rule.covers(modules, kind)), None)

    def menu(self, modules: Sequence[str], layer: Layer, levels: Levels = NO_LEVELS) -> list[MenuItem] | None:
        """The choices of a layer, None if it is skipped.

        Low-rank choices, tensor formats and pruned weights that cannot be done to the layer or save nothing are left
        out, so are those that need inputs (gptq, corrected) for an embedding, and of two with one name (fractions that
        round to the same rank) the first stays; a group size beyond a row means the whole row. A share of channels
        stands for what ``levels`` says of this layer, nothing unless told.

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
                found = resolved(choice, rule.choices, layer, levels)
            except ActionError as error:
                raise ActionError(f"layer {modules[0]} and choice {dict(choice)}: {error}") from error
            for item in found:
                first = items.setdefault(item.name, item)
                picked = "_picked" in item.name or isinstance(item.action, Slim)
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
