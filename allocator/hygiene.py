"""What a loss with interactions rests on: how many directions, and how much of its curvature is negative.

The least loss of a model with interactions is found where layers cancel by the model. Two kinds of cancelling are of
the model alone. Fewer directions than choices, as a sketch of few samples gives, leave combinations of which the model
knows nothing, and its optimum is one of them: chosen by it, an allocation can be worse than without interactions.
Along a direction of negative curvature the loss falls without end by the model, and in truth only as far as a second
order reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from allocator.problem import Problem
from allocator.statement import Basis, BoolArray, Pairs

ROWS = "interaction_rows"
"""Under `meta.profilers` and the profiler's name: rows of the sketch that its basis was made of."""


@dataclass(frozen=True)
class Curvature:
    """What one basis of the loss is made of.

    Attributes:
        score: that it belongs to.
        rows: r, of the sketch where the file says it, else directions in the basis.
        choices: J, that may be taken and that the basis joins to others.
        negative: share of the curvature that is negative: Σ_{e<0} |e| ‖v‖² / Σ |e| ‖v‖² over those choices, 0…1.
    """

    score: str
    rows: int
    choices: int
    negative: float

    @property
    def ratio(self) -> float:
        """r / J."""
        return self.rows / self.choices if self.choices else float("inf")

    @property
    def few(self) -> str:
        """What too few rows mean for an optimum; "" where there are as many as choices."""
        if self.ratio >= 1:
            return ""
        return (
            f"the interactions of {self.score} have {self.rows} rows for {self.choices} choices, r/J "
            f"{self.ratio:.2g}: with fewer rows than choices their optimum can be worse in truth than that without"
        )

    @property
    def bent(self) -> str:
        """What negative curvature means for an optimum; "" where there is none."""
        if not self.negative:
            return ""
        return (
            f"{self.negative:.2g} of the curvature in the interactions of {self.score} is negative, and an optimum "
            "leans on it further than a second order holds"
        )


def doubts(problem: Problem) -> list[str]:
    """What speaks against taking the optimum of a loss with interactions at its word; [] where it is not minimised."""
    if not problem.minimize.get("loss"):
        return []
    refined = "`allocator refine` measures what comes of it"
    said = []
    for one in curvatures(problem):
        said += [f"{one.few}; profile on more samples, or {refined}"] if one.few else []
        said += [f"{one.bent}; `allocator refine` leaves that part out"] if one.bent else []
    return said


def curvatures(problem: Problem) -> tuple[Curvature, ...]:
    """Of every basis that the loss uses."""
    open_ = _open(problem)
    found = []
    for _, part in problem.active_interactions:
        if isinstance(part, Basis):
            wide = np.where(open_[:, None], np.asarray(part.vectors, np.float64), 0.0)
            mass = np.abs(part.eigenvalues) * np.square(wide).sum(0)
            known = int((mass > 0).sum())
            total, below = float(mass.sum()), float(mass[part.eigenvalues < 0].sum())
            joined = int(wide[:, mass > 0].any(1).sum())
            found.append(
                Curvature(part.score, _rows(problem, part.score, known), joined, below / total if total else 0.0)
            )
    return tuple(found)


def positive(problem: Problem) -> Problem:
    """The same without the directions of negative curvature in its loss; single choices keep their scores."""
    kept: list[Basis | Pairs] = []
    for part in problem.interactions:
        term = problem.loss.terms.get(part.score)
        if not isinstance(part, Basis) or not term or (part.eigenvalues >= 0).all():
            kept.append(part)
        elif (up := part.eigenvalues > 0).any():
            kept.append(Basis(part.score, part.eigenvalues[up], np.asarray(part.vectors, np.float64)[:, up].copy()))
    return problem.replace(interactions=tuple(kept))


def separable(problem: Problem) -> Problem:
    """The same without the interactions of its loss."""
    terms = set(problem.loss.terms)
    return problem.replace(interactions=tuple(one for one in problem.interactions if one.score not in terms))


def scaled(problem: Problem, share: float) -> Problem:
    """The same with the interactions of its loss counted at that share."""
    terms = set(problem.loss.terms)

    def less(part: Basis | Pairs) -> Basis | Pairs:
        if part.score not in terms:
            return part
        if isinstance(part, Basis):
            return dataclasses.replace(part, eigenvalues=share * part.eigenvalues)
        return dataclasses.replace(part, value=share * part.value)

    return problem.replace(interactions=tuple(map(less, problem.interactions)))


def _open(problem: Problem) -> BoolArray:
    """Choices that may be taken, of groups with more than one such [N]."""
    count = np.bincount(problem.group_of[problem.free], minlength=problem.group_count)
    return np.asarray(problem.free & (count > 1)[problem.group_of], np.bool_)


def _rows(problem: Problem, score: str, known: int) -> int:
    """Rows as the file tells them, if that can be: of the one basis of a score, no fewer than its directions."""
    alone = sum(isinstance(part, Basis) and part.score == score for part in problem.interactions) == 1
    meta = problem.notes.meta if alone else None
    for key in ("profilers", score, ROWS):
        meta = meta.get(key) if isinstance(meta, Mapping) else None
    return max(known, meta) if isinstance(meta, int) and not isinstance(meta, bool) else known
