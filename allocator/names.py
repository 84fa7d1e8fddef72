"""Names of groups and choices, stored so that a million defaults cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]


class Names(Sequence[str]):
    """Group names: an explicit tuple, or the defaults g0, g1, … of which only the count is kept."""

    def __init__(self, count: int, explicit: Sequence[str] | None = None) -> None:
        self.total = count
        self.explicit: tuple[str, ...] | None = None
        if explicit is not None and any(name != f"g{i}" for i, name in enumerate(explicit)):
            self.explicit = tuple(explicit)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(self.total))]
        if not -self.total <= key < self.total:
            raise IndexError(key)
        return self.explicit[key] if self.explicit is not None else f"g{key % self.total}"

    def __iter__(self) -> Iterator[str]:
        return iter(self.explicit) if self.explicit is not None else (f"g{i}" for i in range(self.total))

    @cached_property
    def position(self) -> dict[str, int]:
        """Index of each name; built on first use."""
        return {name: i for i, name in enumerate(self)}


@dataclass(frozen=True, eq=False)
class Coded:
    """One string per choice as a code into a table; −1 stands for the default, c and the place in the group."""

    code: Codes
    table: tuple[str, ...]

    def text(self, row: int, place: int) -> str:
        """The string of choice `row`, which stands at `place` in its group."""
        code = int(self.code[row])
        return self.table[code] if code >= 0 else f"c{place}"

    def resolved(self, places: NDArray[np.int64]) -> Coded:
        """The same strings without any −1: equal strings get equal codes."""
        missing = self.code < 0
        if not missing.any():
            return self
        table = list(self.table)
        known = {name: i for i, name in enumerate(table)}
        used = np.unique(places[missing])
        lookup = np.zeros(int(used.max()) + 1, np.int32)
        for place in used.tolist():
            name = f"c{place}"
            if name not in known:
                known[name] = len(table)
                table.append(name)
            lookup[place] = known[name]
        code = self.code.copy()
        code[missing] = lookup[places[missing]]
        return Coded(code, tuple(table))


def encode(strings: Sequence[str]) -> Coded:
    """Codes in order of first appearance."""
    known: dict[str, int] = {}
    code = np.fromiter((known.setdefault(s, len(known)) for s in strings), np.int32, len(strings))
    return Coded(code, tuple(known))


@dataclass(frozen=True, eq=False)
class Ragged:
    """Zero or more strings per group: codes into a table, in compressed rows."""

    indptr: NDArray[np.int64]
    code: NDArray[np.int32]
    table: tuple[str, ...]

    def of(self, group: int) -> tuple[str, ...]:
        """The strings of one group."""
        return tuple(self.table[c] for c in self.code[self.indptr[group] : self.indptr[group + 1]].tolist())

    @staticmethod
    def from_lists(lists: Sequence[Sequence[str]]) -> Ragged:
        """Encode one list of strings per group."""
        flat = encode([s for strings in lists for s in strings])
        sizes = np.fromiter((len(strings) for strings in lists), np.int64, len(lists))
        return Ragged(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), flat.code, flat.table)
