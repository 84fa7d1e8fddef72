"""A row is made of pieces: each is measured in a fresh process and kept by itself; the row's figures come from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

import msgspec

from allocator import __version__
from benchmarks.store import Line, digest

PACKAGES = ("allocator", "profilers", "solvers")
SHARED = ("benchmarks/interactions/timed.py", "benchmarks/solvers/clock.py")


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """What the command was told. out: the folder of the results. long: seconds of a long run. limit: of a peer."""

    out: str
    long: float = 600.0
    limit: float = 60.0

    @property
    def folder(self) -> Path:
        """`out`."""
        return Path(self.out)


class Finding(msgspec.Struct, kw_only=True):
    """What a piece came to. values: figures by name. facts: a course of (CPU seconds, objective), flattened."""

    values: dict[str, float] = {}
    facts: list[float] = []
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One measurement. sources: folders and files that its result depends on; setting: what else, as text."""

    row: str
    name: str
    measure: Callable[[Settings], Finding]
    sources: Sequence[str]
    setting: Callable[[Settings], str] = lambda _: ""

    def version(self, settings: Settings) -> str:
        """A piece of another version is measured again."""
        told = self.setting(settings)
        libraries = f"numpy {installed('numpy')}, torch {installed('torch')}"
        return f"{__version__}+{digest(*self.sources)}, {libraries}" + (f", {told}" if told else "")


Found = Mapping[str, Line]
"""The pieces of a row that were measured, by name."""
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Head and rows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pieces and what is made of them. figures: by name; one that lacks its pieces is left out. table: every piece."""

    name: str
    pieces: Sequence[Piece]
    figures: Callable[[Found], Mapping[str, float]]
    table: Callable[[Found], Table]


def listing(*names: str) -> Callable[[Found], Table]:
    """A table of pieces: these values of each."""

    def made(found: Found) -> Table:
        rows = [
            (piece, *(f"{line.values[name]:.5g}" if name in line.values else "-" for name in names))
            for piece, line in found.items()
        ]
        return ("piece", *names), rows

    return made
