"""Answers to random problems: of the right shape, feasible, and true in whatever they claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np

from allocator.certificate import Certificate, Core, Multipliers, Threshold
from allocator.formats.solutions import solution_bytes
from allocator.problem import Problem
from allocator.protocols import Exactness, Solver
from allocator.solution import Answer
from allocator.testing.claims import false_claims
from allocator.testing.conformance.bench import Asked, Bench, declined, faults_of, no_failures

DECLINED = 10  # one in so many problems may be refused, though each of its features is declared


class Answers(Bench):
    """What comes back, before and after the core has checked it."""

    def test_it_takes_what_it_declares(self, backend: Solver) -> None:
        """No error; a combination of declared features may be refused now and then, by name."""
        asked = self.answers(backend)
        errors = [
            f"{one.case.label}: {type(one.error).__name__}: {one.error}"
            for one in asked
            if one.error is not None and not declined(one)
        ]
        no_failures(errors, len(asked))
        refused = [f"{one.case.label}: {one.error}" for one in asked if declined(one)]
        assert len(refused) <= len(asked) // DECLINED, (
            f"{len(refused)} of {len(asked)} problems are refused whose features are declared; the first:\n{refused[0]}"
        )
        for text in refused:
            assert len(text.rsplit(": ", 1)[-1]) > 20, f"a refusal must name the part and the way out: {text}"

    def test_answers_have_the_right_shape(self, backend: Solver) -> None:
        """`Answer(choice [G] of indices | None, claim, claimed_bound, certificate, limit, statistics)`."""
        asked = self.answers(backend)
        no_failures(faults_of(asked, _shape), len(asked))

    def test_allocations_are_feasible(self, backend: Solver) -> None:
        """Nothing at all is better than an allocation that breaks something."""
        asked = self.answers(backend)
        no_failures(faults_of(asked, _feasible), len(asked))

    def test_infeasible_problems_get_no_allocation(self, backend: Solver) -> None:
        """An exact backend says that there is none; whoever says so is right."""
        asked = self.answers(backend)
        exact = backend.exactness is Exactness.EXACT
        no_failures(faults_of(asked, lambda one: _hopeless(one, exact)), len(asked))

    def test_claims_are_true(self, backend: Solver) -> None:
        """An optimum is one, a bound lies below it."""
        asked = self.answers(backend)
        no_failures(faults_of(asked, lambda one: _claims(one, self.allowance(one.case.reference))), len(asked))

    def test_solutions_are_true(self, backend: Solver) -> None:
        """All that the core makes of the answer agrees with the reference."""
        asked = self.answers(backend)
        no_failures(faults_of(asked, _false), len(asked))

    def test_solutions_can_be_written(self, backend: Solver) -> None:
        """Statistics, bounds and limits survive solution.json."""
        for one in self.answers(backend)[:5]:
            if one.solution is not None:
                solution_bytes(one.solution)


def misshapen(answer: Any, problem: Problem) -> list[str]:
    """What is wrong with an answer's types, shapes and ranges; empty for a proper one."""
    if not isinstance(answer, Answer):
        return [f"returned {type(answer).__name__!r}, not an Answer"]
    found = [] if answer.choice is None else _choice(answer.choice, problem)
    if answer.claim not in (None, "optimal", "infeasible"):
        found.append(f"claim {answer.claim!r}: it may be 'optimal', 'infeasible' or None")
    if (answer.claim == "optimal") > (answer.choice is not None):
        found.append("claims an optimum without an allocation")
    if (answer.claim == "infeasible") > (answer.choice is None):
        found.append("claims infeasible beside an allocation")
    if answer.claimed_bound is not None and not _finite(answer.claimed_bound):
        found.append(f"claimed_bound {answer.claimed_bound!r} is not a finite number; None says that there is none")
    if answer.certificate is not None:
        found += _certificate(answer.certificate, problem)
    limit: Any = answer.limit
    if limit is not None and not isinstance(limit, str):
        found.append(f"limit {limit!r} is not text")
    statistics: Any = answer.statistics
    if not isinstance(statistics, Mapping) or not all(isinstance(key, str) for key in statistics):
        found.append("statistics must map text to values")
    return found


def _choice(choice: Any, problem: Problem) -> list[str]:
    if not isinstance(choice, np.ndarray) or choice.dtype.kind not in "iu":
        kind = choice.dtype if isinstance(choice, np.ndarray) else type(choice).__name__
        return [f"choice must be an array of integers, not {kind}"]
    if choice.shape != (problem.group_count,):
        return [f"choice has shape {choice.shape}, the problem {problem.group_count} groups"]
    outside = np.flatnonzero((choice < 0) | (choice >= problem.sizes))
    if len(outside):
        g = int(outside[0])
        return [f"choice {int(choice[g])} of group {g}, which has {int(problem.sizes[g])} (an index within the group)"]
    return []


def _certificate(certificate: Any, problem: Problem) -> list[str]:
    if not isinstance(certificate, get_args(Certificate)):
        return [f"certificate {certificate!r} is none of {', '.join(c.__name__ for c in get_args(Certificate))}"]
    if not isinstance(certificate, Multipliers | Core | Threshold):
        return []
    values, rows = certificate.values, len(problem.budgets)
    if len(values) > rows:  # fewer will do: the check counts what is missing at the end as 0
        return [f"certificate has {len(values)} prices for {rows} budget rows"]
    return [f"price {v!r} of row {i} is not a finite number" for i, v in enumerate(values) if not _finite(v)]


def _finite(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Integral):
        return False
    return math.isfinite(value)


def _shape(one: Asked) -> list[str]:
    assert one.reduced.problem is not None
    return misshapen(one.answer, one.reduced.problem)


def _feasible(one: Asked) -> list[str]:
    assert one.reduced.problem is not None
    choice = None if one.answer is None else one.answer.choice
    if choice is None or _choice(choice, one.reduced.problem):
        return []
    broken = one.case.reference.violations(tuple(one.reduced.expand(choice).tolist()))
    return [f"an allocation that is not feasible: {', '.join(broken)}"] if broken else []


def _hopeless(one: Asked, exact: bool) -> list[str]:
    assert one.answer is not None
    if one.case.reference.best is not None:
        return ["claims infeasible, yet something is feasible"] if one.answer.claim == "infeasible" else []
    if one.answer.choice is not None:
        return ["an allocation of an infeasible problem"]
    if exact and one.answer.claim != "infeasible" and (one.solution is None or one.solution.status != "infeasible"):
        return ["an exact backend has to say that nothing is feasible"]
    return []


def _claims(one: Asked, allowed: float) -> list[str]:
    assert one.answer is not None
    best = one.case.reference.best
    if best is None:
        return []
    found = []
    bound = one.answer.claimed_bound
    if bound is not None and _finite(bound) and bound > best.objective + allowed:
        found.append(f"claimed bound {bound!r} above the optimum {best.objective!r}")
    if one.answer.claim == "optimal" and one.solution is not None and one.solution.objective is not None:
        said = one.solution.objective
        if said > best.objective + allowed:
            found.append(f"claims an optimum at {said!r}, yet {best.objective!r} is feasible")
    return found


def _false(one: Asked) -> list[str]:
    return [] if one.solution is None else false_claims(one.case.reference, one.solution)
