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
ROUGH_TOLERANCE = 1e-3
_STEPS = 500
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


def fit(weight: Weight, mask: Tensor, action: Prune, rough: bool = False) -> Tensor:
    """float64 [rows, columns]: the best values of the kept weights, 0 for the others.

    Args:
        weight: with the second moment of its inputs.
        mask: bool [rows, columns]: which are kept.
        action: what asks for it.
        rough: some digits are enough.

    Raises:
        ActionError: the second moment was not measured.
    """
    layer, inner = weight.layer, metric(weight, action)
    wanted = weight.matrix.double().view(layer.groups, -1, layer.columns) @ inner
    if layer.columns > (ROUGH_COLUMNS if rough else EXACT_COLUMNS):
        real = mask.view_as(wanted)
        return _iterated(wanted.mul_(real), real, inner, ROUGH_TOLERANCE if rough else TOLERANCE).flatten(0, 1)
    wanted = wanted.flatten(0, 1)
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


def _iterated(wanted: Tensor, real: Tensor, metric: Tensor, tolerance: float) -> Tensor:
    """Solve H_SS x = wanted_S for each row by conjugate gradients, preconditioned by the diagonal.

    The steps stay among the weights that are kept, so that the matrix is H_SS for each row.

    Args:
        wanted: float64 [groups, rows/groups, columns], 0 where no weight is kept.
        real: bool, likewise: where one is kept.
        metric: [groups, columns, columns].
        tolerance: residual, relative to what is wanted, at which a row is done.
    """
    least = torch.finfo(torch.float64).tiny
    diagonal = metric.diagonal(dim1=1, dim2=2).unsqueeze(1)
    found, residual = torch.zeros_like(wanted), wanted
    direction = residual / diagonal
    slope = (residual * direction).sum(2, keepdim=True)
    goal = tolerance**2 * slope
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
