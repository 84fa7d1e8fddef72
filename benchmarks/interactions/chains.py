"""Networks in which the errors of neighbouring layers are correlated, and of no others: a chain of pair terms."""

from __future__ import annotations

import numpy as np

from allocator import Problem
from allocator.statement import Pairs
from benchmarks.solvers.case import Draw
from benchmarks.solvers.realistic import NETWORKS, losses

BITS = (2, 3, 4, 5, 6, 7, 8)
BUDGET = 3.5
EDGE, CHOICE, MOST = 0.25, 0.08, 0.45


def chain(seed: int, network: str) -> Problem:
    """The tensors of a real network in its own order, with modelled losses and a budget of 3.5 bits on average.

    Losses are those of `realistic.losses` without noise. Where e_a is the error of choice a and its loss ½|e_a|², two
    neighbours lose e_a·e_b = 2·ρ·√(l_a·l_b) beside: ρ = .25·N of the two layers + .08·N of the two choices, cut at
    ±.45, so that no chain of errors has a loss below 0. The cost is exact: weights times bits.
    """
    tensors = NETWORKS[network][0]()
    draw = Draw(seed, len(tensors), 54)
    weights = np.array([t.weights for t in tensors], np.int64)
    loss = losses(draw, weights, BITS, noise=False)
    groups, choices = loss.shape
    row = np.arange(groups * choices).reshape(groups, choices)
    a = np.repeat(row[:-1], choices, axis=1).ravel()
    b = np.tile(row[1:], (1, choices)).ravel()
    size = np.sqrt(loss).ravel()
    correlation = np.repeat(EDGE * draw.normal(groups - 1), choices**2) + CHOICE * draw.normal(len(a))
    value = 2.0 * np.clip(correlation, -MOST, MOST) * size[a] * size[b]
    problem = Problem.from_arrays(
        {"modelled": loss},
        {"bits": np.outer(weights, BITS)},
        budgets={"bits": int(BUDGET * weights.sum())},
        group_names=[t.name for t in tensors],
        choice_names=[f"int{bits}" for bits in BITS],
        weights=weights,
    )
    return problem.replace(interactions=(Pairs("modelled", np.stack([a, b], axis=1).astype(np.int64), value),))
