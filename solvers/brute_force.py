"""Every allocation, one by one in effect: the dumb truth that other backends are tested against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Enumeration
from allocator.errors import UnsupportedError
from allocator.evaluation import lexicographic, loss_size, lower, resource_size, scale_of, upper
from allocator.features import ALL
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import Basis, Cardinality, Implies, IntArray, Number, Pairs

Values = NDArray[Any]
ROUNDING = 4e-15  # of the sizes that are summed: what the order of additions may change


@dataclass(frozen=True, kw_only=True)
class BruteForce:
    """Splits the groups into a head and a tail, tabulates both, and joins each head with all tails at once.

    It takes every part of the format. Candidates that look best in floating point are evaluated exactly
    before they count.

    most: allocations it is willing to look at.
    """

    most: int = 50_000_000

    name: ClassVar[str] = "brute_force"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Look at all of them, or stop at the time limit with the best so far."""
        size = math.fsum(np.log10(problem.sizes).tolist())
        if size > math.log10(self.most):
            raise UnsupportedError(
                f"brute_force would look at 1e{size:.0f} allocations, more than {self.most:.0e}; use another solver"
            )
        search = _Search(problem)
        finished = search.run(limits)
        return Answer(
            choice=None if search.best is None else search.best - problem.indptr[:-1],
            claim=("optimal" if search.best is not None else "infeasible") if finished else None,
            claimed_bound=search.best_key[0] if finished and search.best is not None else None,
            certificate=Enumeration(),
            limit=None if finished else "time",
            statistics={"allocations": math.prod(problem.sizes.tolist())},
        )


@dataclass(frozen=True, eq=False)
class _Channel:
    """A quantity that partial allocations carry: a column [N] or [N, R], and how two parts join."""

    column: Values
    join: Callable[[Values, Values], Values]
    offset: float = 0.0


def _within(name: str, high: Number | None, low: Number | None, slip: float, exact: bool) -> Callable[..., Values]:
    """Whether a row may be kept: exactly where integers decide, else beyond all doubt by rounding."""

    def test(state: dict[str, Values]) -> Values:
        use = state[name]
        keep = np.ones(len(use), bool)
        if high is not None:
            keep &= use <= upper(high, exact) + slip
        if low is not None:
            keep &= use >= lower(low, exact) - slip
        return keep

    return test


class _Search:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.best: IntArray | None = None
        self.best_key = (math.inf, math.inf)
        self.margin = self._margin()
        order = np.argsort(problem.sizes, kind="stable")
        tail: list[int] = []
        width = 1
        for g in order.tolist():
            if width * int(problem.sizes[g]) > 4096 and width > 1:
                break
            width *= int(problem.sizes[g])
            tail.append(g)
        self.tail = np.array(sorted(tail))
        self.head = np.setdiff1d(np.arange(problem.group_count), self.tail)
        self.channels: dict[str, _Channel] = {}
        self.tests: list[Callable[[dict[str, Values]], Values]] = []
        self._losses()
        self._budgets()
        self._couplings()

    def _margin(self) -> float:
        """By how much a candidate must look better before it is evaluated exactly.

        Negative where interactions cancel the unaries, so that rounding passes the tolerance of 1e-12·S: all
        that look as good are then evaluated.
        """
        p = self.problem
        parts = p.minimize.items()
        size = math.fsum(abs(w) * (loss_size(p) if r == "loss" else resource_size(p, r)) for r, w in parts)
        margin = 1e-13 * scale_of(p)
        return margin if margin >= ROUNDING * size else -ROUNDING * size

    # -- what is carried along ------------------------------------------------------------------------------------

    def _losses(self) -> None:
        p = self.problem
        self.channels["unary"] = _Channel(p.unary, np.add)
        if p.loss.aggregate == "max":
            self.channels["largest"] = _Channel(p.unary, np.maximum)
        if p.loss.aggregate == "pnorm":
            self.norm = float(p.unary.max()) or 1.0
            self.channels["powers"] = _Channel((p.unary / self.norm) ** (p.loss.p or 1.0), np.add)
        for i, (_, part) in enumerate(p.active_interactions):
            if isinstance(part, Basis):
                vectors = part.vectors.astype(np.float64)
                self.channels[f"vector {i}"] = _Channel(vectors, np.add)
                self.channels[f"square {i}"] = _Channel(vectors**2 @ part.eigenvalues, np.add)
        for name in p.costs:
            join = np.maximum if p.resources[name].aggregate == "max" else np.add
            self.channels[f"total {name}"] = _Channel(p.cost(name), join, p.resources[name].offset)

    def _budgets(self) -> None:
        p = self.problem
        for i, b in enumerate(p.budgets):
            name, slip = f"row {i}", 0.0
            inside = p.in_scope(b.tags)[p.group_of]
            if b.loss:
                name, slip = "loss", ROUNDING * loss_size(p)
            elif b.score is not None:
                scores = p.scores[b.score]
                if b.include_remainder and b.score in p.remainder:
                    scores = scores + p.remainder[b.score]
                self.channels[name] = _Channel(np.where(inside, scores, 0.0), np.add)
                slip = ROUNDING * float(np.abs(scores).sum())
            else:
                assert b.resource is not None
                costs = p.cost(b.resource)
                if not p.exact(b.resource):
                    slip = ROUNDING * (float(np.abs(costs).sum()) + abs(float(p.resources[b.resource].offset)))
                if b.tags is None:
                    name = f"total {b.resource}"
                else:
                    most = p.resources[b.resource].aggregate == "max"
                    outside = np.minimum(costs.min(), 0) if most else np.zeros((), costs.dtype)
                    self.channels[name] = _Channel(np.where(inside, costs, outside), np.maximum if most else np.add)
            exact = b.resource is not None and p.exact(b.resource)
            self.tests.append(_within(name, b.max, b.min, 0 if exact else slip, exact))

    def _couplings(self) -> None:
        p = self.problem
        codes = p.label_codes
        for i, c in enumerate(p.couplings):
            name = f"coupling {i}"
            if isinstance(c, Cardinality | Implies):
                column = np.zeros(p.choice_count, np.int64)
                most: int | None
                least: int | None
                if isinstance(c, Implies):
                    column[c.if_row] += 1
                    column[c.then_row] -= 1
                    most, least = 0, None
                else:
                    column[list(c.rows)] = 1
                    most = None if c.kind == "at_least" else c.count
                    least = None if c.kind == "at_most" else c.count
                self.channels[name] = _Channel(column, np.add)
                self.tests.append(_within(name, most, least, 0, exact=True))
                continue
            ignored: frozenset[str] = getattr(c, "ignore", frozenset())
            counted = [k for k, label in enumerate(codes.table) if label not in ignored]
            inside = np.isin(p.group_of, c.groups)
            shown = (codes.code[:, None] == np.array(counted, np.int32)) & inside[:, None]
            self.channels[name] = _Channel(shown, np.logical_or)
            self.tests.append(self._few(name, getattr(c, "count", 1)))

    def _few(self, name: str, most: int) -> Callable[[dict[str, Values]], Values]:
        return lambda state: np.asarray(state[name].sum(axis=1) <= most)

    # -- the search -----------------------------------------------------------------------------------------------

    def run(self, limits: Limits) -> bool:
        """Join every head with all tails; False when time ran out first."""
        tails, tail_rows = self._table(self.tail)
        for head_rows in self._heads():
            if limits.left <= 0:
                return False
            self._join(head_rows, tails, tail_rows, limits)
        return True

    def _heads(self) -> Any:
        start, sizes = self.problem.indptr[self.head], self.problem.sizes[self.head]
        digits = np.zeros(len(self.head), np.int64)
        while True:
            yield start + digits
            place = len(digits) - 1
            while place >= 0 and digits[place] + 1 == sizes[place]:
                digits[place] = 0
                place -= 1
            if place < 0:
                return
            digits[place] += 1

    def _table(self, groups: IntArray) -> tuple[dict[str, Values], IntArray]:
        """Channel values and rows of every combination of these groups' choices."""
        rows = np.zeros((1, 0), np.int64)
        for g in groups.tolist():
            own = np.arange(*self.problem.indptr[g : g + 2].tolist())
            rows = np.concatenate([np.repeat(rows, len(own), axis=0), np.tile(own, len(rows))[:, None]], axis=1)
        return {name: self._folded(c, rows) for name, c in self.channels.items()}, rows

    def _folded(self, channel: _Channel, rows: IntArray) -> Values:
        total = channel.column[rows[:, 0]]
        for k in range(1, rows.shape[1]):
            total = channel.join(total, channel.column[rows[:, k]])
        return total

    def _join(self, head: IntArray, tails: dict[str, Values], tail_rows: IntArray, limits: Limits) -> None:
        state = {}
        for name, channel in self.channels.items():
            value = tails[name]
            if len(head):
                value = channel.join(self._folded(channel, head[None, :]), value)
            state[name] = channel.join(value, channel.column.dtype.type(channel.offset)) if channel.offset else value
            if name.startswith("total") and channel.join is np.maximum:
                state[name] = np.maximum(value, channel.offset)
            if name.startswith("row") and channel.join is np.maximum:
                state[name] = np.maximum(value, 0)
        state["loss"] = self._loss(state, head, tail_rows)
        objective = np.zeros(len(tail_rows))
        for name, weight in self.problem.minimize.items():
            objective = objective + weight * (state["loss"] if name == "loss" else state[f"total {name}"])
        tie = state["unary"] if lexicographic(self.problem) else np.zeros(len(tail_rows))
        keep = np.ones(len(tail_rows), bool)
        for test in self.tests:
            keep &= test(state)
        while True:
            better = keep & (objective < self.best_key[0] - self.margin)
            near = objective < self.best_key[0] + abs(self.margin)
            level = keep & near & (tie < self.best_key[1] - self.margin)
            candidates = np.flatnonzero(better | level)
            if not len(candidates):
                return
            pick = candidates[np.lexsort((tie[candidates], objective[candidates]))[0]]
            keep[pick] = False
            rows = np.empty(self.problem.group_count, np.int64)
            rows[self.head], rows[self.tail] = head, tail_rows[pick]
            outcome = self.problem.evaluate(rows - self.problem.indptr[:-1])
            if outcome.feasible and (outcome.objective, outcome.tie) < self.best_key:
                self.best, self.best_key = rows, (outcome.objective, outcome.tie)
                if limits.report is not None:
                    limits.report(rows - self.problem.indptr[:-1])

    def _loss(self, state: dict[str, Values], head: IntArray, tail_rows: IntArray) -> Values:
        p = self.problem
        if p.loss.aggregate == "max":
            return state["largest"]
        if p.loss.aggregate == "pnorm":
            return np.asarray(self.norm * state["powers"] ** (1 / (p.loss.p or 1.0)))
        total = state["unary"]
        for i, (weight, part) in enumerate(p.active_interactions):
            if isinstance(part, Pairs):
                total = total + weight * self._pairs(part, head, tail_rows)
            else:
                total = total + 0.5 * weight * (state[f"vector {i}"] ** 2 @ part.eigenvalues - state[f"square {i}"])
        return np.asarray(total)

    def _pairs(self, part: Pairs, head: IntArray, tail_rows: IntArray) -> Values:
        in_head = np.isin(part.index, head)
        total = np.full(len(tail_rows), part.value[in_head.all(axis=1)].sum())
        place = {int(g): k for k, g in enumerate(self.tail.tolist())}
        group_of = self.problem.group_of
        for (a, b), value, (head_a, head_b) in zip(
            part.index.tolist(), part.value.tolist(), in_head.tolist(), strict=True
        ):
            ends = []
            for end, there in ((a, head_a), (b, head_b)):
                if not there:
                    k = place.get(int(group_of[end]))
                    ends.append(np.zeros(len(tail_rows), bool) if k is None else tail_rows[:, k] == end)
            if ends:
                total = total + value * np.logical_and.reduce(ends)
        return np.asarray(total)
