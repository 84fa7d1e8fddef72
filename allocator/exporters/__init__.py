"""Ways out: a problem as other tools read it; one format per file, found by entry point."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from allocator.importers import by_suffix
from allocator.problem import Problem


class Exporter(Protocol):
    """A format that can be written: a frozen keyword-only dataclass whose fields are its options.

    name: registry name. suffixes: endings of file names that mean this format, with the dot.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def write(self, problem: Problem, path: str | Path) -> None:
        """Write a problem; "-" is standard output.

        Raises:
            UnsupportedError: a part of the problem that the format cannot say.
        """
        ...


def exporter_for(path: str | Path) -> str | None:
    """Registry name of the exporter that writes this ending; None where none does."""
    return by_suffix("exporters", path)
