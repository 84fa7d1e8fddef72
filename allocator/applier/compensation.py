"""Kept weights that take over what the pruned ones did, and are rounded with an eye on each other.

The choice: in rounds, each of which drops the least important of the weights as they were fitted after the one before
(`row_fit`), until as many are left as wanted. Chosen all at once, by what they were, they leave up to twice the error.

The rounding: with H_SS = L Lᵀ (L lower triangular) an error e of the fitted weights costs Σ_j (Σ_{i ≥ j} e_i L_ij)². So
values are settled from the last to the first: each becomes the code next to what would make its term zero, and what
lies between the two is left for those before it to make good. That is GPTQ's greedy rounding (Frantar et al. 2022,
arXiv 2210.17323) with its columns the other way round and no inverse.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from allocator.actions import Prune, Quantize
from allocator.applier.code_grid import Grid
from allocator.applier.coded_values import CodedValues, code_values
from allocator.applier.kept import most_important, saliency
from allocator.applier.row_fit import Factored, factored, fit, rough_fit
from allocator.applier.weight import LARGEST, Weight

ROUNDS = 8
"""In which weights are chosen: each keeps the same share of those that the one before left. Twice as many take twice as
long for 5 % less error."""
_BLOCK = 64  # columns that are settled one by one before the others hear of them


def chosen(weight: Weight, action: Prune) -> Tensor:
    """bool [rows, columns]: which weights are kept where those that are kept are fitted again.

    Raises:
        ActionError: the second moment was not measured.
    """
    key = "prune", "chosen", repr(replace(action, values=Quantize(bits=8), signs="within"))
    return weight.remember(key, lambda: _chosen(weight, action))


def _chosen(weight: Weight, action: Prune) -> Tensor:
    mask, values = torch.ones_like(weight.matrix, dtype=torch.bool), weight.matrix
    for stage in _stages(action):
        # With all of them kept the fit is the weight itself; later only the order of the values counts.
        values = values if mask.all() else rough_fit(weight, mask, action, values)
        mask = most_important(saliency(values, weight, action).masked_fill_(~mask, -1), stage, weight.layer)
    return mask


def _stages(action: Prune) -> list[Prune]:
    """The action with falling densities, itself last."""
    if action.density is not None:
        shares = [action.density ** (r / ROUNDS) for r in range(1, ROUNDS)] if action.density < 1 else []
        return [*(replace(action, density=share) for share in shares), action]
    assert action.keep is not None, "pattern n_m has it"
    assert action.block is not None, "likewise"
    shares = [(action.keep / action.block) ** (r / ROUNDS) for r in range(1, ROUNDS)]
    keeps = {round(action.block * share) for share in shares} | {action.keep}
    return [replace(action, keep=keep) for keep in sorted(keeps - {action.block}, reverse=True)]


def compensated(weight: Weight, mask: Tensor, action: Prune) -> Tensor | CodedValues:
    """The kept values of a weight in the order of their places: float32 [k], or codes where they are quantised.

    Args:
        weight: with the second moment of its inputs.
        mask: bool [rows, columns]: which are kept.
        action: how values are stored.

    Raises:
        ActionError: the second moment was not measured.
    """
    fitted = fit(weight, mask, action).clamp_(-LARGEST, LARGEST)
    values = fitted[mask].to(torch.float32)
    if not isinstance(action.values, Quantize):
        return values
    coded = code_values(values, mask, action, weight.layer)
    grid = Grid.of(coded, mask, action)
    found = torch.zeros_like(fitted)
    for some in factored(weight, mask, action):
        target, here = some.of(fitted), grid.at(some.rows, some.columns)
        nearest, settled = here.nearest(target), _settled(target, some, here)
        better = _cost(settled - target, some) < _cost(nearest - target, some)
        some.put(torch.where(better.unsqueeze(1), settled, nearest), found)
    signs = None if coded.signs is None else found[mask] >= 0
    return replace(coded, signs=signs, codes=grid.codes(found)[mask].to(torch.uint8))


def _cost(error: Tensor, rows: Factored) -> Tensor:
    """[R]: e L Lᵀ eᵀ of the kept weights' errors [R, m]."""
    return _times(error.masked_fill(~rows.real, 0), rows.lower).square().sum(1)


def _times(error: Tensor, lower: Tensor) -> Tensor:
    """[R, b] of [R, a] by [R, a, b], or by the one matrix [1, a, b] that all rows share."""
    return error @ lower[0] if len(lower) == 1 else (error.unsqueeze(1) @ lower).squeeze(1)


def _settled(target: Tensor, rows: Factored, grid: Grid) -> Tensor:
    """Values [R, m] on the grid for target values, settled from the last column to the first."""
    lower, pruned = rows.lower, ~rows.real
    values, error, pull = (torch.zeros_like(target) for _ in range(3))
    diagonal = lower.diagonal(dim1=1, dim2=2)
    for stop in range(target.shape[1], 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        for j in range(stop - 1, start - 1, -1):
            owed = pull[:, j] + (error[:, j + 1 : stop] * lower[:, j + 1 : stop, j]).sum(1)
            values[:, j] = grid.column(j).nearest(target[:, j] + owed / diagonal[:, j])
            error[:, j] = (target[:, j] - values[:, j]).masked_fill_(pruned[:, j], 0)
        if start:
            pull[:, :start] += _times(error[:, start:stop], lower[:, start:stop, :start])
    return values
