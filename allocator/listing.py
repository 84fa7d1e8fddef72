"""What is installed: every registered solver, profiler and action, available or not, and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from allocator import registry
from allocator.errors import UnavailableError


@dataclass(frozen=True)
class Listed:
    """One plug-in: reason is None where it can be used.

    Attributes:
        runs: which of its engines, where it has several.
        usage: of an action: its keys as they are written.
    """

    name: str
    summary: str
    options: dict[str, Any]
    exactness: str | None
    features: tuple[str, ...]
    isolate: bool
    reason: str | None
    runs: str | None = None
    usage: str | None = None

    @property
    def available(self) -> bool:
        """Whether it can be used."""
        return self.reason is None


def solvers() -> list[Listed]:
    """Every registered solver, by name."""
    return listed("solvers")


def listed(group: str) -> list[Listed]:
    """Every registered plug-in of a group, by name."""
    return [_look(entry) for _, entry in sorted(registry.entries(group).items())]


def _look(entry: registry.Entry) -> Listed:
    try:
        kind = entry.load()
    except UnavailableError as error:
        return Listed(entry.name, "", {}, None, (), False, str(error))
    summary = (kind.__doc__ or "").strip().split("\n")[0]
    options = {}
    for f in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        options[f.name] = None if f.default is dataclasses.MISSING else f.default
    exactness = getattr(kind, "exactness", None)
    reason = _missing(kind)
    runs = getattr(kind, "running", None)
    return Listed(
        entry.name,
        summary,
        options,
        getattr(exactness, "value", None),
        tuple(sorted(getattr(kind, "features", ()))),
        bool(getattr(kind, "isolate", False)),
        reason,
        runs() if callable(runs) else None,
        getattr(kind, "usage", None),
    )


def _missing(kind: Any) -> str | None:
    """The first heavy module that is not installed; looked up without importing it."""
    from importlib.util import find_spec

    for module in getattr(kind, "imports", ()):
        root = module.partition(".")[0]
        if find_spec(root) is None:
            extra = registry.EXTRAS.get(root)
            cure = f"pip install '{registry.DISTRIBUTION}[{extra}]'" if extra else "install it"
            return f"no module {root!r}; {cure}"
    return None
