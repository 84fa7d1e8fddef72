"""The columns form of problem.json: a small header beside an npz that holds the arrays."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from allocator.errors import Fault, ProblemError
from allocator.formats import types
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.header import complete, header_to_rows
from allocator.names import Coded, Names, Ragged
from allocator.problem import Problem
from allocator.statement import Basis, Interaction, Loss, Pairs

Arrays = dict[str, NDArray[Any]]


def problem_from_columns(file: types.ProblemFile, extra: Mapping[str, Any], folder: Path | None) -> Problem:
    """Build a problem from a header and its npz.

    Raises:
        ProblemError: the npz is missing, has another hash, or its arrays do not fit together.
    """
    spec = file.columns
    assert spec is not UNSET
    if folder is None:
        raise ProblemError([Fault("/columns/file", "a problem with columns cannot be read from standard input")])
    if PurePosixPath(spec.file).name != spec.file or spec.file in ("", ".", "..") or {"\\", "\0"} & set(spec.file):
        raise ProblemError([Fault("/columns/file", f"{spec.file!r} must be a plain file name in the same folder")])
    try:
        data = (folder / spec.file).read_bytes()
    except OSError as error:
        raise ProblemError([Fault("/columns/file", f"{spec.file}: {error.strerror}")]) from None
    found = hashlib.sha256(data).hexdigest()
    if found != spec.sha256:
        raise ProblemError([Fault("/columns/sha256", f"{spec.file} has sha256 {found}, not this; it changed")])
    reader = _Reader(read_arrays(data, spec.file), spec.file)
    bare, interactions = reader.problem(spec, file)
    return complete(bare, file, extra, interactions)


class _Reader:
    """Takes arrays out one by one, checking kind and shape, and refuses what is left over."""

    def __init__(self, arrays: Arrays, where: str) -> None:
        self.arrays = arrays
        self.where = where

    def fail(self, name: str, message: str) -> ProblemError:
        return ProblemError([Fault(f"{self.where}:{name}", message)])

    def take(self, name: str, kinds: Sequence[str], shape: tuple[int | None, ...]) -> NDArray[Any]:
        if name not in self.arrays:
            raise self.fail(name, "is missing")
        array = self.arrays.pop(name)
        if array.dtype.name not in kinds:
            raise self.fail(name, f"is {array.dtype.name}; expected {' or '.join(kinds)}")
        if len(array.shape) != len(shape) or any(
            w is not None and w != n for w, n in zip(shape, array.shape, strict=True)
        ):
            raise self.fail(name, f"has shape {array.shape}; expected {shape}")
        return array

    def named(self, prefix: str, kinds: Sequence[str], shape: tuple[int | None, ...]) -> Arrays:
        names = [n for n in self.arrays if n.startswith(prefix + "/")]
        return {n.removeprefix(prefix + "/"): self.take(n, kinds, shape) for n in names}

    def coded(self, name: str, table: Sequence[Any], count: int) -> NDArray[np.int32]:
        codes = self.take(name, ("int32",), (count,))
        if ((codes < -1) | (codes >= len(table))).any():
            raise self.fail(name, f"holds codes outside −1 … {len(table) - 1}, the table in the header")
        return codes

    def distinct(self, name: str, table: Any) -> None:
        """A string that stands twice would have two codes."""
        seen: set[str] = set()
        for i, string in enumerate(() if table is UNSET else table):
            if string in seen:
                raise ProblemError([Fault(f"/columns/{name}/{i}", f"{string!r} stands twice in the table")])
            seen.add(string)

    def problem(self, spec: types.ColumnsSpec, file: types.ProblemFile) -> tuple[Problem, list[Interaction]]:
        indptr = self.take("indptr", ("int64",), (None,))
        groups = len(indptr) - 1
        if groups < 1 or indptr[0] != 0 or (indptr[1:] <= indptr[:-1]).any():
            raise self.fail("indptr", "must start at 0 and rise: every group needs at least one choice")
        count = int(indptr[-1])
        numbers = ("int64", "float64")
        scores = self.named("score", ("float64",), (count,))
        if not scores:  # from here on `count` is known to be as large as an array that is there
            raise self.fail("score", "is missing; at least one score/<name> is needed")
        for name in ("choice_names", "labels", "tags", "modules"):
            self.distinct(name, getattr(spec, name))
        names = self._group_names(groups)
        choice_table = tuple(spec.choice_names) if spec.choice_names is not UNSET else ()
        choice = self._optional_code("choice_name", choice_table, count)
        label_table = tuple(spec.labels) if spec.labels is not UNSET else ()
        label = self._optional_code("label", label_table, count)
        action_table = tuple(spec.actions) if spec.actions is not UNSET else ()
        for i, action in enumerate(action_table):
            if not isinstance(action.get("kind"), str):
                raise ProblemError([Fault(f"/columns/actions/{i}/kind", "is missing; an action names its kind")])
        bare = Problem(
            indptr=indptr,
            scores=scores,
            costs=self.named("cost", numbers, (count,)),
            stderr=self.named("stderr", ("float64",), (count,)),
            remainder=self.named("remainder", ("float64",), (count,)),
            allowed=self.take("allowed", ("bool",), (count,)) if "allowed" in self.arrays else None,
            weights=self.take("weights", ("int64",), (groups,)) if "weights" in self.arrays else None,
            stats={k: v.astype(np.float64) for k, v in self.named("stats", numbers, (groups,)).items()},
            group_names=Names(groups, names),
            choice_names=Coded(choice if choice is not None else np.full(count, -1, np.int32), choice_table),
            labels=None if label is None else Coded(label, label_table),
            action_code=self._optional_code("action", action_table, count),
            action_table=action_table,
            tags=self._ragged("tags", spec.tags, groups),
            modules=self._ragged("modules", spec.modules, groups),
            loss=Loss(dict.fromkeys(list(scores)[:1], 1.0)),
        )
        for name, column in bare.stats.items():
            if not np.isfinite(column).all():
                raise self.fail(f"stats/{name}", "numbers must be finite")
        interactions = self._interactions(count, file)
        if self.arrays:
            raise self.fail(next(iter(self.arrays)), "is not an array of the format")
        return bare, interactions

    def _group_names(self, groups: int) -> list[str] | None:
        if "group_names" not in self.arrays:
            return None
        try:
            names = self.take("group_names", ("uint8",), (None,)).tobytes().decode().split("\n")
        except UnicodeDecodeError:
            raise self.fail("group_names", "is not UTF-8") from None
        if len(names) != groups:
            raise self.fail("group_names", f"holds {len(names)} names for {groups} groups")
        return names

    def _optional_code(self, name: str, table: Sequence[Any], count: int) -> NDArray[np.int32] | None:
        return self.coded(name, table, count) if name in self.arrays else None

    def _ragged(self, name: str, table: Any, groups: int) -> Ragged | None:
        if f"{name}/indptr" not in self.arrays:
            return None
        indptr = self.take(f"{name}/indptr", ("int64",), (groups + 1,))
        strings = tuple(table) if table is not UNSET else ()
        if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
            raise self.fail(f"{name}/indptr", "must start at 0 and never fall")
        codes = self.coded(f"{name}/code", strings, int(indptr[-1]))
        kept = codes >= 0
        if not kept.all():
            owner = np.repeat(np.arange(groups), np.diff(indptr))[kept]
            indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=groups))]).astype(np.int64)
        return Ragged(indptr, codes[kept], strings)

    def _interactions(self, count: int, file: types.ProblemFile) -> list[Interaction]:
        found: list[Interaction] = []
        if any(p.pairs is not UNSET or p.basis is not UNSET for p in file.interactions):
            raise ProblemError(
                [Fault("/interactions", "in the columns form name only the score; the numbers belong in the npz")]
            )
        for j, part in enumerate(file.interactions):
            before = len(found)
            if f"pairs/{j}/index" in self.arrays:
                index = self.take(f"pairs/{j}/index", ("int64",), (None, 2))
                found.append(Pairs(part.score, index, self.take(f"pairs/{j}/value", ("float64",), (len(index),))))
            if f"basis/{j}/eigenvalues" in self.arrays:
                eigenvalues = self.take(f"basis/{j}/eigenvalues", ("float64",), (None,))
                shape = (count, len(eigenvalues))
                vectors = self.take(f"basis/{j}/vectors", ("float64", "float32"), shape)
                found.append(Basis(part.score, eigenvalues, vectors))
            if len(found) == before:
                raise ProblemError([Fault(f"/interactions/{j}", f"has neither basis/{j} nor pairs/{j} in the npz")])
        return found


def problem_to_columns(p: Problem, npz_name: str) -> tuple[bytes, bytes]:
    """The header's bytes and the npz's."""
    arrays: Arrays = {"indptr": p.indptr}
    if p.group_names.explicit is not None:
        if any("\n" in name for name in p.group_names.explicit):
            raise ProblemError([Fault("/groups", "a group name with a line break does not fit the columns form")])
        arrays["group_names"] = np.frombuffer("\n".join(p.group_names).encode(), np.uint8)
    for prefix, columns in (("score", p.scores), ("stderr", p.stderr), ("remainder", p.remainder), ("cost", p.costs)):
        arrays |= {f"{prefix}/{name}": column for name, column in columns.items()}
    arrays |= {f"stats/{name}": column for name, column in p.stats.items()}
    if any("\0" in name for name in arrays):
        raise ProblemError([Fault("/groups", "a name with a zero byte does not fit the columns form")])
    for name, column in p.stats.items():
        if np.isnan(column).any():
            raise ProblemError([Fault("/groups", f"stat {name!r} is missing in some groups; columns need all or none")])
    spec: dict[str, Any] = {"file": npz_name}
    if (p.choice_names.code >= 0).any():
        arrays["choice_name"], spec["choice_names"] = p.choice_names.code, list(p.choice_names.table)
    if p.labels is not None:
        arrays["label"], spec["labels"] = p.labels.code, list(p.labels.table)
    if p.action_code is not None:
        arrays["action"], spec["actions"] = p.action_code, [dict(a) for a in p.action_table]
    for name, ragged in (("tags", p.tags), ("modules", p.modules)):
        if ragged is not None:
            arrays |= {f"{name}/indptr": ragged.indptr, f"{name}/code": ragged.code}
            spec[name] = list(ragged.table)
    if p.allowed is not None:
        arrays["allowed"] = p.allowed
    if p.weights is not None:
        arrays["weights"] = p.weights
    header = header_to_rows(p)
    if p.interactions:
        header["interactions"] = [{"score": part.score} for part in p.interactions]
    for j, part in enumerate(p.interactions):
        kind = "basis" if isinstance(part, Basis) else "pairs"
        fields = [f.name for f in dataclasses.fields(part) if f.name != "score"]
        arrays |= {f"{kind}/{j}/{field}": getattr(part, field) for field in fields}
    data = write_arrays(arrays)
    header["columns"] = spec | {"sha256": hashlib.sha256(data).hexdigest()}
    return msgspec.json.format(msgspec.json.encode(header), indent=1) + b"\n", data
