"""sha256 of a problem's content: the same for the row form and the columns form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.blocks import pieces, spans
from allocator.formats.header import header_to_rows
from allocator.names import Coded, Ragged
from allocator.problem import Problem
from allocator.statement import Basis

_KNOWN: WeakKeyDictionary[Problem, str] = WeakKeyDictionary()


class Identity(Mapping[str, Any]):
    """Which problem a solution answers: `file_sha256`, `sha256` of its content, `overrides`.

    The content is hashed when it is asked for: that takes longer than many a solve.
    """

    def __init__(self, problem: Problem, file_sha256: str | None, overrides: Mapping[str, Any]) -> None:
        self._problem = problem
        self._known = {"file_sha256": file_sha256, "sha256": None, "overrides": overrides}

    def __getitem__(self, key: str) -> Any:
        return content_sha256(self._problem) if key == "sha256" else self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def content_sha256(p: Problem) -> str:
    """Hash of everything a solver or applier reads: columns, names, header; not provenance, meta or generator.

    Worked out once for each problem.
    """
    if p not in _KNOWN:
        _KNOWN[p] = _content_sha256(p)
    return _KNOWN[p]


def _content_sha256(p: Problem) -> str:
    digest = hashlib.sha256()

    def text(name: str, value: Any) -> None:
        data = msgspec.json.encode(value, order="sorted")
        digest.update(f"{name}:{len(data)}:".encode() + data)

    def array(name: str, values: NDArray[Any]) -> None:
        digest.update(f"{name}:{values.dtype.str}:{values.shape}:".encode())
        for piece in pieces(len(values)):
            part = values[piece]
            digest.update(np.ascontiguousarray(part + 0.0 if part.dtype.kind == "f" else part).data)  # −0 is 0

    def coded(name: str, column: Coded) -> None:
        used = np.flatnonzero(np.bincount(column.code)).tolist()
        place = {string: i for i, string in enumerate(sorted({column.table[c] for c in used}))}
        rank = np.zeros(len(column.table), np.int32)
        rank[used] = [place[column.table[c]] for c in used]
        text(f"{name} table", list(place))
        array(name, rank[column.code])

    def default_names(name: str) -> None:
        """What `coded` says of c0, c1, … in every group, a block at a time."""
        places = int(p.sizes.max())
        order = sorted(range(places), key=lambda place: f"c{place}")
        rank = np.empty(places, np.int32)
        rank[order] = np.arange(places)
        text(f"{name} table", [f"c{place}" for place in order])
        digest.update(f"{name}:{rank.dtype.str}:{(p.choice_count,)}:".encode())
        for span in spans(p):
            sizes = p.sizes[span.groups]
            first = np.repeat(p.indptr[span.groups], sizes)
            digest.update(rank[np.arange(span.rows.start, span.rows.stop) - first].data)

    def ragged(name: str, column: Ragged | None) -> None:
        if column is not None and len(column.code):
            array(f"{name} starts", column.indptr)
            coded(name, Coded(column.code, column.table))

    header = header_to_rows(p)
    for key in ("generator", "provenance", "meta", *p.notes.extra):
        header.pop(key, None)
    text("header", _plain(header))
    array("indptr", p.indptr)
    text("groups", None if p.group_names.explicit is None else list(p.group_names.explicit))
    unnamed = not (p.choice_names.code >= 0).any()
    if unnamed:
        default_names("choices")
    else:
        coded("choices", p.choice_names.resolved(p.places))
    if unnamed and p.labels is None:
        default_names("labels")
    else:
        coded("labels", p.label_codes)
    for name in sorted(p.scores):
        array(f"score/{name}", p.scores[name])
        for part, columns in (("stderr", p.stderr), ("remainder", p.remainder)):
            if name in columns and columns[name].any():
                array(f"{part}/{name}", columns[name])
    for name in sorted(p.costs):
        array(f"cost/{name}", p.cost(name))
    array("allowed", np.broadcast_to(True, p.choice_count) if p.allowed is None else p.allowed)
    if p.weights is not None and (p.weights >= 0).any():
        array("weights", p.weights)
    for name in sorted(p.stats):
        array(f"stats/{name}", np.where(np.isnan(p.stats[name]), np.nan, p.stats[name]))
    if p.action_code is not None and (p.action_code >= 0).any():
        table = tuple(msgspec.json.encode(a, order="sorted").decode() for a in p.action_table)
        coded("actions", Coded(np.where(p.action_code < 0, len(table), p.action_code).astype(np.int32), (*table, "")))
    ragged("tags", p.tags)
    ragged("modules", p.modules)
    for i, interaction in enumerate(p.interactions):
        if isinstance(interaction, Basis):
            array(f"basis/{i}/{interaction.score}", interaction.eigenvalues)
            array(f"vectors/{i}", interaction.vectors.astype(np.float64))
        else:
            array(f"pairs/{i}/{interaction.score}", interaction.index)
            array(f"pairs/{i}/value", interaction.value)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """The same data with whole numbers as integers, however they were spelled."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
