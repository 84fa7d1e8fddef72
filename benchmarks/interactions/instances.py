"""Synthetic networks whose errors add along shared axes, with figures like those of small measured networks.

Loss ½|Σ_g v_g|²: every choice has a vector v of its error's curvature-weighted parts along `rank` axes, its own score
is ½|v|², and the basis holds the products between groups. What is drawn, and what it is meant to look like:

- **Spectrum**: energies of the axes e^(−i/part) + 1e-3, so that the correlation matrix of the vectors has a
  participation number (Σλ)²/Σλ² of 25 to 60, as measured on small networks; the small constant keeps it of full rank
  where rank ≥ choices.
- **Correlation** between vectors of different groups: .12 to .18 in the root mean square, either sign; .23 to .28
  between neighbours, whose errors share a part along a path through the groups. Choices of one group share `OWN` of
  their energy.
- **Error**: energy 4^−bits, times e^(3·N) per group, N normal: 4 times less with every bit, in the median. The spread
  decides how far layers cancel: the separable optimum lies about twice as high as the best known at 60 groups, and
  1.1 to 2.6 times on the two measured networks.
- **Cost**: weights log-uniform from 1 to 16 (thousands), times 2 to 8 bits; the budget is 3.5 bits on average.

`facts` works out what an instance really has.
"""

from __future__ import annotations

import numpy as np

from allocator import Problem
from allocator.statement import Basis, FloatArray
from benchmarks.solvers.case import Draw

BITS = (2, 3, 4, 5, 6, 7, 8)
BUDGET = 3.5
OWN = 0.3
"""Share of a vector's energy that the choices of its group have in common."""
NEIGHBOUR = 0.22
"""Share of a vector's energy that comes from the group before it, at the same number of bits."""
PART = 30
FLOOR = 1e-3
SPREAD = 1.5
"""Of the logarithm of a group's error; with less, layers cancel more than those of the measured networks do."""
SAMPLE = 2_000
"""Vectors that `facts` looks at, at most: whole groups from the first on."""


def correlated(seed: int, groups: int, rank: int) -> Problem:
    """One instance; see the head of this file. Its score is ``modelled``, its resource ``bits``."""
    draw = Draw(seed, groups, rank)
    weights = np.rint(1000 * 16.0 ** draw.uniform(groups)).astype(np.int64)
    scale = np.sqrt(np.exp(-np.arange(rank) / PART) + FLOOR)
    before = draw.normal(len(BITS), rank)
    vectors = np.empty((groups, len(BITS), rank))
    for g in range(groups):
        common, own = draw.normal(rank), draw.normal(len(BITS), rank)
        sign = 1.0 if draw.uniform() < 0.5 else -1.0
        fresh = np.sqrt(OWN) * common + np.sqrt(1 - OWN) * own
        before = sign * np.sqrt(NEIGHBOUR) * before + np.sqrt(1 - NEIGHBOUR) * fresh
        size = np.exp(SPREAD * draw.normal(1)) * 2.0 ** -np.array(BITS)
        vectors[g] = before * scale * size[:, None]
    flat: FloatArray = vectors.reshape(-1, rank)
    flat /= np.sqrt((flat**2).sum(axis=1).mean())
    problem = Problem.from_arrays(
        {"modelled": 0.5 * (flat**2).sum(axis=1).reshape(groups, -1)},
        {"bits": np.outer(weights, BITS)},
        budgets={"bits": int(BUDGET * weights.sum())},
        weights=weights,
    )
    return problem.replace(interactions=(Basis("modelled", np.ones(rank), flat),))


def facts(problem: Problem) -> dict[str, float]:
    """What an instance really has.

    ``participation`` of the eigenvalues of the vectors' correlation matrix; ``rms`` and ``rms_neighbours``:
    correlations between vectors of different groups, and of neighbouring ones; ``error_per_bit``: median factor between
    the scores of a group's choices that are a bit apart; ``weights``: the largest over the smallest; ``bits``: the
    budget per weight; ``axes``: the rank over the choices. Correlations are those of the first `SAMPLE` vectors.
    """
    (basis,) = problem.interactions
    assert isinstance(basis, Basis)
    assert problem.weights is not None
    per = problem.choice_count // problem.group_count
    sample = basis.vectors[: SAMPLE // per * per]
    unit = sample / np.sqrt((sample**2).sum(axis=1))[:, None]
    squared = (unit @ unit.T) ** 2
    group = np.arange(len(unit)) // per
    apart = np.abs(group[:, None] - group[None, :])
    scores = problem.scores["modelled"].reshape(-1, per)
    most = problem.budgets[0].max
    assert most is not None
    return {
        "participation": float(len(unit) ** 2 / squared.sum()),
        "rms": float(np.sqrt(squared[apart > 0].mean())),
        "rms_neighbours": float(np.sqrt(squared[apart == 1].mean())),
        "error_per_bit": float(np.median(scores[:, :-1] / scores[:, 1:])),
        "weights": float(problem.weights.max() / problem.weights.min()),
        "bits": float(most) / float(problem.weights.sum()),
        "axes": len(basis.eigenvalues) / problem.choice_count,
    }
