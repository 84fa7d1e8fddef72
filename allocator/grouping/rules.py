"""Rules that join layers into sets that must take one common label, as plain data."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from allocator.errors import UsageError

Per = Literal["all", "parent"]


@dataclass(frozen=True)
class Coupled:
    """A set of groups that must take one common label.

    Attributes:
        name: for reports.
        kind: ``rule``, or what was found on the network: ``fused``, ``residual``.
        groups: names, in the model's order.
    """

    name: str
    kind: str
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Couple:
    """Layers that a pattern names, joined into one set, or into one set for each parent.

    Attributes:
        modules: a glob over module names, or ``re:`` and a regular expression that must match the whole name.
        per: ``all``: one set; ``parent``: one for each module that holds them (the name up to its last dot).
        name: of the set, in reports; the pattern if empty.
    """

    modules: str
    per: Per = "all"
    name: str = ""

    def __post_init__(self) -> None:
        if self.per not in get_args(Per):
            raise UsageError(f"couple {self.modules!r}: per is one of {', '.join(get_args(Per))}, not {self.per!r}")
        check_pattern(self.modules)

    def sets(self, groups: Mapping[str, Sequence[str]]) -> list[Coupled]:
        """The sets among these groups (name to modules), each of two or more.

        Raises:
            UsageError: the pattern joins nothing, so that it must be misspelt.
        """
        found: dict[str, dict[str, None]] = {}
        for group, modules in groups.items():
            for module in modules:
                if named(self.modules, [module]):
                    found.setdefault(module.rpartition(".")[0] if self.per == "parent" else "", {})[group] = None
        name = self.name or self.modules
        sets = [
            Coupled(f"{name} of {parent}" if parent else name, "rule", tuple(members))
            for parent, members in found.items()
            if len(members) > 1
        ]
        if not sets:
            matched = [group for members in found.values() for group in members]
            where = " of one parent" if self.per == "parent" else ""
            raise UsageError(
                f"couple {self.modules!r} of the space joins no two layers{where}: it names "
                f"{', '.join(matched) or 'none'} of {', '.join(list(groups)[:8])}{', …' * (len(groups) > 8)}. "
                "Correct or remove it"
            )
        return sets

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return {"modules": self.modules, "per": self.per, **({"name": self.name} if self.name else {})}

    @staticmethod
    def from_json(data: Any, place: int) -> Couple:
        """Read `to_json`; UsageError names the entry that is wrong."""
        known = isinstance(data, Mapping) and set(data) <= {"modules", "per", "name"} and "modules" in data
        if not known or not all(isinstance(value, str) for value in data.values()):
            raise UsageError(f"couple {place} of the space is {data!r}: its keys are modules, per and name, all texts")
        return Couple(**data)


def check_pattern(pattern: str) -> None:
    """Raise UsageError when a pattern that starts with ``re:`` is no regular expression."""
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise UsageError(f"the rule {pattern!r} is no regular expression: {error}") from error


def named(pattern: str, modules: Sequence[str]) -> bool:
    """Whether a pattern names one of the modules."""
    if pattern.startswith("re:"):
        return any(re.fullmatch(pattern[3:], name) for name in modules)
    return any(fnmatch.fnmatchcase(name, pattern) for name in modules)
