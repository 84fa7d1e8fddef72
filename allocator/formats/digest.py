"""sha256 of a problem's content: the same for the row form and the columns form."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.formats.header import header_to_rows
from allocator.names import Coded, Ragged
from allocator.problem import Problem
from allocator.statement import Basis


def content_sha256(p: Problem) -> str:
    """Hash of everything a solver or applier reads: columns, names, header; not provenance, meta or generator."""
    digest = hashlib.sha256()

    def text(name: str, value: Any) -> None:
        data = msgspec.json.encode(value, order="sorted")
        digest.update(f"{name}:{len(data)}:".encode() + data)

    def array(name: str, values: NDArray[Any]) -> None:
        plain = np.ascontiguousarray(values + 0.0 if values.dtype.kind == "f" else values)  # −0 is 0
        digest.update(f"{name}:{plain.dtype.str}:{plain.shape}:".encode())
        digest.update(plain.data)

    def coded(name: str, column: Coded) -> None:
        used = np.flatnonzero(np.bincount(column.code)).tolist()
        place = {string: i for i, string in enumerate(sorted({column.table[c] for c in used}))}
        rank = np.zeros(len(column.table), np.int32)
        rank[used] = [place[column.table[c]] for c in used]
        text(f"{name} table", list(place))
        array(name, rank[column.code])

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
    coded("choices", p.choice_names.resolved(p.places))
    coded("labels", p.label_codes)
    for name in sorted(p.scores):
        array(f"score/{name}", p.scores[name])
        for part, columns in (("stderr", p.stderr), ("remainder", p.remainder)):
            if name in columns and columns[name].any():
                array(f"{part}/{name}", columns[name])
    for name in sorted(p.costs):
        array(f"cost/{name}", p.cost(name))
    array("allowed", np.ones(p.choice_count, bool) if p.allowed is None else p.allowed)
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
