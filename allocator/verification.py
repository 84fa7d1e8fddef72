"""Turns a backend's answer into a checked solution; only `claim` and `claimed_bound` are the backend's word."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.bounds import find_prices
from allocator.certificate import Cases, Core, Enumeration, Multipliers, Threshold
from allocator.certificate_dual import Dual, DualTree
from allocator.certificate_tree import Tree
from allocator.checks.core import exhaust
from allocator.checks.enumeration import MOST_ALLOCATIONS, enumerate_all, small_enough
from allocator.checks.lagrangian import active, lower_bound, proves_infeasible, single_row_infeasible
from allocator.checks.threshold import applies, check_threshold
from allocator.errors import UnsupportedError
from allocator.evaluation import Outcome, lexicographic, scale_of
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.quadratic import quadratic
from allocator.reduce import Reduced
from allocator.solution import Allocation, Answer, Solution

SMALLEST = 5e-324
CLAIMED_STATES = 20_000_000  # of the core check, where the backend claims an optimum
CORE_STATES = 2_000_000  # where it hands in prices for the core without a claim
EAGER_STATES = 20_000  # where it does neither: a few milliseconds
EAGER_ALLOCATIONS = 20_000  # enumerated even when nobody claims anything: a few milliseconds


def verify(problem: Problem, reduced: Reduced, answer: Answer) -> Solution:
    """Recompute, recheck and prove what can be proved.

    Args:
        problem: as stated, with its budgets.
        reduced: what the backend was given.
        answer: what it said.
    """
    if reduced.problem is None:
        none = (None,) * len(problem.budgets)
        return Solution(
            status="infeasible",
            certificate={"kind": "enumeration", "checked": True},
            multipliers=none,
            slack=none,
            reasons=(reduced.reason or "",),
        )
    answer, unread = _legible(answer)
    linear = _separable(reduced.problem)
    outcome, reasons = _accept(problem, reduced, answer)
    reasons = (*unread, *reasons)
    if outcome is None:
        return _without_allocation(problem, reduced, linear, answer, reasons)
    scale = scale_of(problem)
    proof = _Proof(reduced.problem, linear, outcome, answer, 1e-12 * scale)
    proof.run()
    objective = outcome.objective
    bound = objective if proof.optimal else proof.bound
    gap = None
    if bound is not None:
        gap = (objective - bound) / max(abs(objective), 1e-9 * scale, SMALLEST) if objective != bound else 0.0
    claim = answer.claim if not proof.optimal else None
    if answer.claim == "infeasible":
        reasons += ("the backend claims infeasible, yet its own allocation is feasible",)
    if answer.claimed_bound is not None and answer.claimed_bound > objective + max(1e-9 * scale, 1e-300):
        reasons += (f"the claimed bound {answer.claimed_bound!r} is above a feasible objective: it is wrong",)
    return Solution(
        status="optimal" if proof.optimal else "feasible",
        claim=claim,
        objective=objective,
        loss=outcome.loss,
        proven_bound=bound,
        claimed_bound=answer.claimed_bound,
        gap=gap,
        certificate={"kind": proof.kind, "checked": True} if proof.kind else None,
        allocation=Allocation(problem, (outcome.rows - problem.indptr[:-1]).astype(np.int32)),
        totals=outcome.totals,
        multipliers=proof.reported(len(problem.budgets)),
        slack=outcome.slack,
        limit=answer.limit,
        reasons=(*reasons, *proof.reasons),
    )


def _legible(answer: Answer) -> tuple[Answer, tuple[str, ...]]:
    """The answer without what cannot be meant: an unknown claim, a bound or prices that are not numbers."""
    reasons = []
    claim, bound, certificate = answer.claim, answer.claimed_bound, answer.certificate
    if claim not in (None, "optimal", "infeasible"):
        reasons.append(f"the backend's claim {claim!r} means nothing; it may be 'optimal', 'infeasible' or None")
        claim = None
    if bound is not None and not _is_number(bound):
        reasons.append(f"the backend's bound {bound!r} is not a finite number")
        bound = None
    if isinstance(certificate, Multipliers | Core | Threshold):
        try:
            if isinstance(certificate, Threshold):
                certificate = Threshold(_prices(certificate.values), _prices(certificate.below))
            else:
                certificate = type(certificate)(_prices(certificate.values))
        except (TypeError, ValueError, OverflowError):
            reasons.append(f"the backend's certificate of kind {certificate.kind!r} does not hold prices")
            certificate = None
    if isinstance(certificate, Dual | DualTree):
        try:
            certificate = certificate.tidy()
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            reasons.append(f"the backend's certificate of kind {certificate.kind!r} cannot be read: {error}")
            certificate = None
    bound = None if bound is None else float(bound)
    return dataclasses.replace(answer, claim=claim, claimed_bound=bound, certificate=certificate), tuple(reasons)


def _prices(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _separable(problem: Problem) -> Linear | None:
    try:
        if not problem.features & {"pairs", "basis"}:
            return linearise(problem)
        model = quadratic(problem)
    except UnsupportedError:
        return None
    return None if len(model.pair) or len(model.eigenvalues) else model.linear


def _accept(problem: Problem, reduced: Reduced, answer: Answer) -> tuple[Outcome | None, tuple[str, ...]]:
    if answer.choice is None or reduced.problem is None:
        return None, ()
    try:
        choice = np.asarray(answer.choice)
        outcome = reduced.problem.evaluate(choice)
    except ValueError as error:
        return None, (f"the backend's answer is not an allocation: {error}",)
    if outcome.problem is not problem:
        outcome = problem.evaluate(reduced.expand(choice))
    if outcome.violations:
        return None, tuple(f"the backend's allocation is not feasible: {v}" for v in outcome.violations[:20])
    return outcome, ()


def _without_allocation(
    problem: Problem, reduced: Reduced, linear: Linear | None, answer: Answer, reasons: tuple[str, ...]
) -> Solution:
    """No allocation was accepted: prove that there is none, or say that nothing is known."""
    kind, why, prices = _infeasibility(reduced, linear, answer)
    status: Any = "infeasible" if kind else "unknown"
    if kind is None and answer.claim == "infeasible":
        why = "the backend claims that no allocation is feasible; the core could not prove it"
    return Solution(
        status=status,
        claim=None if kind else answer.claim,
        claimed_bound=answer.claimed_bound,
        certificate={"kind": kind, "checked": True} if kind else None,
        multipliers=tuple(prices.get(i) for i in range(len(problem.budgets))),
        slack=(None,) * len(problem.budgets),
        limit=answer.limit,
        reasons=(*reasons, why) if why else reasons,
    )


def _infeasibility(reduced: Reduced, linear: Linear | None, answer: Answer) -> tuple[str | None, str, dict[int, float]]:
    """Kind of proof that nothing is feasible (or None), the reason in words, and the price of each row it uses."""
    given = reduced.problem
    assert given is not None
    kept = tuple(range(len(given.budgets)))
    separable = linear is not None
    if linear is None:  # what is left without the loss is separable
        kept = tuple(i for i, b in enumerate(given.budgets) if not b.loss)
        plain = dataclasses.replace(given.loss, aggregate="sum")
        budgets = tuple(given.budgets[i] for i in kept)
        linear = linearise(given.replace(minimize={"loss": 0.0}, loss=plain, interactions=(), budgets=budgets))
    stuck = np.flatnonzero(~np.logical_or.reduceat(linear.free, given.indptr[:-1]))
    if len(stuck):
        return (
            "multipliers",
            f"no choice of {_stated_names(reduced, int(stuck[0]))} keeps the largest cost or loss allowed",
            {},
        )
    if (broken := single_row_infeasible(linear)) is not None:
        i, sign = kept[broken[0].budget], broken[1]
        return "multipliers", f"every allocation breaks {_row_name(reduced, i)} by itself", {i: sign}
    if isinstance(answer.certificate, Multipliers | Core):
        values = dict(enumerate(answer.certificate.values))
        if proves_infeasible(linear, tuple(values.get(i, 0.0) for i in kept)):
            prices = {i: values.get(i, 0.0) for i in kept}
            return "multipliers", "the budget rows exclude each other (proved by multipliers)", prices
    whole = separable or len(kept) == len(given.budgets)
    if whole and isinstance(answer.certificate, Tree | Cases) and _covered(linear, answer.certificate, math.inf, 0):
        return "tree", "no allocation keeps every budget and coupling (proved by cases)", {}
    wanted = answer.claim == "infeasible" or isinstance(answer.certificate, Enumeration)
    if small_enough(given, MOST_ALLOCATIONS if wanted else EAGER_ALLOCATIONS):
        found = enumerate_all(given, None)
        if found.proved:
            return "enumeration", "no allocation keeps every budget and coupling (all were looked at)", {}
    return None, "", {}


def _stated_names(reduced: Reduced, g: int) -> str:
    """The stated groups behind a group of the reduced problem."""
    original = reduced.original
    if reduced.taken is None or reduced.problem is None:
        return f"group {original.group_names[g]!r}"
    rows = reduced.taken[reduced.problem.indptr[g]]
    return "group " + " with ".join(repr(original.group_names[int(original.group_of[r])]) for r in rows if r >= 0)


def _row_name(reduced: Reduced, i: int) -> str:
    rows = reduced.original.budgets
    return f"budget row {i} ({rows[i].name})" if i < len(rows) else "a coupling"


def _covered(linear: Linear, given: Tree | Cases, total: float, allowed: float) -> bool:
    """Whether the cover shows that nothing has Σ value below total − allowed (total ∞: that there is nothing)."""
    if isinstance(given, Tree):
        from allocator.checks.tree import check_tree  # this and the next are loaded when they are needed

        return check_tree(linear, given, total, allowed).proved
    from allocator.checks.cases import check_cases

    return check_cases(linear, given, total, allowed)


@dataclass
class _Proof:
    """The bound and, where it can be had, the proof that nothing is better."""

    problem: Problem
    linear: Linear | None
    outcome: Outcome
    answer: Answer
    tolerance: float
    bound: float | None = None
    optimal: bool = False
    kind: str | None = None
    values: tuple[float, ...] | None = None
    reasons: tuple[str, ...] = ()

    def run(self) -> None:
        if self.linear is not None and not lexicographic(self.problem):
            self._by_prices(self.linear)
        if isinstance(self.answer.certificate, Dual | DualTree):
            self._by_duals(self.answer.certificate)
        if self.linear is None and isinstance(self.answer.certificate, Multipliers | Core):
            self._along_a_chain(self.answer.certificate)
        if applies(self.problem):
            self._by_threshold()
        if not self.optimal:
            self._by_enumeration()

    def _by_prices(self, linear: Linear) -> None:
        given, tolerance = self.answer.certificate, self.tolerance
        objective = self.outcome.objective
        total = linear.total(objective)
        allowed = total - linear.total(objective - tolerance)
        if isinstance(given, Tree | Cases):
            self._by_tree(linear, given, total, allowed)
            return
        priced = given.values if isinstance(given, Multipliers | Core) else find_prices(linear).values
        found = exhaust(linear, priced, total, allowed, self._most_states())
        if not math.isfinite(found.bound):
            return
        self.values, self.kind = priced, "multipliers"
        self.bound = min(linear.objective(found.bound), objective)
        if self.bound >= objective - tolerance:
            self.optimal = True
        elif found.proved:
            self.optimal, self.kind = True, "core"
        elif found.better is not None and not self.problem.couplings and self.answer.claim == "optimal":
            better = linear.objective(found.better)
            self.reasons += (f"the backend claims optimal, but the check found an objective of {better!r}",)

    def _by_tree(self, linear: Linear, given: Tree | Cases, total: float, allowed: float) -> None:
        vectors = given.vectors if isinstance(given, Tree) else (given.values,)
        for values in vectors[:1]:
            if math.isfinite(bound := lower_bound(linear, values)):
                self.values, self.kind = values, "multipliers"
                self.bound = min(linear.objective(bound), self.outcome.objective)
        if _covered(linear, given, total, allowed):
            self.optimal, self.kind = True, "tree"

    def _by_duals(self, given: Dual | DualTree) -> None:
        """Interactions: a bound from bent functions, and the proof where their tree leaves nothing open."""
        from allocator.checks.dual import dual_bound  # these two are loaded when they are needed
        from allocator.checks.dual_tree import check_dual_tree

        try:
            model = quadratic(self.problem)
        except UnsupportedError:
            return
        objective = self.outcome.objective
        if isinstance(given, Dual):
            total, proved = dual_bound(model, given, model.linear.free), False
        else:
            found = check_dual_tree(model, given, objective, self.tolerance)
            total, proved = found.lowest, found.proved and given.level is None
        if math.isfinite(total) or proved:
            self.linear, self.values, self.kind = model.linear, given.values, "tree" if proved else "dual"
            self.bound = min(model.linear.objective(total), objective)
            self.optimal = proved or self.bound >= objective - self.tolerance

    def _along_a_chain(self, given: Multipliers | Core) -> None:
        """Interactions along a chain: a bound from prices, and the proof where they leave little open."""
        from allocator.checks.chain import check_chain  # loaded when it is needed

        try:
            model = quadratic(self.problem)
        except UnsupportedError:
            return
        objective = self.outcome.objective
        found = check_chain(model, given.values, model.linear.total(objective), self.tolerance)
        if found is None or not math.isfinite(found.bound):
            return
        self.linear, self.values = model.linear, given.values
        self.kind = "core" if found.proved else "multipliers"
        self.bound, self.optimal = min(model.linear.objective(found.bound), objective), found.proved
        if found.better is not None and self.answer.claim == "optimal":
            better = model.linear.objective(found.better)
            self.reasons += (f"the backend claims optimal, but the check found an objective of {better!r}",)

    def _by_threshold(self) -> None:
        """The least maximum, where a row or prices exclude the next lower one; without a certificate by own prices."""
        given, level = self.answer.certificate, self.outcome.loss
        if isinstance(given, Threshold):
            values, below = given.values, given.below
        else:
            values, below = find_prices(linearise(self.problem, cap=level)).values, ()
        allowed = self.tolerance / max(self.problem.minimize["loss"], 1.0)
        found = check_threshold(self.problem, values, below, level, self.outcome.tie, allowed, self._most_states())
        if found.least:
            self.bound, self.kind = self.outcome.objective, "threshold"
        self.optimal = found.proved

    def _most_states(self) -> int:
        """A proof that is claimed is worth more effort than one that is only hoped for."""
        if self.answer.claim == "optimal":
            return CLAIMED_STATES
        return CORE_STATES if isinstance(self.answer.certificate, Core | Threshold) else EAGER_STATES

    def _by_enumeration(self) -> None:
        wanted = self.answer.claim == "optimal" or isinstance(self.answer.certificate, Enumeration)
        if not small_enough(self.problem, MOST_ALLOCATIONS if wanted else EAGER_ALLOCATIONS):
            return
        assert self.answer.choice is not None
        found = enumerate_all(self.problem, self.problem.evaluate(np.asarray(self.answer.choice)))
        if found.proved:
            self.optimal, self.kind = True, "enumeration"
        elif found.better is not None and self.answer.claim == "optimal":
            self.reasons += ("the backend claims optimal, but looking at all allocations found a better one",)

    def reported(self, count: int) -> tuple[float | None, ...]:
        """λ per budget row of the stated problem; None where a row has no multiplier."""
        if self.values is None or self.linear is None:
            return (None,) * count
        prices = {r.budget: active(r, self.values)[0] for r in self.linear.rows}
        return tuple(prices.get(i) for i in range(count))
