"""The kept weights of each row that together do best what the whole row did.

With H = E[x xᵀ] of the inputs x and S the columns that a row w keeps, (w − ŵ) H (w − ŵ)ᵀ is least for
ŵ_S = H_SS⁻¹ (H w)_S, and grows by e H_SS eᵀ when e is added to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from allocator.actions import Prune
from allocator.applier.statistics import require
from allocator.applier.weight import Weight

DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean."""
EXACT_COLUMNS = 600
"""Up to so many columns each row has a Cholesky factor of its own: rows · kept³ operations. In wider layers all rows of
a group share that of H itself, the fit is iterated, and the rounding makes good what the pruned columns let through."""
TOLERANCE = 1e-9
_STEPS = 500
_NUMBERS = 1 << 23  # of the factors that are held together


@dataclass(frozen=True)
class FittedRows:
    """Rows [R] that are done together, with m columns each.

    Attributes:
        rows: int64 [R].
        columns: int64 [R, m] in the order of L.
        real: bool [R, m]: where a weight is kept; L and the values elsewhere are of no account.
        fitted: float64 [R, m]: the best values, 0 where none is kept.
        lower: float64 [R or 1, m, m]: L.
    """

    rows: Tensor
    columns: Tensor
    real: Tensor
    fitted: Tensor
    lower: Tensor

    def put(self, values: Tensor, matrix: Tensor) -> None:
        """Write [R, m] into [rows, columns], where weights are kept."""
        rows = self.rows.unsqueeze(1).expand_as(self.columns)
        matrix[rows[self.real], self.columns[self.real]] = values[self.real]

    def cost(self, values: Tensor) -> Tensor:
        """[R]: e L Lᵀ eᵀ of values [R, m] beside the best ones."""
        error = (values - self.fitted).masked_fill(~self.real, 0)
        return (error.unsqueeze(1) @ self.lower).square().sum((1, 2))


def metric(weight: Weight, action: Prune) -> Tensor:
    """H [groups, columns, columns], damped; in a unit in which its mean diagonal is about 1.

    Raises:
        ActionError: the second moment was not measured.
    """
    moment = require(weight.statistics, "input_moment", action).double()
    size = moment.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    one = torch.eye(moment.shape[1], dtype=torch.float64, device=moment.device)
    return torch.where(size > 0, (moment + moment.transpose(1, 2)) / (2 * size), one) + DAMPING * one


def fits(weight: Weight, mask: Tensor, action: Prune, tolerance: float = TOLERANCE) -> Iterator[FittedRows]:
    """The best values of the kept weights of every row, a few rows at a time.

    Args:
        weight: with the second moment of its inputs.
        mask: bool [rows, columns]: which are kept.
        action: what asks for it.
        tolerance: residual, relative to the right-hand side, at which an iterated fit ends.

    Raises:
        ActionError: the second moment was not measured.
    """
    layer, inner = weight.layer, weight.remember(("prune", "metric"), lambda: metric(weight, action))
    group = torch.arange(layer.rows, device=mask.device) // (layer.rows // layer.groups)
    # Columns of small inputs first, so that they are settled last.
    order = inner.diagonal(dim1=1, dim2=2).argsort(dim=1, stable=True)
    matrix = weight.matrix.double()
    if layer.columns > EXACT_COLUMNS:
        for one in range(layer.groups):
            within = inner[one][order[one].unsqueeze(1), order[one]]
            lower = weight.remember(("prune", "factor", one), partial(torch.linalg.cholesky, within))
            rows = (group == one).nonzero().view(-1)
            real = mask[rows][:, order[one]]
            fitted = _iterated(matrix[rows][:, order[one]], real, within, tolerance)
            yield FittedRows(rows, order[one].expand_as(real), real, fitted, lower.unsqueeze(0))
        return
    counts = mask.sum(1)
    by_count = counts.argsort(stable=True, descending=True)
    at = 0
    while at < layer.rows and counts[by_count[at]] > 0:
        most = int(counts[by_count[at]])
        rows = by_count[at : at + max(1, _NUMBERS // most**2)]
        yield _apart(rows, most, matrix, mask, inner[group[rows]], order[group[rows]])
        at += len(rows)


def _apart(rows: Tensor, most: int, matrix: Tensor, mask: Tensor, metric: Tensor, order: Tensor) -> FittedRows:
    """Each row on the columns that it keeps, at most ``most``; metric [R, columns, columns], order [R, columns]."""
    kept = mask[rows].gather(1, order)
    columns = order.gather(1, (~kept).byte().argsort(dim=1, stable=True)[:, :most])
    real = mask[rows].gather(1, columns)
    wanted = (matrix[rows].unsqueeze(1) @ metric).squeeze(1).gather(1, columns).masked_fill(~real, 0)
    each = torch.arange(len(rows), device=rows.device).view(-1, 1, 1)
    within = metric[each, columns.unsqueeze(2), columns.unsqueeze(1)]
    within.masked_fill_(~(real.unsqueeze(2) & real.unsqueeze(1)), 0)
    within.diagonal(dim1=1, dim2=2).masked_fill_(~real, 1)
    lower = torch.linalg.cholesky(within)
    return FittedRows(rows, columns, real, torch.cholesky_solve(wanted.unsqueeze(2), lower).squeeze(2), lower)


def _iterated(wanted: Tensor, real: Tensor, metric: Tensor, tolerance: float) -> Tensor:
    """The fit of rows [R, columns] by conjugate gradients, preconditioned by the diagonal of metric [columns, columns].

    The steps stay among the weights that are kept, so that the matrix is H_SS for each row.
    """
    least = torch.finfo(torch.float64).tiny
    diagonal = metric.diagonal()
    found, residual = torch.zeros_like(wanted), (wanted @ metric).mul_(real)
    direction = residual / diagonal
    slope = (residual * direction).sum(1, keepdim=True)
    goal = tolerance**2 * slope
    for _ in range(_STEPS):
        if bool((slope <= goal).all()):
            break
        pushed = (direction @ metric).mul_(real)
        length = slope / (direction * pushed).sum(1, keepdim=True).clamp_min(least)
        found, residual = found + length * direction, residual - length * pushed
        ahead = residual / diagonal
        before, slope = slope, (residual * ahead).sum(1, keepdim=True)
        direction = ahead + slope / before.clamp_min(least) * direction
    return found
