"""Codes and scales of a weight matrix in a number format, and what they stand for: the arithmetic of `NumberFormat`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import NumberFormat
from allocator.applier.elements import ELEMENTS
from allocator.applier.stored_scales import narrow, narrow_reach, power, power_below

REACHES = {
    "nf4": tuple(sign * 2 ** (k / 8) for k in range(3, -25, -1) for sign in (1, -1)),
    "fp8_e4m3": tuple(2 ** (k / 16) for k in range(16)),
    "fp8_e5m2": tuple(2 ** (k / 16) for k in range(16)),
}
"""What method mse tries in place of max|w|, relative to it. Clipping gains nothing in fp8, whose error repeats with
every doubling of the scale until values get subnormal; nf4 is finest around zero and may gain by clipping or by leaving
its ends unused."""
REFITS = 2
TWN = 0.7
"""Threshold of ternary weights by TWN, relative to mean|w|."""
_MX_SHIFT, _MX_LAST = 2, 254  # exponent of E2M1's largest value; the largest byte of E8M0 that is a number
_CHUNK = 1 << 16  # weights worked on at a time: they stay in the cache while scales are tried

DTYPES = {None: torch.uint8, "float16": torch.float16, "float32": torch.float32}
"""Dtype of the scales by `scale_dtype`; the powers of two of mxfp4 are bytes."""


@dataclass(frozen=True)
class Coded:
    """A matrix in a number format: codes uint8 [rows, columns], scales as stored [`NumberFormat.scale_shape`]."""

    codes: Tensor
    scales: Tensor


def encode(matrix: Tensor, action: NumberFormat, importance: Tensor | None = None) -> Coded:
    """Round a contiguous float32 matrix [rows, columns], finite, as `NumberFormat` says.

    Codes are exact functions of the weights and the rounded scales; sums behind scales are float64, so that the number
    of threads does not show. ``importance`` [rows, columns]: weights of the squared errors, for method mse.
    """
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    every = (matrix, codes) if importance is None else (matrix, codes, importance)
    scales: list[list[Tensor]] = []
    for fresh, (block, code, *weights) in _blocks(action, *every):
        scale, halfway = _fit(block, action, weights[0] if weights else None)
        code.copy_(ELEMENTS[action.format].codes(block / _divisor(halfway)))
        if fresh:
            scales.append([])
        scales[-1].append(scale)
    return Coded(codes, torch.cat([torch.cat(row, 1) for row in scales]))


def decode(coded: Coded, action: NumberFormat) -> Tensor:
    """float32 [rows, columns]: scale · value."""
    matrix = ELEMENTS[action.format].values(coded.codes)
    steps = _step(coded.scales)
    if action.block is None:
        return matrix.mul_(steps)
    rows, count = matrix.shape[0], matrix.shape[1] // action.block
    full = count * action.block
    matrix[:, :full].view(rows, count, action.block).mul_(steps[:, :count].unsqueeze(-1))
    matrix[:, full:].mul_(steps[:, count:])
    return matrix


def _blocks(action: NumberFormat, *matrices: Tensor) -> Iterator[tuple[bool, list[Tensor]]]:
    """Views [rows, blocks, size] whose last dimension shares a scale, some rows at a time; a ragged end comes apart.

    The first entry says whether the rows are new.
    """
    if action.granularity == "tensor":
        matrices = tuple(matrix.reshape(1, -1) for matrix in matrices)
    rows, columns = matrices[0].shape
    size = action.block or columns
    count = columns // size
    full = count * size
    at_once = max(1, _CHUNK // columns)
    for top in range(0, rows, at_once):
        some = [matrix[top : top + at_once] for matrix in matrices]
        if full:
            yield True, [matrix[:, :full].view(-1, count, size) for matrix in some]
        if full < columns:
            yield not full, [matrix[:, full:].unsqueeze(1) for matrix in some]


def _step(scale: Tensor) -> Tensor:
    return power(scale) if scale.dtype == torch.uint8 else scale.to(torch.float32)


def _divisor(scale: Tensor) -> Tensor:
    """What weights are divided by, [rows, blocks, 1]; a scale of 0 makes every quotient 0."""
    step = _step(scale)
    return step.masked_fill(step == 0, torch.inf).unsqueeze(-1)


def _fit(block: Tensor, action: NumberFormat, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scales [rows, blocks] as they are stored, and what the weights are divided by to be rounded: mostly the same."""
    if action.format == "ternary" and action.method == "twn":
        return _by_threshold(block, action)
    if action.format == "ternary":
        found = _best_trits(block, action, importance)
    elif action.method == "mse":
        found = _least(block, action, importance)
    else:
        found = next(_tried(block, action))
    return found, found


def _tried(block: Tensor, action: NumberFormat) -> Iterator[Tensor]:
    """The scale by max|w|, or all that method mse chooses from."""
    reach = block.abs().amax(-1)
    if action.format == "mxfp4":
        byte = (power_below(reach) - _MX_SHIFT).clamp_min(0)
        yield byte.to(torch.uint8)
        yield (byte + 1).clamp_max(_MX_LAST).to(torch.uint8)
        return
    scale = reach.double() / ELEMENTS[action.format].largest
    for factor in REACHES[action.format] if action.method == "mse" else (1.0,):
        yield narrow_reach(scale * factor, DTYPES[action.scale_dtype])


def _least(block: Tensor, action: NumberFormat, importance: Tensor | None) -> Tensor:
    """The scale of least squared error among those tried, then fitted to the codes that it leads to."""
    best, least = None, torch.empty(0)
    for scale in _tried(block, action):
        if best is not None and bool((_clipped(block, scale, action, importance) >= least).all()):
            break  # what follows clips still more
        error = _error(block, scale, action, importance)[0]
        if best is None:
            best, least = scale, error
        else:
            better = error < least
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
    assert best is not None
    for _ in range(0 if action.format == "mxfp4" else REFITS):
        scale = _fitted(block, _error(block, best, action, importance)[1], best, importance)
        error = _error(block, scale, action, importance)[0]
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _clipped(block: Tensor, scale: Tensor, action: NumberFormat, importance: Tensor | None) -> Tensor:
    """The squared error of the largest weight alone if it is beyond the largest value: no error is less."""
    reach, at = block.abs().max(-1)
    beyond = (reach.double() - ELEMENTS[action.format].largest * _step(scale).abs()).clamp_min(0).square()
    return beyond if importance is None else beyond * importance.gather(-1, at.unsqueeze(-1)).squeeze(-1)


def _error(block: Tensor, scale: Tensor, action: NumberFormat, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared errors [rows, blocks], and the values that the weights are rounded to, before the scale."""
    elements = ELEMENTS[action.format]
    x = block / _divisor(scale)
    values = elements.values(elements.codes(x))
    error = x.sub_(values).square_()
    if importance is not None:
        error.mul_(importance)
    # In units of the scale, so that no square leaves float32.
    return error.sum(-1, dtype=torch.float64) * _step(scale).double().square(), values


def _fitted(block: Tensor, values: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
    """The scale of least squared error for given values, Σ w·value / Σ value²; the old one where there is none."""
    wide = values.double()
    weighed = wide if importance is None else wide * importance
    fitted = narrow((weighed * block).sum(-1) / (weighed * wide).sum(-1), scale.dtype)
    return torch.where(fitted.isfinite() & (fitted != 0), fitted, scale)


def _by_threshold(block: Tensor, action: NumberFormat) -> tuple[Tensor, Tensor]:
    """Method twn: the mean of what lies beyond the threshold, and twice the threshold."""
    size = block.abs()
    twice = (2 * TWN * size.mean(-1, dtype=torch.float64)).to(torch.float32)
    beyond = size / _divisor(twice) > 0.5  # as `Trits` decides
    total = size.masked_fill_(~beyond, 0).sum(-1, dtype=torch.float64)
    return narrow(total / beyond.sum(-1).clamp_min(1), DTYPES[action.scale_dtype]), twice


def _best_trits(block: Tensor, action: NumberFormat, importance: Tensor | None) -> Tensor:
    """The scale s whose nearest codes have the least squared error Σ v (w − s·t)².

    For given codes that is Σ v w² − (Σ v|w|)² / Σ v, the last two sums over those kept, at s = Σ v|w| / Σ v; and kept
    are those with |w| > s/2: the largest, whatever their weights v.
    """
    sizes, order = block.abs().sort(-1, descending=True)
    if importance is None:
        kept = torch.arange(1, sizes.shape[-1] + 1, dtype=torch.float64, device=sizes.device).expand_as(sizes)
        total = sizes.cumsum(-1, dtype=torch.float64)
    else:
        weights = importance.gather(-1, order)
        kept = weights.cumsum(-1, dtype=torch.float64)
        total = (weights.double() * sizes).cumsum(-1)
    best = (total.square() / kept).argmax(-1, keepdim=True)
    return narrow((total.gather(-1, best) / kept.gather(-1, best)).squeeze(-1), DTYPES[action.scale_dtype])
