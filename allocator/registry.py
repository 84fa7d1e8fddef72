"""Finds plug-ins by entry point; ours take the same road as a third party's.

A name that this distribution declares is resolved from its own metadata, without scanning the others. A
plug-in that is missing a package or broken is reported as unavailable with the reason, never an import error.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from numbers import Integral, Real
from typing import Any

from allocator.errors import UnavailableError, UsageError

DISTRIBUTION = "compression-allocator"
EXTRAS = {
    "torch": "torch",
    "safetensors": "torch",
    "matplotlib": "report",
    "sklearn": "demos",
    "pyscipopt": "scip",
    "gurobipy": "gurobi",
}


@dataclass(frozen=True)
class Entry:
    """A registered plug-in that has not been imported."""

    group: str
    name: str
    target: str
    distribution: str

    def load(self) -> Any:
        """Import it.

        Raises:
            UnavailableError: naming the plug-in, the reason and the way out.
        """
        module, _, attribute = self.target.partition(":")
        kind = self.group.removesuffix("s")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            cure = f"pip install '{DISTRIBUTION}[{EXTRAS[missing]}]'" if missing in EXTRAS else f"install {missing!r}"
            raise UnavailableError(f"{kind} {self.name!r} is unavailable: no module {missing!r}; {cure}") from error
        except Exception as error:  # a broken plug-in must not take the host down
            raise UnavailableError(
                f"{kind} {self.name!r} of {self.distribution} is unavailable: {type(error).__name__}: {error}"
            ) from error


@cache
def _own() -> tuple[Entry, ...]:
    try:
        found = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UnavailableError(f"{DISTRIBUTION} is not installed; run `pip install -e .` in its folder") from None
    return tuple(_entries(found, DISTRIBUTION))


def _entries(distribution: metadata.Distribution, name: str) -> Iterable[Entry]:
    for point in distribution.entry_points:
        kind, _, group = point.group.partition(".")
        if kind == "allocator":
            yield Entry(group, point.name, point.value, name)


@cache
def _others() -> tuple[Entry, ...]:
    return tuple(e for d in metadata.distributions() if d.name != DISTRIBUTION for e in _entries(d, d.name))


def entries(group: str) -> dict[str, Entry]:
    """All plug-ins of a group ("solvers", "profilers", "actions", …) by name; ours win over a namesake."""
    return {e.name: e for e in (*_others(), *_own()) if e.group == group}


def find(group: str, name: str) -> Entry:
    """The plug-in of that name ("-" may stand for "_").

    Raises:
        UsageError: there is none; the text lists the names and the nearest one.
    """
    plain = name.replace("-", "_")
    for entry in _own():
        if entry.group == group and entry.name == plain:
            return entry
    known = entries(group)
    if plain in known:
        return known[plain]
    near = difflib.get_close_matches(plain, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"there is no {group.removesuffix('s')} {name!r}{hint} (known: {', '.join(sorted(known))})")


def make(group: str, name: str, options: Mapping[str, Any]) -> Any:
    """An instance with these options; text values are read as the option's own type.

    Raises:
        UsageError: an option that it does not have, or a value that cannot be meant.
    """
    kind = find(group, name).load()
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UnavailableError(f"{group.removesuffix('s')} {name!r} is unavailable: it is not a dataclass")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in fields:
            takes = f"it takes {', '.join(fields)}" if fields else "it takes none"
            raise UsageError(f"{group.removesuffix('s')} {name!r} has no option {key!r}; {takes}")
        read[key] = _read(name, fields[key], value)
    try:
        return kind(**read)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{group.removesuffix('s')} {name!r}: {error}") from error


def _read(name: str, option: dataclasses.Field[Any], text: Any) -> Any:
    """A value of the type of the option's default, or text from the command line read as that type."""
    default = option.default
    if not isinstance(text, str):
        number = isinstance(default, int | float) and not isinstance(default, bool)
        whole = isinstance(default, int)
        fits = isinstance(text, Integral if whole else Real) and not isinstance(text, bool)
        if number and not fits:
            raise UsageError(f"{name}: option {option.name}={text!r} must be like {default!r}")
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name}: option {option.name}={text!r} must be like {default!r}") from None
    return text
