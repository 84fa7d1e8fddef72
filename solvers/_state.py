"""A search on disk: written aside and renamed after every stretch, read back to go on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from allocator.errors import UsageError
from allocator.formats.digest import content_sha256
from allocator.formats.files import read_bytes, replacing, require_writable
from allocator.problem import Problem
from allocator.protocols import Limits, Solver, options_of
from allocator.statement import FloatArray, IntArray

FORMAT = "allocation-search"
WAY = "name another file, or delete this one to start again"


class StateFile:
    """The state of one search: what it is of (solver, options, problem, seed, start), and how far it has come.

    Without a path nothing is read or written.
    """

    def __init__(self, solver: Solver, problem: Problem, limits: Limits, start: IntArray | None) -> None:
        options = options_of(solver)
        self.path: str = options.pop("state")
        options["fitness"] = None if options["fitness"] is None else repr(options["fitness"])
        self.problem = problem
        self.of: dict[str, Any] = {}
        if self.path:
            require_writable(self.path)
            self.of = {
                "solver": solver.name,
                "problem": content_sha256(problem),
                "seed": limits.seed,
                "start": None if start is None else start.tolist(),
                "options": options,
            }

    def load(self) -> dict[str, Any] | None:
        """How far an earlier run came; None without one.

        Raises:
            UsageError: the file is no state, or that of another problem, solver, seed, start or options.
        """
        if not self.path or not Path(self.path).exists():
            return None
        try:
            data = json.loads(read_bytes(self.path))
            known = data["format"] == FORMAT and data["version"] == 1
            of, progress = dict(data["of"]), dict(data["progress"])
        except (ValueError, KeyError, TypeError):
            known, of, progress = False, {}, {}
        if not known:
            raise UsageError(f"state {self.path!r} is not the state of a search; {WAY}")
        for key, mine in self.of.items():
            if of.get(key) != mine:
                raise UsageError(f"state {self.path!r} is of another {key} ({_differ(of.get(key), mine)}); {WAY}")
        return progress

    def save(self, progress: Mapping[str, Any]) -> None:
        """Write how far the search has come."""
        if not self.path:
            return
        data = {"format": FORMAT, "version": 1, "of": self.of, "progress": progress}
        with replacing(self.path) as stream:
            stream.write(json.dumps(data, allow_nan=False).encode())

    def rows(self, choices: Any) -> IntArray:
        """Allocations [P, G] of the file as rows of the columns.

        Raises:
            ValueError: they are not allocations of this problem.
        """
        table = np.array(choices, np.int64).reshape(-1, self.problem.group_count)
        return np.array([self.problem.evaluate(choice).rows for choice in table], np.int64).reshape(table.shape)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what goes wrong while the progress is read into a refusal of the file.

        Raises:
            UsageError: the file is damaged.
        """
        try:
            yield
        except UsageError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise UsageError(f"state {self.path!r} is damaged ({type(error).__name__}: {error}); {WAY}") from None


def _differ(there: Any, here: Any) -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [k for k in {**there, **here} if there.get(k) != here.get(k)]
        return ", ".join(f"{k}={there.get(k)!r} there, {here.get(k)!r} here" for k in keys)
    texts = [text if len(text := repr(value)) <= 80 else f"{text[:80]}…" for value in (there, here)]
    return f"{texts[0]} there, {texts[1]} here"


def written(values: FloatArray) -> list[float | None]:
    """Floats for JSON, which has no infinity: null stands for it."""
    return [v if np.isfinite(v) else None for v in values.tolist()]


def read(values: Any) -> FloatArray:
    """Inverse of `written`."""
    return np.array([np.inf if v is None else v for v in values], np.float64)
