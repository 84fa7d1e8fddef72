"""Ways in: what other tools write, read as a problem; one format per file, found by entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from allocator import registry
from allocator.problem import Problem


class Importer(Protocol):
    """A format that can be read: a frozen keyword-only dataclass whose fields are its options.

    name: registry name. suffixes: endings of file names that mean this format, with the dot.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def read(self, path: str | Path) -> Problem:
        """The problem that a file states.

        Raises:
            ProblemError: naming the places where the file is wrong.
            UsageError: an option that the file does not bear out.
        """
        ...


def importer_for(path: str | Path) -> str | None:
    """Registry name of the importer that takes this ending; None where none does."""
    return by_suffix("importers", path)


def by_suffix(group: str, path: str | Path) -> str | None:
    """The plug-in of a group whose `suffixes` hold the ending of a path; one that is broken is passed over."""
    from allocator.errors import UnavailableError

    ending = Path(path).suffix.lower()
    for name, entry in registry.entries(group).items():
        try:
            kind: Any = entry.load()
        except UnavailableError:
            continue
        if ending in getattr(kind, "suffixes", ()):
            return name
    return None
