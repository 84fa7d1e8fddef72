"""What points downhill taken out of CLADO's and CET's quadratics."""

import itertools

import numpy as np
import pytest

from allocator.errors import UsageError
from allocator.methods.curvature import clipped, dropped
from allocator.methods.running import method_named
from allocator.statement import Basis, Pairs


def taken(chosen):
    return list(chosen.solution.choices.values())


COSTS = [[1, 2, 4], [1, 2, 4]]


def test_clado_clips_what_points_downhill(table, choose):
    """G = ((.2, −.4), (−.4, .2)) has .6 along (1, −1) and −.2 along (1, 1): ((.3, −.3), (−.3, .3)) is left."""
    problem = table([[1, 4], [1, 4]], measured_pairs=[[0.1, 0], [0.1, 0]])
    problem = problem.replace(interactions=(Pairs("measured_pairs", np.array([[0, 2]]), np.array([-0.4])),))
    found = choose("clado", problem, 2)
    assert found.predicted == pytest.approx(0)  # .15 + .15 − .3; −.2 as measured
    assert found.said == "25 % of the eigenvalues' sum clipped; -0.2 nat by the matrix as measured"
    assert choose("clado[clip=false]", problem, 2).predicted == pytest.approx(-0.2)
    assert choose("clado", problem, 5).problem.scores["measured_pairs_clipped"] == pytest.approx([0.15, 0, 0.15, 0])
    # the same numbers as a basis, which is how the profiler writes them
    as_basis = Basis("measured_pairs", np.array([-0.4]), np.array([[1.0], [0], [1], [0]]))
    assert choose("clado", problem.replace(interactions=(as_basis,)), 2).said == found.said


def test_clipping_agrees_with_dense_algebra_and_never_lowers_the_loss(table):
    rng = np.random.default_rng(0)
    problem = table(np.ones((4, 3), int), measured_pairs=rng.normal(size=(4, 3)))
    pairs = np.array([(a, b) for a in range(12) for b in range(a + 1, 12) if a // 3 != b // 3])
    values = rng.normal(size=len(pairs))
    problem = problem.replace(interactions=(Pairs("measured_pairs", pairs, values),))
    G = np.zeros((12, 12))
    G[tuple(pairs.T)] = G[tuple(pairs[:, ::-1].T)] = values
    G += np.diag(2 * problem.scores["measured_pairs"])
    e, Q = np.linalg.eigh(G)
    plus = (Q * np.maximum(e, 0)) @ Q.T
    stated = clipped(problem, "measured_pairs", "new", "clado")
    assert dropped(stated, "clado") == pytest.approx(-e[e < 0].sum() / np.abs(e).sum())
    for choice in itertools.product(range(3), repeat=4):
        x = np.zeros(12)
        x[3 * np.arange(4) + choice] = 1
        assert problem.evaluate(choice).loss == pytest.approx(x @ G @ x / 2)
        assert stated.evaluate(choice).loss == pytest.approx(x @ plus @ x / 2)
        assert stated.evaluate(choice).loss >= problem.evaluate(choice).loss - 1e-12


def test_cet_believes_no_axis_that_points_downhill(table, choose):
    # axes of curvature 2 and −6. Layers 0, 1 at one byte: v = (1, 1), (−1, 1): alone ½·2 − ½·6 = −2 each, together
    # ½·2·0² − ½·6·2² = −12. Without the second axis: 1 and 1 alone, 0 together, and 1 with the other layer.
    problem = table([[1, 4], [1, 4], [1, 4]], lanczos=[[-2, 0], [-2, 0], [1, 0]])
    axes = Basis("lanczos", np.array([2.0, -6.0]), np.array([[1.0, 1], [0, 0], [-1, 1], [0, 0], [0, 0], [0, 0]]))
    problem = problem.replace(interactions=(axes,))
    found = choose("cet", problem, 6)
    assert found.predicted == pytest.approx(0)
    assert found.said == "75 % of the curvature found points downhill and was dropped"
    assert choose("cet", problem, 9).predicted == 0  # all kept: nothing is gained by rounding
    kept = choose("cet[negative=keep]", problem, 9)
    assert kept.predicted == pytest.approx(-12)
    assert taken(kept) == ["c0", "c0", "c1"]
    with pytest.raises(UsageError, match="give drop or keep"):
        method_named("cet[negative=clip]")


def test_cet_adds_the_slope_when_told(table, choose):
    slopes = [[-0.5, 0], [0.5, 0], [0, 0]]
    problem = table([[1, 4], [1, 4], [1, 4]], lanczos=[[1, 0], [1, 0], [1, 0]], first_order=slopes)
    found = choose("cet[linear=true]", problem, 9)
    assert taken(found)[0] == "c0"  # 1 − .5 against 1 + .5 and 1: one layer has to be at one byte
    assert found.predicted == pytest.approx(0.5)
    assert "-0.5 nat of the prediction are first order" in found.said
    assert choose("cet", problem, 9).predicted == pytest.approx(1)
    assert [one.name for one in method_named("cet[linear=true]").statistics()] == ["lanczos", "first_order"]
    with pytest.raises(UsageError, match=r"cet\[linear=true\] needs the score 'first_order'"):
        choose("cet[linear=true]", table(COSTS, lanczos=[[1, 0.5, 0]] * 2), 4)
