"""What interactions rest on, against the dense matrices that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from allocator.hygiene import ROWS, curvatures, doubts, positive, scaled, separable
from allocator.problem import Problem
from allocator.statement import Basis, Loss, Notes, Pairs


def make(eigenvalues, seed=0, groups=4, choices=3, weight=1.0, **parts):
    """Groups of a choice that changes nothing and others, with one basis of the score `s`."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(groups, choices, len(eigenvalues)))
    vectors[:, 0] = 0
    rows = (groups, choices)
    made = Problem.from_arrays({"s": rng.random(rows), "t": rng.random(rows)}, {"b": np.ones(rows, int)})
    basis = Basis("s", np.array(eigenvalues, float), vectors.reshape(-1, len(eigenvalues)))
    return made.replace(interactions=(basis,), loss=Loss({"s": weight}), **parts)


def between(problem):
    """The matrix that the bases of the loss stand for, between groups [N, N]."""
    out = np.zeros((problem.choice_count,) * 2)
    for term, part in problem.active_interactions:
        out += term * (part.vectors * part.eigenvalues) @ part.vectors.T
    out[problem.group_of[:, None] == problem.group_of[None, :]] = 0
    return out


def test_rows_choices_and_the_negative_share():
    (found,) = curvatures(make([3.0, -1.0, 0.0]))
    assert (found.score, found.rows, found.choices) == ("s", 2, 8)
    assert found.ratio == 0.25
    basis = make([3.0, -1.0, 0.0]).interactions[0]
    up, down = (abs(e) * float((basis.vectors[:, i] ** 2).sum()) for i, e in enumerate((3.0, -1.0)))
    assert found.negative == pytest.approx(down / (up + down))
    assert curvatures(make([3.0, 1.0]))[0].negative == 0


def test_what_cannot_be_taken_or_left_does_not_count():
    problem = make([1.0, 1.0])
    allowed = np.ones(12, bool)
    allowed[[1, 3, 4]] = False  # one choice of the first group; all but one of the second
    (found,) = curvatures(problem.replace(allowed=allowed))
    assert found.choices == 1 + 4
    assert curvatures(problem.replace(loss=Loss({"t": 1.0}))) == ()
    (nothing,) = curvatures(problem.replace(allowed=np.tile([True, False, False], 4)))
    assert (nothing.rows, nothing.choices, nothing.negative, nothing.few) == (0, 0, 0.0, "")


def test_rows_of_the_sketch_are_taken_from_the_file():
    def noted(value):
        meta = {"profilers": {"s": {ROWS: value}}}
        return curvatures(make([1.0, 1.0], notes=Notes(meta=meta)))[0].rows

    assert noted(512) == 512
    assert noted(1) == 2  # there are two directions
    assert noted("many") == noted(True) == noted(None) == 2
    assert curvatures(make([1.0, 1.0], notes=Notes(meta={"profilers": []})))[0].rows == 2


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_positive_part_is_that_of_the_spectrum(weight):
    problem = make([2.0, -1.0, 0.5, -3.0], weight=weight)
    kept = positive(problem)
    basis = problem.interactions[0]
    strength = weight * np.maximum(basis.eigenvalues, 0)
    wanted = (basis.vectors * strength) @ basis.vectors.T
    wanted[problem.group_of[:, None] == problem.group_of[None, :]] = 0
    assert np.allclose(between(kept), wanted)
    assert curvatures(kept)[0].negative == 0
    assert np.array_equal(kept.unary, problem.unary)
    assert positive(make([-1.0, -2.0])).interactions == ()
    assert positive(make([1.0, 0.0])).interactions[0].vectors.shape == (12, 2)
    other = problem.replace(loss=Loss({"t": 1.0}))
    assert positive(other).interactions == problem.interactions


def test_shares_of_interactions_and_none():
    one, two = make([1.0, -2.0]).interactions[0], make([1.0], seed=1).interactions[0]
    pairs = Pairs("s", np.array([[1, 4], [2, 8]]), np.array([0.5, -1.5]))
    both = make([1.0]).replace(interactions=(one, Basis("t", two.eigenvalues, two.vectors), pairs))
    choice = [1, 1, 2, 0]
    alone = separable(both)
    assert [part.score for part in alone.interactions] == ["t"]
    added = both.evaluate(choice).loss - alone.evaluate(choice).loss
    assert abs(added) > 0.1
    for share in (0.0, 0.25, 1.0):
        less = scaled(both, share)
        assert less.evaluate(choice).loss - alone.evaluate(choice).loss == pytest.approx(share * added)
        assert less.interactions[1] is both.interactions[1]


def test_doubts_in_words():
    few, bent = doubts(make([3.0, -1.0]))
    assert few.startswith("the interactions of s have 2 rows for 8 choices, r/J 0.25")
    assert "of the curvature in the interactions of s is negative" in bent
    assert doubts(make([1.0] * 8)) == []
    assert doubts(make([3.0, -1.0]).replace(minimize={"b": 1.0})) == []
    assert doubts(separable(make([3.0, -1.0]))) == []
