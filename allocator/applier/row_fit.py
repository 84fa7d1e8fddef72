"""The kept weights of each row that together do best what the whole row did.

With H = E[x xᵀ] of the inputs x and S the columns that a row w keeps, (w − ŵ) H (w − ŵ)ᵀ is least for
ŵ_S = H_SS⁻¹ (H w)_S, and grows by e H_SS eᵀ when e is added to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Prune
from allocator.applier.moments import input_moment
from allocator.applier.weight import Weight

DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean."""
EXACT_COLUMNS = 600
"""Up to so many columns each row is solved by a Cholesky factor of its own H_SS: rows · kept³ operations. In wider
layers the fit is iterated, and all rows of a group are rounded by the factor of H itself."""
ROUGH_COLUMNS = 64
"""The same for fits of which some digits are enough: iterating is then faster from here on."""
TOLERANCE = 1e-9
ROUGH_TOLERANCE = 1e-4
_STEPS = 500
_REFINEMENTS = 8
_NUMBERS = 1 << 23  # of the factors that are held together


@dataclass(frozen=True)
class Factored:
    """Rows [R] that are done together, with m columns each.

    Attributes:
        rows: int64 [R].
        columns: int64 [R, m] in the order of L, those of small inputs first.
        real: bool [R, m]: where a weight is kept.
        lower: float64 [R or 1, m, m]: L, lower triangular, L Lᵀ = H of the columns (of those that are not real: the
            unit matrix, or, where all rows share a factor, H as well).
    """

    rows: Tensor
    columns: Tensor
    real: Tensor
    lower: Tensor

    def of(self, matrix: Tensor) -> Tensor:
        """The entries [R, m] of [rows, columns], 0 where no weight is kept."""
        return matrix[self.rows.unsqueeze(1), self.columns].masked_fill_(~self.real, 0)

    def put(self, values: Tensor, matrix: Tensor) -> None:
        """Write [R, m] into [rows, columns], where weights are kept."""
        rows = self.rows.unsqueeze(1).expand_as(self.columns)
        matrix[rows[self.real], self.columns[self.real]] = values[self.real]


def metric(weight: Weight, action: Prune) -> Tensor:
    """H [groups, columns, columns], damped; in a unit in which its mean diagonal is about 1.

    Raises:
        ActionError: the second moment was not measured.
    """
    return weight.remember(("prune", "metric"), lambda: _damped(input_moment(weight, action)))


def _damped(moment: Tensor) -> Tensor:
    size = moment.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    one = torch.eye(moment.shape[1], dtype=torch.float64, device=moment.device)
    return torch.where(size > 0, moment / size, one) + DAMPING * one


def fit(weight: Weight, mask: Tensor, action: Prune) -> Tensor:
    """float64 [rows, columns]: the best values of the kept weights, 0 for the others.

    Args:
        weight: with the second moment of its inputs.
        mask: bool [rows, columns]: which are kept.
        action: what asks for it.

    Raises:
        ActionError: the second moment was not measured.
    """
    inner, wanted = metric(weight, action), _wanted(weight, action)
    if weight.layer.columns > EXACT_COLUMNS:
        return _refined(wanted, mask.view_as(wanted), inner).flatten(0, 1)
    return _exact(wanted.flatten(0, 1), mask, inner)


def rough_fit(weight: Weight, mask: Tensor, action: Prune, near: Tensor) -> Tensor:
    """[rows, columns]: some digits of `fit`, from values [rows, columns] that are near to it; the other way faster.

    Raises:
        ActionError: the second moment was not measured.
    """
    if weight.layer.columns <= ROUGH_COLUMNS:
        return fit(weight, mask, action)
    inner, wanted, unit = weight.remember(("prune", "rough"), lambda: _single(weight, action))
    real = mask.view_as(wanted)
    start = (near / unit).view_as(wanted) * real
    return unit * _iterated(wanted * real, real, inner, start, ROUGH_TOLERANCE).flatten(0, 1)


def _single(weight: Weight, action: Prune) -> tuple[Tensor, Tensor, float]:
    """H and H w in float32, in a unit in which squares of weights are too."""
    unit = float(weight.matrix.abs().max()) or 1.0
    return metric(weight, action).to(torch.float32), (_wanted(weight, action) / unit).to(torch.float32), unit


def _wanted(weight: Weight, action: Prune) -> Tensor:
    """H w [groups, rows/groups, columns], float64."""
    layer = weight.layer
    return weight.matrix.double().view(layer.groups, -1, layer.columns) @ metric(weight, action)


def _exact(wanted: Tensor, mask: Tensor, inner: Tensor) -> Tensor:
    found = torch.zeros_like(wanted)
    for some in _apart(mask, inner):
        some.put(torch.cholesky_solve(some.of(wanted).unsqueeze(2), some.lower).squeeze(2), found)
    return found


def factored(weight: Weight, mask: Tensor, action: Prune) -> Iterator[Factored]:
    """All rows that keep a weight, some at a time; mask bool [rows, columns].

    Raises:
        ActionError: the second moment was not measured.
    """
    inner = metric(weight, action)
    return _apart(mask, inner) if weight.layer.columns <= EXACT_COLUMNS else _together(mask, inner)


def _order(metric: Tensor) -> Tensor:
    """int64 [groups, columns]: columns by rising size of their inputs."""
    return metric.diagonal(dim1=1, dim2=2).argsort(dim=1, stable=True)


def _apart(mask: Tensor, metric: Tensor) -> Iterator[Factored]:
    """Each row on the columns that it keeps; rows that keep equally many are done together."""
    group = torch.arange(len(mask), device=mask.device) // (len(mask) // len(metric))
    order, counts = _order(metric), mask.sum(1)
    by_count = counts.argsort(stable=True, descending=True)
    at = 0
    while at < len(mask) and counts[by_count[at]] > 0:
        most = int(counts[by_count[at]])
        rows = by_count[at : at + max(1, _NUMBERS // most**2)]
        at += len(rows)
        within = order[group[rows]]
        columns = within.gather(1, (~mask[rows].gather(1, within)).byte().argsort(dim=1, stable=True)[:, :most])
        real = mask[rows].gather(1, columns)
        inner = metric[group[rows].view(-1, 1, 1), columns.unsqueeze(2), columns.unsqueeze(1)]
        inner.masked_fill_(~(real.unsqueeze(2) & real.unsqueeze(1)), 0)
        inner.diagonal(dim1=1, dim2=2).masked_fill_(~real, 1)
        yield Factored(rows, columns, real, torch.linalg.cholesky(inner))


def _together(mask: Tensor, metric: Tensor) -> Iterator[Factored]:
    """All rows of a group on all columns."""
    size = len(mask) // len(metric)
    for group, order in enumerate(_order(metric)):
        rows = torch.arange(group * size, (group + 1) * size, device=mask.device)
        lower = torch.linalg.cholesky(metric[group][order.unsqueeze(1), order])
        yield Factored(rows, order.expand(size, -1), mask[rows][:, order], lower.unsqueeze(0))


def _refined(wanted: Tensor, real: Tensor, metric: Tensor) -> Tensor:
    """Solve H_SS x = wanted_S for each row to `TOLERANCE`: steps in float32 on what float64 says is still missing."""
    single, diagonal = metric.to(torch.float32), metric.diagonal(dim1=1, dim2=2).unsqueeze(1)
    found = torch.zeros_like(wanted)
    size = (wanted * real).square().div_(diagonal).sum(2, keepdim=True)
    for _ in range(_REFINEMENTS):
        missing = (wanted - found @ metric).mul_(real)
        left = missing.square().div_(diagonal).sum(2, keepdim=True)
        if bool((left <= TOLERANCE**2 * size).all()):
            break
        unit = left.sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        given = (missing / unit).to(torch.float32)
        found += unit * _iterated(given, real, single, torch.zeros_like(given), ROUGH_TOLERANCE)
    return found


def _iterated(wanted: Tensor, real: Tensor, metric: Tensor, start: Tensor, tolerance: float) -> Tensor:
    """Solve H_SS x = wanted_S for each row by conjugate gradients, preconditioned by the diagonal.

    The steps stay among the weights that are kept, so that the matrix is H_SS for each row.

    Args:
        wanted: [groups, rows/groups, columns], 0 where no weight is kept.
        real: bool, likewise: where one is kept.
        metric: [groups, columns, columns].
        start: like wanted: where the steps begin.
        tolerance: residual, relative to what is wanted, at which a row is done.
    """
    least = torch.finfo(wanted.dtype).tiny
    diagonal = metric.diagonal(dim1=1, dim2=2).unsqueeze(1)
    goal = tolerance**2 * (wanted.square() / diagonal).sum(2, keepdim=True)
    found, residual = start, wanted - (start @ metric).mul_(real)
    direction = residual / diagonal
    slope = (residual * direction).sum(2, keepdim=True)
    for _ in range(_STEPS):
        if bool((slope <= goal).all()):
            break
        pushed = (direction @ metric).mul_(real)
        length = slope / (direction * pushed).sum(2, keepdim=True).clamp_min(least)
        found, residual = found + length * direction, residual - length * pushed
        ahead = residual / diagonal
        before, slope = slope, (residual * ahead).sum(2, keepdim=True)
        direction = ahead + slope / before.clamp_min(least) * direction
    return found
