"""The divergence of whole allocations from deltas of single choices: KL(p ‖ softmax(z + Σ_g δ_g))."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.errors import UsageError
from allocator.logit_sum.manifest import ANEW, StoredGroup
from allocator.logit_sum.positions import Positions
from allocator.logit_sum.store import Reader
from allocator.problem import Problem
from allocator.statement import FloatArray, IntArray
from allocator.views import Choice

AT_ONCE = 1 << 20  # numbers in float64 at a time


@dataclass(frozen=True)
class Predicted:
    """A mean over positions in nats, and its standard error over samples; NaN where one sample says nothing of it."""

    value: float
    stderr: float


class LogitSum:
    """Predicts the mean KL(float ‖ compressed) of an allocation, in nats per position of the calibration data.

    Right to first order in what one layer does to the change of another; how changes of the logits meet in the softmax
    is exact (see `Positions`). An instance is a `fitness` of the solvers annealing and evolutionary.

    Args:
        problem: as stated; deltas belong to its rows.
        deltas: of every choice [N, P, F], in any floating type; 0 for one that changes nothing.
        positions: the float network's side.
        place: where the deltas of each choice stand [N], if they are [n, P, F] of n choices alone; −1: it has none.
    """

    def __init__(
        self, problem: Problem, deltas: NDArray[Any], positions: Positions, place: IntArray | None = None
    ) -> None:
        count = problem.choice_count if place is None else len(deltas)
        wanted = (count, len(positions.top), positions.width)
        if deltas.shape != wanted:
            raise UsageError(f"logit deltas have shape {deltas.shape}; {wanted} is choices, positions, numbers each")
        if place is not None and (place.shape != (problem.choice_count,) or not (place < count).all()):
            raise UsageError(f"places of logit deltas: one below {count} for each of {problem.choice_count} choices")
        self.problem = problem
        self.deltas = deltas
        self.positions = positions
        self.place = np.arange(count) if place is None else place
        self.__qualname__ = "LogitSum"  # how solvers write it down

    @staticmethod
    def load(folder: str | Path, problem: Problem) -> LogitSum:
        """From a store; groups and choices are matched by name, and one that keeps the weights has no delta.

        Raises:
            UsageError: no whole store, one of another model, or one that lacks a group or a choice of the problem.
        """
        reader = Reader(Path(folder))
        _require_model(Path(folder), problem, reader.manifest.model_sha256)
        positions = reader.positions
        stored = {group.name: place for place, group in enumerate(reader.manifest.groups)}
        shape = (problem.choice_count, len(positions.top), positions.width)
        deltas = np.zeros(shape, np.dtype(reader.manifest.dtype))
        missing: list[str] = []
        for group in problem.groups:
            place = stored.get(group.name)
            found = None if place is None else reader.deltas(place)
            for choice in group.choices:
                at = None if place is None else _place(reader.manifest.groups[place], choice)
                if at is not None and found is not None:
                    deltas[choice.row] = found[at]
                elif not _keeps(choice):
                    missing.append(f"{group.name}={choice.name}")
        if missing:
            raise UsageError(
                f"{folder}: has no logit deltas of {', '.join(missing[:6])}"
                f"{f' and {len(missing) - 6} more' if len(missing) > 6 else ''}, or of another action by that name; "
                "measure the space that this problem was stated for"
            )
        return LogitSum(problem, deltas, positions)

    def __call__(self, choice: NDArray[np.int32], sample: float | None) -> float:
        """The prediction on the first share of the samples, None for all: a solver's fitness."""
        positions = self.positions
        if sample is not None:
            positions = positions.first(max(1, math.ceil(sample * len(positions.counts))))
        total = self._total(self.rows(choice), len(positions.top))
        return float(positions.divergence(total).mean())

    def predict(self, choice: ArrayLike) -> float:
        """Mean KL of an allocation, index within each group [G]."""
        return float(self.positions.divergence(self.total(self.rows(choice))).mean())

    def predict_many(self, choices: ArrayLike) -> FloatArray:
        """Mean KL of each allocation [M, G]; [M]."""
        rows = np.array([self.rows(choice) for choice in np.asarray(choices)]).reshape(-1, self.problem.group_count)
        shape = self.deltas.shape[1:]
        out = np.empty(len(rows))
        for part in self._parts(len(rows), math.prod(shape)):
            total = np.zeros((len(rows[part]), *shape))
            for taken in rows[part].T:
                total += self.of(taken)
            out[part] = self.positions.divergence(total).mean(-1)
        return out

    def per_sample(self, choice: ArrayLike) -> tuple[FloatArray, IntArray]:
        """(sum, count) over the positions of each sample [S]."""
        values = self.positions.divergence(self.total(self.rows(choice)))
        counts = self.positions.counts
        return np.bincount(self.positions.sample, values, len(counts)).astype(np.float64), counts

    def predicted(self, choice: ArrayLike) -> Predicted:
        """The prediction with the standard error of a ratio estimate, Σ sums / Σ counts."""
        sums, counts = self.per_sample(choice)
        value = float(sums.sum() / counts.sum())
        if len(sums) < 2:
            return Predicted(value, math.nan)
        spread = float(np.square(sums - value * counts).sum()) / (len(sums) - 1)
        return Predicted(value, math.sqrt(len(sums) * spread) / float(counts.sum()))

    def rows(self, choice: ArrayLike) -> IntArray:
        """Rows [G] of an allocation.

        Raises:
            ValueError: it is none of this problem.
            UsageError: a choice of it has no deltas.
        """
        rows = self.problem.evaluate(choice).rows
        lacking = rows[self.place[rows] < 0]
        if len(lacking):
            group = self.problem.groups[int(self.problem.group_of[lacking[0]])].name
            raise UsageError(
                f"choice {self.problem.choice_name(int(lacking[0]))!r} of group {group!r} has no logit deltas: it was "
                "not measured, so nothing is predicted of it"
            )
        return rows

    def of(self, rows: IntArray) -> NDArray[Any]:
        """Deltas of rows [R, P, F] that have some."""
        return np.asarray(self.deltas[self.place[rows]])

    def total(self, rows: IntArray) -> FloatArray:
        """Σ δ of the taken rows [P, F]."""
        return self._total(rows, self.deltas.shape[1])

    def changed(self, taken: IntArray, total: FloatArray, moves: IntArray) -> FloatArray:
        """Mean KL after each move [M]: one, two, … rows [M, m] of different groups in place of what they have.

        ``total`` is that of ``taken``, and all that has to be known of the groups that stay.
        """
        out = np.empty(len(moves))
        for part in self._parts(len(moves), total.size):
            now = np.broadcast_to(total, (len(moves[part]), *total.shape)).copy()
            for rows in moves[part].T:
                now += self.of(rows)
                now -= self.of(taken[self.problem.group_of[rows]])
            out[part] = self.positions.divergence(now).mean(-1)
        return out

    def at(self, wanted: IntArray) -> LogitSum:
        """The same at some positions alone, to screen with."""
        return LogitSum(self.problem, self.deltas[:, wanted], self.positions.take(wanted), self.place)

    def _total(self, rows: IntArray, positions: int) -> FloatArray:
        total = np.zeros((positions, self.deltas.shape[2]))
        for place in self.place[rows].tolist():
            total += self.deltas[place, :positions]
        return total

    @staticmethod
    def _parts(count: int, each: int) -> Iterator[slice]:
        step = max(1, AT_ONCE // max(each, 1))
        return (slice(i, i + step) for i in range(0, count, step))


def _require_model(folder: Path, problem: Problem, sha256: str) -> None:
    known: Mapping[str, Any] = problem.notes.provenance or {}
    stated = known.get("model_sha256")
    if stated is not None and stated != sha256:
        raise UsageError(f"{folder}: holds logit deltas of another model than this problem was measured on; {ANEW}")


def _place(stored: StoredGroup, choice: Choice) -> int | None:
    """Where the choice stands in the store, if it is there and does the same."""
    if choice.name not in stored.choices:
        return None
    place = stored.choices.index(choice.name)
    return place if choice.action is None or dict(choice.action) == stored.actions[place] else None


def _keeps(choice: Choice) -> bool:
    if choice.action is None:
        return choice.name == "keep"
    return choice.action.get("kind") == "keep" and choice.action.get("dtype", "float32") == "float32"
