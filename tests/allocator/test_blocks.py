"""Blocks cover every group once, and nothing that is worked out in blocks depends on where they end."""

from __future__ import annotations

import numpy as np
import pytest

from allocator import blocks
from allocator.blocks import per_group, pieces, spans
from allocator.evaluation import scale_of
from allocator.formats.digest import content_sha256
from allocator.problem import Problem


def ragged(seed: int, groups: int, most: int) -> Problem:
    rng = np.random.default_rng(seed)
    start = np.concatenate([[0], np.cumsum(rng.integers(1, most + 1, groups))])
    allowed = rng.random(start[-1]) < 0.9
    allowed[start[:-1]] = True
    return Problem.from_arrays(
        rng.standard_normal(start[-1]), rng.integers(0, 99, start[-1]), indptr=start, allowed=allowed
    )


def even(seed: int, groups: int, width: int) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem.from_arrays(rng.standard_normal((groups, width)), rng.integers(0, 99, (groups, width)))


PROBLEMS = [ragged(0, 50, 9), ragged(1, 1, 40), even(2, 30, 4), even(3, 20, 1), even(4, 5, 50)]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 16])
@pytest.mark.parametrize("problem", PROBLEMS, ids=["ragged", "one group", "even", "one choice", "wide"])
def test_reductions_over_blocks_are_those_over_the_whole(
    problem: Problem, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", size)
    column = problem.unary
    for reduction in (np.minimum, np.maximum):
        parts = [per_group(problem, s, reduction, column[s.rows]) for s in spans(problem)]
        assert np.array_equal(np.concatenate(parts), reduction.reduceat(column, problem.indptr[:-1]))
    assert [i for piece in pieces(20) for i in range(20)[piece]] == list(range(20))


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("problem", PROBLEMS, ids=["ragged", "one group", "even", "one choice", "wide"])
def test_scale_and_hash_do_not_depend_on_the_blocks(
    problem: Problem, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, digest = scale_of(problem), content_sha256(problem)
    monkeypatch.setattr(blocks, "BLOCK", size)
    again = problem.replace(notes=problem.notes)
    assert scale_of(again) == pytest.approx(scale, rel=1e-14)
    assert content_sha256(again) == digest


def test_default_names_hash_as_the_same_names_given() -> None:
    for problem in (ragged(5, 40, 12), even(6, 40, 12)):
        names = [f"c{place}" for place in problem.places.tolist()]
        said = Problem.from_arrays(
            problem.scores["score"], problem.costs["cost"], indptr=problem.indptr, choice_names=names
        )
        plain = problem.replace(allowed=None)
        assert content_sha256(said) == content_sha256(plain)
