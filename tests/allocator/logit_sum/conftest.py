"""Random logit deltas, folded in numpy as the profiler folds them, with a dense truth beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from allocator.logit_sum import LogitSum, Positions
from allocator.problem import Problem


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(logits, delta):
    """KL(softmax(z) ‖ softmax(z + δ)) at each position."""
    p, q = softmax(logits), softmax(logits + delta)
    return (p * (np.log(p) - np.log(q))).sum(-1)


def folded(logits, delta, top, sketches, rng):
    """(Positions, deltas [..., P, F]) of deltas [..., P, K]: signs drawn for each position by itself."""
    p = softmax(logits)
    counts = np.ones(len(p), np.int64)
    if top >= p.shape[1]:
        return Positions(p, None, 0, counts), delta
    order = np.argsort(-p, axis=1)
    first, rest = order[:, :top], order[:, top:]
    tail = np.take_along_axis(p, rest, 1)
    share = tail / tail.sum(1, keepdims=True)
    signs = rng.choice([-1.0, 1.0], (*rest.shape, sketches))
    wide = np.broadcast_to(first, (*delta.shape[:-1], top))
    left = np.take_along_axis(delta, np.broadcast_to(rest, (*delta.shape[:-1], rest.shape[1])), -1)
    mean = (share * left).sum(-1, keepdims=True)
    sketch = np.einsum("...pk,pkd->...pd", np.sqrt(share) * (left - mean), signs) / np.sqrt(sketches)
    parts = [np.take_along_axis(delta, wide, -1), mean, sketch]
    return Positions(np.take_along_axis(p, first, 1), tail.sum(1), sketches, counts), np.concatenate(parts, -1)


@dataclass
class Case:
    problem: Problem
    model: LogitSum
    logits: np.ndarray
    delta: np.ndarray

    def truth(self, choice) -> float:
        rows = self.problem.indptr[:-1] + np.asarray(choice)
        return float(dense(self.logits, self.delta[rows].sum(0)).mean())


def make(seed, groups=4, choices=3, positions=20, classes=5, **parts) -> Case:
    """Choices that cost less move the logits more; place 0 is ``keep``."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(positions, classes))
    size = np.linspace(0, 0.6, choices)
    common = rng.normal(size=(groups, 1, positions, classes))  # choices of a layer err alike
    delta = size[:, None, None] * (common + 0.5 * rng.normal(size=(groups, choices, positions, classes)))
    delta = (delta - (softmax(logits) * delta).sum(-1, keepdims=True)).reshape(-1, positions, classes)
    found, kept = folded(logits, delta, classes, 0, rng)
    cost = np.arange(choices, 0, -1) * rng.integers(1, 4, (groups, 1))
    unary = dense(logits, delta).mean(-1)
    names = ["keep", *(f"c{k}" for k in range(1, choices))]
    problem = Problem.from_arrays(
        {"kl": unary.reshape(groups, choices)},
        {"b": cost},
        choice_names=names,
        budgets={"b": int(0.6 * cost[:, 0].sum())},
    )
    if parts:
        problem = problem.replace(**parts)
    return Case(problem, LogitSum(problem, kept, found), logits, delta)


@pytest.fixture
def case_of() -> Callable[..., Case]:
    return make


@pytest.fixture
def folding():
    return folded, dense
