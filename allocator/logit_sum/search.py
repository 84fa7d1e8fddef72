"""Allocations of least predicted divergence: descent by changes of one and two groups, and kicks out of optima."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.errors import UsageError
from allocator.linear import linearise
from allocator.local_search import cheapest, repaired
from allocator.logit_sum.predictor import LogitSum
from allocator.problem import Problem
from allocator.row_use import RowUse
from allocator.statement import FloatArray, IntArray

TINY = 1e-12  # of the value: a smaller gain is rounding
SCREENED = 1 << 20  # numbers, all choices at some positions, by which moves are put in order
WIDE = 1_500  # choices that take part in changes of two groups at a time
CURVED = 1 << 28  # products of tangents at most
BLOCK = 16  # moves tried before the best of them is taken
KICKED = (2, 5)  # groups that a kick changes


@dataclass(frozen=True)
class Improved:
    """What a search came to.

    Attributes:
        choice: int32 [G], feasible.
        value: its predicted divergence.
        starts: predicted divergence of each start as it was given; None where it breaks the problem and was repaired.
        predictions: how many allocations were predicted at all positions.
    """

    choice: NDArray[np.int32]
    value: float
    starts: tuple[float | None, ...]
    predictions: int


def improve(
    problem: Problem,
    logit_sum: LogitSum,
    starts: Sequence[ArrayLike] = (),
    *,
    kicks: int = 10,
    seed: int = 0,
    predictions: int = 100_000,
    pairs: int = 128,
) -> Improved:
    """The best feasible allocation that descents from the starts, and kicks of the best, reach; never worse than any.

    Moves are put in order by what they do at some of the positions, pairs of moves by that and the curvature between
    them; in that order they are predicted at all positions, a few at a time, and the best of the first few that
    lower the value is taken. (Iterated local search as in Lourenço, Martin and Stützle, 2003.) Deterministic.

    Args:
        problem: budgets, couplings and pins hold for every answer; its objective is not looked at but for repairs. It
            may have other budgets than the problem that `logit_sum` was loaded for, but the same choices.
        logit_sum: the predictor.
        starts: allocations [G]; one that breaks the problem is repaired. Default: the least of Σ unary, repaired.
        kicks: random changes of 2 to 5 groups of the best, repaired and descended from.
        seed: of the kicks.
        predictions: stop after so many.
        pairs: changes of two groups tried before an allocation counts as a local optimum.

    Groups that same_choice joins three or more at a time do not move together.

    Raises:
        UsageError: other choices than the predictor's, or such as it has no deltas of; no start that is feasible or can
            be repaired.
        UnsupportedError: a budget row that is neither a sum over groups nor a mask.
    """
    if not np.array_equal(problem.indptr, logit_sum.problem.indptr):
        raise UsageError(
            f"the predictor was loaded for {logit_sum.problem.choice_count} choices, and this problem has "
            f"{problem.choice_count}, or others per group: load it for the problem that is to be searched"
        )
    unknown = int((problem.free & (logit_sum.place < 0)).sum())
    if unknown:
        raise UsageError(f"{unknown} choices that may be taken have no logit deltas: forbid them, or measure them too")
    search = _Search(problem, logit_sum, predictions, pairs)
    values: list[float | None] = []
    for start in starts:
        rows = logit_sum.rows(start)
        fits = problem.evaluate(start).feasible
        values.append(logit_sum.predict(start) if fits else None)
        search.begin(rows if fits else search.repaired(rows))
    if not len(starts):
        least = cheapest(search.linear)
        search.begin(None if least is None else search.repaired(least))
    if search.best is None:
        raise UsageError(
            "no start is feasible or could be repaired: give a feasible allocation, such as that of allocator.solve"
        )
    search.kick(kicks, seed)
    choice = (search.best - problem.indptr[:-1]).astype(np.int32)
    return Improved(choice, search.value, tuple(values), search.spent)


class _Search:
    """The best so far, and what is left to spend."""

    def __init__(self, problem: Problem, logit_sum: LogitSum, predictions: int, pairs: int) -> None:
        self.problem, self.model, self.linear = problem, logit_sum, linearise(problem, with_interactions=True)
        self.best: IntArray | None = None
        self.value = np.inf
        self.spent = 0
        self._most, self._pairs = predictions, pairs
        self._rows = RowUse(self.linear)
        self._moves = np.flatnonzero(self.linear.free)
        positions = logit_sum.deltas.shape[1]
        few = max(1, min(positions, SCREENED // max(1, len(logit_sum.deltas) * logit_sum.deltas.shape[2])))
        self._screen = logit_sum if few == positions else logit_sum.at(np.arange(few) * positions // few)

    def repaired(self, rows: IntArray) -> IntArray | None:
        """A feasible allocation near one that is not, by the problem's own unaries."""
        linear = dataclasses.replace(self.linear, value=self.problem.unary)
        least = cheapest(linear)
        if least is None:
            return None
        found = repaired(linear, np.where(linear.free[rows], rows, least))
        return found if found is not None and self._holds(found) else None

    def begin(self, rows: IntArray | None) -> None:
        """Descend from feasible rows, and keep the local optimum if it is the best."""
        if rows is None:
            return
        rows = self._descend(rows)
        value = float(self.model.positions.divergence(self.model.total(rows)).mean())
        if value < self.value:
            self.best, self.value = rows, value

    def kick(self, times: int, seed: int) -> None:
        """So many times: change a few groups of the best at random, repair, descend."""
        rng = np.random.default_rng(seed)
        group = self.problem.group_of[self._moves]
        open_ = np.flatnonzero(np.bincount(group, minlength=self.problem.group_count) > 1)
        for _ in range(times if len(open_) else 0):
            if self.spent >= self._most or self.best is None:
                return
            rows = self.best.copy()
            for g in rng.choice(open_, min(int(rng.integers(*KICKED, endpoint=True)), len(open_)), replace=False):
                rows[g] = rng.choice(self._moves[group == g])
            self.begin(rows if self._holds(rows) else self.repaired(rows))

    def _holds(self, rows: IntArray) -> bool:
        return self.problem.evaluate(rows - self.problem.indptr[:-1]).feasible

    def _descend(self, rows: IntArray) -> IntArray:
        """Moves until none of those tried is better."""
        rows = rows.copy()
        total = self.model.total(rows)
        value = float(self.model.positions.divergence(total).mean())
        while self.spent < self._most:
            for moves in self._candidates(rows):
                found = self._better(rows, total, value, moves)
                if found is not None:
                    move, value = found
                    rows[self.problem.group_of[move]] = move
                    total = self.model.total(rows)
                    break
            else:
                break
        return rows

    def _better(
        self, rows: IntArray, total: FloatArray, value: float, moves: IntArray
    ) -> tuple[IntArray, float] | None:
        """The best of the first block of moves [M, m] in which one is better and feasible, and its value."""
        for i in range(0, len(moves), BLOCK):
            block = moves[i : i + BLOCK]
            values = self.model.changed(rows, total, block)
            self.spent += len(block)
            for at in np.argsort(values, kind="stable").tolist():
                if not values[at] < value - TINY * abs(value):
                    break
                after = rows.copy()
                after[self.problem.group_of[block[at]]] = block[at]
                if self._holds(after):
                    return block[at], float(values[at])
            if self.spent >= self._most:
                return None
        return None

    def _candidates(self, rows: IntArray) -> Iterator[IntArray]:
        """Changes of one group [M, 1], then of two [M, 2], that keep the rows, most promising first."""
        group = self.problem.group_of
        moves = self._moves[rows[group[self._moves]] != self._moves]
        if not len(moves):
            return
        total = self._screen.total(rows)
        now = float(self._screen.positions.divergence(total).mean())
        gain = self._screen.changed(rows, total, moves[:, None]) - now
        use, change = self._rows.use(rows), self._rows.change(rows)[:, moves]
        alone = np.flatnonzero(self._rows.keeps(use[:, None] + change))
        alone = alone[np.argsort(gain[alone], kind="stable")]
        yield moves[alone[: self._pairs]][:, None]
        wide = _spread(gain, WIDE)
        moves, gain, change = moves[wide], gain[wide], change[:, wide]
        both = gain[:, None] + gain[None, :] + self._between(rows, total, moves)
        same = group[moves][:, None] == group[moves][None, :]
        kept = self._rows.keeps(use[:, None, None] + change[:, :, None] + change[:, None, :])
        both[same | ~kept | np.tri(len(moves), dtype=bool)] = np.inf
        flat = both.ravel()
        first = np.argpartition(flat, min(self._pairs, len(flat) - 1))[: self._pairs]
        first = first[np.argsort(flat[first], kind="stable")]
        first = first[np.isfinite(flat[first])]
        yield np.stack([moves[first // len(moves)], moves[first % len(moves)]], axis=1)

    def _between(self, rows: IntArray, total: FloatArray, moves: IntArray) -> NDArray[np.float32]:
        """What each two moves [M, M] do together beyond what each does alone, to second order."""
        screen = self._screen
        positions = len(total)
        few = max(1, min(positions, CURVED // max(1, len(moves) ** 2 * total.shape[1])))
        if few < positions:
            wanted = np.arange(few) * positions // few
            screen, total = screen.at(wanted), total[wanted]
        steps = screen.of(moves).astype(np.float32) - screen.of(rows[self.problem.group_of[moves]])
        tangents = screen.positions.tangents(total, steps)
        return np.asarray(tangents @ tangents.T / few)


def _spread(gain: FloatArray, most: int) -> IntArray:
    """All moves, or of many the `most` that pairs are made of: those that gain most, and those that lose least."""
    if len(gain) <= most:
        return np.arange(len(gain))
    order = np.argsort(gain, kind="stable")
    losing = int(np.searchsorted(gain[order], 0.0))
    gaining = min(losing, max(most // 2, most - (len(order) - losing)))
    return np.sort(np.concatenate([order[:gaining], order[losing : losing + most - gaining]]))
