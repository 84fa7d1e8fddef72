"""The scale and minimum of each block of weights: the full range, the least squared error, or analytic clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier.clipping import reach
from allocator.applier.codes import codes_of, decode_, narrow, round_scale, scale_dtype, signed_

RATIO = 0.85
COARSE = 14
"""The search shrinks the range to RATIO^0 … RATIO^COARSE of it, a tenth: outliers are as far out as that."""
FINE = (0.5, 0.25, 0.125, 0.0625)
"""Then it tries such parts of a step to either side of the best, one after the other."""
REFITS = 8
"""At most so often the scale is fitted to its codes and the codes are taken anew; nearly all stand still before."""
GAIN = 1e-9
"""Share of the error that a change must save to be made: less could hang on the order of a sum."""

_AT_ONCE = 1 << 16  # weights searched at a time: the temporaries stay in the cache
_MODEST = 2.0**-40, 2.0**40  # largest weights whose squares float32 holds, with room


@dataclass
class _Found:
    """The best so far of each block: scale, minimum (asymmetric) and their error [·, groups]."""

    scale: Tensor
    minimum: Tensor | None
    error: Tensor

    def take(self, scale: Tensor, minimum: Tensor | None, error: Tensor) -> Tensor:
        """Replace what is improved upon; says where."""
        better = error < self.error * (1 - GAIN)
        self.scale = torch.where(better, scale, self.scale)
        self.error = torch.where(better, error, self.error)
        if self.minimum is not None and minimum is not None:
            self.minimum = torch.where(better, minimum, self.minimum)
        return better


def fit(block: Tensor, action: Quantize, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Scale and minimum (asymmetric) [·, groups] in the scale dtype for float32 blocks [·, groups, size].

    `rtn`: the full range. `aciq`: the range that `allocator.applier.clipping` says, within the full one. `mse` and
    `gptq`: the least Σ weights·(w − ŵ)² over shrunken ranges, RATIO apart and then closer about the best, and over the
    least-squares fit of scale and minimum to the codes, codes and fit in turn until nothing is gained; never worse than
    the full range. Symmetric codes of 1 bit: Σ weights·|w| / Σ weights, which is the least for any method.

    Args:
        block: the weights that share a scale, in the last dimension.
        action: how they are stored.
        weights: of the squared errors, float32 of block's shape, positive, about 1; None: all the same.
    """
    if action.scheme == "symmetric" and action.bits == 1:
        return narrow(_mean(block.abs(), weights), scale_dtype(action)), None
    if action.method == "rtn":
        return _ranged(*_range(block), action)
    if action.method == "aciq":
        return _ranged(*_clipped(block, action), action)
    rows = max(1, _AT_ONCE // max(1, block[0].numel()))
    found = [
        _search(block[at : at + rows], action, None if weights is None else weights[at : at + rows])
        for at in range(0, len(block), rows)
    ]
    minima = [one.minimum for one in found if one.minimum is not None]
    return torch.cat([one.scale for one in found]), torch.cat(minima) if minima else None


def _search(block: Tensor, action: Quantize, weights: Tensor | None) -> _Found:
    low, high = _range(block)
    widest = torch.maximum(low.abs(), high.abs())
    if bool(((widest < _MODEST[0]) & (widest > 0) | (widest > _MODEST[1])).any()):
        block = block.double()
    scale, minimum = _ranged(low, high, action)
    found = _Found(scale, minimum, _error(block, scale, minimum, action, weights))
    power = torch.zeros_like(low)
    centre = block.mean(-1, dtype=torch.float64)

    def attempt(wanted: Tensor) -> Tensor:
        scale, minimum = _ranged(*_shrunken(low, high, centre, RATIO**wanted, action), action)
        better = found.take(scale, minimum, _error(block, scale, minimum, action, weights))
        return torch.where(better, wanted, power)

    for step in range(1, COARSE + 1):
        power = attempt(torch.full_like(low, step))
    for part in FINE:
        about = power
        for side in (part, -part):
            power = attempt(about + side)
    for _ in range(REFITS):
        scale, minimum = _refit(block, found, action, weights)
        if not bool(found.take(scale, minimum, _error(block, scale, minimum, action, weights)).any()):
            break
    return found


def _range(block: Tensor) -> tuple[Tensor, Tensor]:
    return block.amin(-1).double(), block.amax(-1).double()


def _shrunken(low: Tensor, high: Tensor, centre: Tensor, factor: Tensor, action: Quantize) -> tuple[Tensor, Tensor]:
    """The range shrunk about 0 (symmetric) or about its centre."""
    if action.scheme == "symmetric":
        return low * factor, high * factor
    return centre + (low - centre) * factor, centre + (high - centre) * factor


def _clipped(block: Tensor, action: Quantize) -> tuple[Tensor, Tensor]:
    low, high = _range(block)
    if action.scheme == "symmetric":
        top = reach(block, torch.zeros_like(low), 2**action.bits - 2)
        return low.clamp_min(-top), high.clamp_max(top)
    centre = block.mean(-1, dtype=torch.float64)
    top = reach(block, centre, 2**action.bits - 1)
    return torch.maximum(low, centre - top), torch.minimum(high, centre + top)


def _ranged(low: Tensor, high: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None]:
    """Rounded scale and minimum for the range [low, high]."""
    dtype = scale_dtype(action)
    if action.scheme == "symmetric":
        return round_scale(torch.maximum(-low, high) / (2 ** (action.bits - 1) - 1), dtype), None
    return round_scale((high - low) / (2**action.bits - 1), dtype), narrow(low, dtype)


def _refit(block: Tensor, found: _Found, action: Quantize, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scale and minimum of the least squared error for the codes that they give; unrounded ones, then rounded."""
    dtype = scale_dtype(action)
    codes = signed_(codes_of(block, found.scale, found.minimum, action), action)
    if action.scheme == "symmetric":
        product, square = _mean(codes * block, weights), _mean(codes * codes, weights)
        return narrow(torch.where(square > 0, product / square, found.scale.double()), dtype), None
    code, value = _mean(codes, weights), _mean(block, weights)
    codes -= code.to(codes.dtype).unsqueeze(-1)
    product, square = _mean(codes * block, weights), _mean(codes * codes, weights)
    scale = narrow(torch.where(square > 0, product / square, found.scale.double()), dtype)
    return scale, narrow(value - scale.double() * code, dtype)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """float64 mean over the last dimension."""
    if weights is None:
        return values.mean(-1, dtype=torch.float64)
    return (values * weights).sum(-1, dtype=torch.float64) / weights.sum(-1, dtype=torch.float64)


def _error(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize, weights: Tensor | None) -> Tensor:
    apart = decode_(codes_of(block, scale, minimum, action), scale, minimum, action).sub_(block).square_()
    return (apart if weights is None else apart.mul_(weights)).sum(-1, dtype=torch.float64)
