"""The curvature of a choice from few samples: a wide estimate drawn towards a narrow one.

Three estimates stand between right and narrow: u² = (Σ_ij g_ij Δ_ij)² is right in the mean but wide; Σ_f u_f² over
output features leaves out what features have in common; Σ_ij g_ij² Δ_ij² leaves out everything between weights, and is
the narrowest. The ratio R of a wide estimate to a narrow one differs from layer to layer in truth and by noise. How
much of it is true, the data say: over random halves of the samples, the covariance of ln R between the halves is the
variance of its true part. Its share of the whole variance is the exponent with which R is taken over: the empirical
Bayes estimate of normal means (Efron and Morris 1975), on the logarithm. With many samples R is taken nearly as it is;
with a dozen sequences of a language model next to nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.tasks.measurement import ratios
from profilers._families import family
from profilers._score import Score
from profilers._sketch import Sketched

SPLITS = 20
FEWEST_SAMPLES, FEWEST_CHOICES = 4, 8
"""With fewer, or fewer choices beyond one per family, nothing is drawn."""
POOLED = 50
"""A family's own share counts as much as that of all choices together once it has so many members."""


@dataclass(frozen=True)
class Estimate:
    """A curvature estimate: squares [N, C] per target whose sum over samples is the estimate; ``stderr`` [C]: relative.

    share: of the widest estimate in it, the mean over choices.
    """

    squares: Sequence[Tensor]
    stderr: Sequence[Tensor]
    share: float = 1.0


def shrunk(found: Sketched) -> tuple[Score, float]:
    """The score with its standard errors, and the mean share of the full projection in it (1: nothing was drawn)."""
    gathered = [own if own.shape[1] else rows for own, rows in zip(found.diagonal, found.rows, strict=True)]
    best = drawn(found, measured(found.rows, found.positions), measured(gathered, found.positions))
    best = drawn(found, measured([u.square().mean(0) for u in found.projections], found.positions), best)
    score = found.score(best.squares)
    errors = [[0.0] * len(row) for row in score.value]
    for t, places in enumerate(found.places):
        for place, relative in zip(places, best.stderr[t].tolist(), strict=True):
            errors[t][place] = score.value[t][place] * relative
    return Score(score.value, errors, score.unit, score.target, score.per), best.share


def measured(squares: Sequence[Tensor], positions: Tensor) -> Estimate:
    """An estimate as it comes, with the standard errors that its samples show."""
    errors = []
    for own in squares:
        value, stderr = ratios(own, positions)
        errors.append(torch.where(value == 0, 0.0, stderr / value))
    return Estimate(squares, errors)


def drawn(found: Sketched, wide: Estimate, narrow: Estimate) -> Estimate:
    """The narrow estimate times middle · (R / middle)^share, R = wide / narrow, the middle R of the choice's family."""
    where = [
        (t, column)
        for t, places in enumerate(found.places)
        if wide.squares[t] is not narrow.squares[t]
        for column in range(len(places))
        if narrow.squares[t][:, column].sum() > 0 and wide.squares[t][:, column].sum() > 0
    ]
    names = [family(found.plan.targets[t].menu[found.places[t][column]]) for t, column in where]
    if len(found.positions) < FEWEST_SAMPLES or len(where) - len(set(names)) < FEWEST_CHOICES:
        return wide
    above = torch.stack([wide.squares[t][:, c] for t, c in where], 1)
    below = torch.stack([narrow.squares[t][:, c] for t, c in where], 1)
    code = torch.tensor([sorted(set(names)).index(name) for name in names])
    ratios = above.sum(0) / below.sum(0)
    shares = _shares(above, below, code)
    middle = _means(ratios, code)[code]  # of ratios, not of their logarithms: noise does not move it
    factor = middle * (ratios / middle) ** shares
    squares, errors = [s.clone() for s in narrow.squares], [e.clone() for e in narrow.stderr]
    for i, (t, c) in enumerate(where):
        share = float(shares[i])
        squares[t][:, c] *= factor[i]
        errors[t][c] = math.sqrt(share * float(wide.stderr[t][c]) ** 2 + (1 - share) * float(errors[t][c]) ** 2)
    return Estimate(squares, errors, float(shares.mean()))


def _shares(above: Tensor, below: Tensor, code: Tensor) -> Tensor:
    """The true part of the variance of ln R in the family of every choice, 0…1 [M]; above, below [N, M]."""
    samples, generator = len(above), torch.Generator().manual_seed(0)
    common = torch.zeros(int(code.max()) + 1, dtype=torch.float64)
    for _ in range(SPLITS):
        order = torch.randperm(samples, generator=generator)
        halves = [_spread(above[part], below[part], code) for part in order.tensor_split(2)]
        common += _means(halves[0] * halves[1], code) / SPLITS
    whole = _means(_spread(above, below, code).square(), code)
    members = torch.bincount(code).double()
    pooled = (common * members).sum() / (whole * members).sum().clamp(min=1e-300)
    own = common / whole.clamp(min=1e-300)
    return ((members * own + POOLED * pooled) / (members + POOLED)).clamp(0, 1)[code]


def _spread(above: Tensor, below: Tensor, code: Tensor) -> Tensor:
    """ln R less the mean of its family; a sum that is 0 in these samples says nothing."""
    up, down = above.sum(0), below.sum(0)
    logs = torch.where((up > 0) & (down > 0), (up.clamp(min=1e-300) / down.clamp(min=1e-300)).log(), 0.0)
    return logs - _means(logs, code)[code]


def _means(values: Tensor, code: Tensor) -> Tensor:
    """Mean of every family."""
    sums = torch.zeros(int(code.max()) + 1, dtype=torch.float64).index_add_(0, code, values.double())
    return sums / torch.bincount(code)
