"""Instances are what they are said to be, the same in every process, and their peers are right."""

import itertools

import numpy as np
import pytest

from allocator import solve
from benchmarks.interactions.chains import chain
from benchmarks.interactions.greedy import greedy
from benchmarks.interactions.instances import correlated, facts


@pytest.mark.parametrize(("groups", "rank"), [(40, 512), (60, 512), (226, 512)])
def test_synthetic_networks_have_the_figures_that_are_said_of_them(groups, rank):
    found = facts(correlated(1, groups, rank))
    assert 25 <= found["participation"] <= 60
    assert 0.12 <= found["rms"] <= 0.18
    assert 0.23 <= found["rms_neighbours"] <= 0.28
    assert 3.8 <= found["error_per_bit"] <= 4.2
    assert 10 <= found["weights"] <= 16.1
    assert found["bits"] == pytest.approx(3.5, abs=1e-3)


def test_facts_by_hand():
    problem = correlated(3, 4, 40)
    (basis,) = problem.interactions
    vectors = basis.vectors
    cosine = vectors @ vectors.T
    size = np.sqrt(np.diag(cosine))
    cosine /= np.outer(size, size)
    apart = [(a, b) for a in range(28) for b in range(28) if a // 7 != b // 7]
    near = [(a, b) for a, b in apart if abs(a // 7 - b // 7) == 1]
    found = facts(problem)
    assert found["rms"] == pytest.approx(np.sqrt(np.mean([cosine[pair] ** 2 for pair in apart])))
    assert found["rms_neighbours"] == pytest.approx(np.sqrt(np.mean([cosine[pair] ** 2 for pair in near])))
    eigenvalues = np.linalg.eigvalsh(cosine)
    assert found["participation"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert found["axes"] == 40 / 28


def test_the_loss_is_half_the_square_of_the_summed_errors():
    problem = correlated(3, 4, 40)
    (basis,) = problem.interactions
    for choice in ([0, 1, 2, 3], [6, 0, 0, 5]):
        together = basis.vectors[problem.indptr[:-1] + choice].sum(axis=0)
        assert problem.evaluate(np.array(choice)).loss == pytest.approx(0.5 * together @ together)


@pytest.mark.parametrize("make", [lambda: correlated(5, 6, 20), lambda: chain(5, "resnet50")])
def test_the_same_seed_makes_the_same_instance(make):
    one, two = make(), make()
    assert one.unary.tobytes() == two.unary.tobytes()
    first = [getattr(one.interactions[0], name, None) for name in ("vectors", "value", "index")]
    second = [getattr(two.interactions[0], name, None) for name in ("vectors", "value", "index")]
    for a, b in zip(first, second, strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)


def test_chains_join_neighbours_only_and_never_gain_more_than_there_is():
    problem = chain(1, "resnet50")
    (pairs,) = problem.interactions
    group = problem.group_of[pairs.index]
    assert (group[:, 1] - group[:, 0] == 1).all()
    assert len(pairs.index) == 53 * 49
    assert list(problem.sizes) == [7] * 54
    own = np.sqrt(problem.unary[pairs.index]).prod(axis=1)
    assert (np.abs(pairs.value) <= 0.9 * own * (1 + 1e-12)).all()
    assert 0.1 < np.sqrt(np.mean((pairs.value / own / 2) ** 2)) < 0.4
    assert problem.budgets[0].max == int(3.5 * problem.weights.sum())


def test_greedy_goes_where_the_least_is_lost():
    """Against the rule in words, allocation by allocation."""
    problem = correlated(2, 4, 12)
    choice, most = np.array([6, 6, 6, 6]), problem.budgets[0].max
    cost = problem.costs["bits"].reshape(4, 7)

    def use(places):
        return cost[range(4), places].sum()

    while use(choice) > most:
        found = []
        for g, place in itertools.product(range(4), range(7)):
            other = choice.copy()
            other[g] = place
            saved = use(choice) - use(other)
            if saved > 0:
                gained = problem.evaluate(other).loss - problem.evaluate(choice).loss
                found.append((gained / saved, g, place))
        _, g, place = min(found)
        choice[g] = place
    assert greedy(problem).tolist() == choice.tolist()
    assert problem.evaluate(greedy(problem)).feasible
    best = solve(problem, "quadratic")
    assert best.objective <= problem.evaluate(greedy(problem)).objective + 1e-12
