"""The kept weights of each row that together do best what the whole row did.

With H = E[x xᵀ] of the inputs x and S the columns that a row w keeps, (w − ŵ) H (w − ŵ)ᵀ is least for
ŵ_S = H_SS⁻¹ (H w)_S, and grows by e H_SS eᵀ when e is added to that. With G = H⁻¹ and R the columns that go it is also
ŵ = w − G_:R G_RR⁻¹ w_R: a system as large as what goes (Hassibi and Stork 1993, for one weight at a time).
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
"""Up to so many columns each row is solved, and rounded, by a Cholesky factor of its own H_SS: rows · kept³ operations.
In wider layers it is solved by what goes where that is less, and all rows of a group are rounded by the factor of H."""
ROUGH_COLUMNS = 64
"""From here to there, fits of which some digits are enough are iterated, which is faster."""
ROUGH_TOLERANCE = 1e-4
_STEPS = 500
_LARGE = 64  # columns from which cutting a matrix out in two steps, one after the other, is faster
_NUMBERS = 1 << 20  # of the factors that are held together


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
    inner, wanted = metric(weight, action), _wanted(weight, action).flatten(0, 1)
    if weight.layer.columns <= EXACT_COLUMNS:
        return _by_kept(wanted, mask, inner)
    return _by_fewer(weight.matrix.double(), wanted, mask, inner, _inverse(weight, action))


def rough_fit(weight: Weight, mask: Tensor, action: Prune, near: Tensor) -> Tensor:
    """[rows, columns]: some digits of `fit`, from values [rows, columns] that are near to it; the other way faster.

    Raises:
        ActionError: the second moment was not measured.
    """
    if weight.layer.columns <= ROUGH_COLUMNS:
        return fit(weight, mask, action)
    inner, wanted, unit = weight.remember(("prune", "rough"), lambda: _single(weight, action))
    if weight.layer.columns > EXACT_COLUMNS:
        inverse = weight.remember(("prune", "rough inverse"), lambda: _inverse(weight, action).to(torch.float32))
        try:
            return unit * _by_fewer(weight.matrix / unit, wanted.flatten(0, 1), mask, inner, inverse)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # not named in its stubs; too few digits here
            return fit(weight, mask, action)
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


def _inverse(weight: Weight, action: Prune) -> Tensor:
    """G [groups, columns, columns]."""
    return weight.remember(
        ("prune", "inverse"), lambda: torch.cholesky_inverse(torch.linalg.cholesky(metric(weight, action)))
    )


def _by_fewer(matrix: Tensor, wanted: Tensor, mask: Tensor, inner: Tensor, inverse: Tensor) -> Tensor:
    """Each row by what it keeps or by what goes, whichever is less."""
    most = (2 * mask.sum(1) > mask.shape[1]).unsqueeze(1)
    found = _by_kept(wanted, mask & ~most, inner)
    return torch.where(most, _by_pruned(matrix, ~mask & most, inverse), found)


def _by_kept(wanted: Tensor, mask: Tensor, inner: Tensor) -> Tensor:
    """H_SS⁻¹ (H w)_S of wanted = H w [rows, columns], in the places that are kept."""
    found = torch.zeros_like(wanted)
    for some in _apart(mask, inner):
        some.put(torch.cholesky_solve(some.of(wanted).unsqueeze(2), some.lower).squeeze(2), found)
    return found


def _by_pruned(matrix: Tensor, pruned: Tensor, inverse: Tensor) -> Tensor:
    """w − G_:R G_RR⁻¹ w_R [rows, columns], 0 in R."""
    owed = torch.zeros_like(matrix)
    for some in _apart(pruned, inverse):
        some.put(torch.cholesky_solve(some.of(matrix).unsqueeze(2), some.lower).squeeze(2), owed)
    made_good = (owed.view(len(inverse), -1, matrix.shape[1]) @ inverse).view_as(matrix)
    return (matrix - made_good).masked_fill_(pruned, 0)


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
        inner = _cut(metric, group[rows], columns)
        least = int(counts[rows[-1]])  # the columns before are kept in all these rows
        inner[:, least:].masked_fill_(~real[:, least:].unsqueeze(2), 0)
        inner[:, :, least:].masked_fill_(~real[:, least:].unsqueeze(1), 0)
        inner.diagonal(dim1=1, dim2=2).masked_fill_(~real, 1)
        yield Factored(rows, columns, real, torch.linalg.cholesky(inner))


def _cut(metric: Tensor, group: Tensor, columns: Tensor) -> Tensor:
    """[R, m, m]: of each row its group's metric in its columns [R, m]."""
    if columns.shape[1] < _LARGE:
        return metric[group.view(-1, 1, 1), columns.unsqueeze(2), columns.unsqueeze(1)]
    own = zip(group.tolist(), columns, strict=True)
    return torch.stack([metric[g].index_select(0, some).index_select(1, some) for g, some in own])


def _together(mask: Tensor, metric: Tensor) -> Iterator[Factored]:
    """All rows of a group on all columns."""
    size = len(mask) // len(metric)
    for group, order in enumerate(_order(metric)):
        rows = torch.arange(group * size, (group + 1) * size, device=mask.device)
        lower = torch.linalg.cholesky(metric[group][order.unsqueeze(1), order])
        yield Factored(rows, order.expand(size, -1), mask[rows][:, order], lower.unsqueeze(0))


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
