"""Kept weights that take over what the pruned ones did, and are rounded with an eye on each other.

The fit: with S the columns that a row w keeps, (w − ŵ) H (w − ŵ)ᵀ is least for ŵ_S = H_SS⁻¹ (H w)_S, and grows by
e H_SS eᵀ when e is added to it.

The rounding: with H_SS = L Lᵀ (L lower triangular) that is Σ_j (Σ_{i ≥ j} e_i L_ij)², e what is rounded away. So values
are settled from the last to the first: each becomes the code next to what would make its term zero, and what lies
between the two is left for those before it to make good. That is GPTQ's greedy rounding (Frantar et al. 2022,
arXiv 2210.17323) with its columns the other way round and no inverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from allocator.actions import Prune, Quantize
from allocator.applier.code_grid import Grid
from allocator.applier.coded_values import CodedValues, code_values
from allocator.applier.statistics import require
from allocator.applier.weight import Weight

DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean."""
EXACT_COLUMNS = 600
"""Up to so many columns each row has a Cholesky factor of its own: rows · kept³ operations. In wider layers all rows of
a group share that of H itself, the fit is iterated, and the rounding makes good what the pruned columns let through."""
TOLERANCE = 1e-9
"""Residual, relative to the right-hand side, at which the iterated fit ends."""
_STEPS = 500
_NUMBERS = 1 << 23  # of the factors that are held together
_BLOCK = 64  # columns that are settled one by one before the others hear of them


@dataclass(frozen=True)
class _Rows:
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


def compensated(weight: Weight, mask: Tensor, action: Prune) -> Tensor | CodedValues:
    """The kept values of a weight in the order of their places: float32 [k], or codes where they are quantised.

    Args:
        weight: with the second moment of its inputs.
        mask: bool [rows, columns]: which are kept.
        action: how values are stored.

    Raises:
        ActionError: the second moment was not measured.
    """
    metric = weight.remember(("prune", "metric"), lambda: _metric(weight, action))
    found = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    for batch in _batches(weight, mask, metric):
        batch.put(batch.fitted, found)
    values = found[mask].to(torch.float32)
    if not isinstance(action.values, Quantize):
        return values
    coded = code_values(values, mask, action, weight.layer)
    grid = Grid.of(coded, mask, action)
    for batch in _batches(weight, mask, metric):
        local = grid.at(batch.rows, batch.columns)
        nearest, settled = local.nearest(batch.fitted), _settled(batch, local)
        better = batch.cost(settled) < batch.cost(nearest)
        batch.put(torch.where(better.unsqueeze(1), settled, nearest), found)
    signs = None if coded.signs is None else found[mask] >= 0
    return replace(coded, signs=signs, codes=grid.codes(found)[mask].to(torch.uint8))


def _metric(weight: Weight, action: Prune) -> Tensor:
    """H [groups, columns, columns], damped; its size does not matter, so that its mean diagonal is about 1."""
    moment = require(weight.statistics, "input_moment", action).double()
    size = moment.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    one = torch.eye(moment.shape[1], dtype=torch.float64, device=moment.device)
    return torch.where(size > 0, (moment + moment.transpose(1, 2)) / (2 * size), one) + DAMPING * one


def _batches(weight: Weight, mask: Tensor, metric: Tensor) -> Iterator[_Rows]:
    layer = weight.layer
    group = torch.arange(layer.rows, device=mask.device) // (layer.rows // layer.groups)
    # Columns of small inputs first, so that they are settled last.
    order = metric.diagonal(dim1=1, dim2=2).argsort(dim=1, stable=True)
    matrix = weight.matrix.double()
    if layer.columns > EXACT_COLUMNS:
        for one in range(layer.groups):
            yield _together((group == one).nonzero().view(-1), matrix, mask, metric[one], order[one])
        return
    counts = mask.sum(1)
    by_count = counts.argsort(stable=True, descending=True)
    at = 0
    while at < layer.rows and counts[by_count[at]] > 0:
        most = int(counts[by_count[at]])
        rows = by_count[at : at + max(1, _NUMBERS // most**2)]
        yield _apart(rows, most, matrix, mask, metric[group[rows]], order[group[rows]])
        at += len(rows)


def _apart(rows: Tensor, most: int, matrix: Tensor, mask: Tensor, metric: Tensor, order: Tensor) -> _Rows:
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
    return _Rows(rows, columns, real, torch.cholesky_solve(wanted.unsqueeze(2), lower).squeeze(2), lower)


def _together(rows: Tensor, matrix: Tensor, mask: Tensor, metric: Tensor, order: Tensor) -> _Rows:
    """All rows of a group on all columns; the fit by conjugate gradients, preconditioned by the diagonal."""
    metric = metric[order.unsqueeze(1), order]
    real = mask[rows][:, order]
    wanted = (matrix[rows][:, order] @ metric).mul_(real)
    diagonal = metric.diagonal()
    found, residual = torch.zeros_like(wanted), wanted
    direction = residual / diagonal
    slope = (residual * direction).sum(1, keepdim=True)
    goal = TOLERANCE**2 * slope
    for _ in range(_STEPS):
        if bool((slope <= goal).all()):
            break
        pushed = (direction @ metric).mul_(real)
        length = slope / (direction * pushed).sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        found, residual = found + length * direction, residual - length * pushed
        ahead = residual / diagonal
        before, slope = slope, (residual * ahead).sum(1, keepdim=True)
        direction = ahead + slope / before.clamp_min(torch.finfo(torch.float64).tiny) * direction
    lower = torch.linalg.cholesky(metric).unsqueeze(0)
    return _Rows(rows, order.expand(len(rows), -1), real, found, lower)


def _settled(batch: _Rows, grid: Grid) -> Tensor:
    """Values [R, m] on the grid, settled from the last column to the first."""
    fitted, lower, real = batch.fitted, batch.lower, batch.real
    values, error, pull = (torch.zeros_like(fitted) for _ in range(3))
    diagonal = lower.diagonal(dim1=1, dim2=2)
    for stop in range(fitted.shape[1], 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        for j in range(stop - 1, start - 1, -1):
            owed = pull[:, j] + (error[:, j + 1 : stop] * lower[:, j + 1 : stop, j]).sum(1)
            values[:, j] = grid.column(j).nearest(fitted[:, j] + owed / diagonal[:, j])
            error[:, j] = (fitted[:, j] - values[:, j]).masked_fill_(~real[:, j], 0)
        if start:
            below, part = lower[:, start:stop, :start], error[:, start:stop]
            pull[:, :start] += part @ below[0] if len(below) == 1 else (part.unsqueeze(1) @ below).squeeze(1)
    return values
