"""The scale and minimum of each block of weights: the full range, the least squared error, or analytic clipping."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier.clipping import reach
from allocator.applier.codes import codes_of, decode_, scale_dtype, signed_
from allocator.applier.stored_scales import narrow, narrow_reach

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


class _Search:
    """Blocks [·, groups, size] and the best scale and minimum (asymmetric) [·, groups] found for each so far.

    Squares of very large or small weights would leave float32: such blocks are taken in units of a power of two.
    """

    def __init__(self, block: Tensor, action: Quantize, weights: Tensor | None) -> None:
        self.action, self.weights = action, weights
        self.low, self.high = _range(block)
        self.centre = block.mean(-1, dtype=torch.float64)
        widest = torch.maximum(self.low.abs(), self.high.abs())
        modest = (widest == 0) | (widest >= _MODEST[0]) & (widest <= _MODEST[1])
        exponents = torch.frexp(widest).exponent.clamp(-126, 126).double()
        self.unit = torch.where(modest, 1.0, 2.0**-exponents).to(torch.float32)
        self.block = block if bool(modest.all()) else block * self.unit.unsqueeze(-1)
        self.scale, self.minimum = ranged(self.low, self.high, action)
        self.error = self._error(self.scale, self.minimum)

    def attempt(self, scale: Tensor, minimum: Tensor | None) -> Tensor:
        """Take what is better than the best so far; says where."""
        error = self._error(scale, minimum)
        better = error < self.error * (1 - GAIN)
        self.scale = torch.where(better, scale, self.scale)
        self.error = torch.where(better, error, self.error)
        if self.minimum is not None and minimum is not None:
            self.minimum = torch.where(better, minimum, self.minimum)
        return better

    def shrunken(self, power: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and minimum for RATIO^power of the range, shrunk about 0 (symmetric) or about the mean."""
        centre = torch.zeros_like(self.centre) if self.minimum is None else self.centre
        factor = RATIO**power
        return ranged(centre + (self.low - centre) * factor, centre + (self.high - centre) * factor, self.action)

    def refit(self) -> tuple[Tensor, Tensor | None]:
        """Scale and minimum of the least squared error for the codes that the best so far gives."""
        dtype = scale_dtype(self.action)
        codes = signed_(codes_of(self.block, *self._in_units(self.scale, self.minimum), self.action), self.action)
        code = torch.zeros_like(self.centre) if self.minimum is None else self._mean(codes)
        codes -= code.to(codes.dtype).unsqueeze(-1)
        product, square = self._mean(codes * self.block), self._mean(codes * codes)
        scale = narrow(torch.where(square > 0, product / square / self.unit, self.scale.double()), dtype)
        if self.minimum is None:
            return scale, None
        return scale, narrow(self._mean(self.block) / self.unit - scale.double() * code, dtype)

    def _error(self, scale: Tensor, minimum: Tensor | None) -> Tensor:
        scale, minimum = self._in_units(scale, minimum)
        codes = codes_of(self.block, scale, minimum, self.action)
        apart = decode_(codes, scale, minimum, self.action).sub_(self.block).square_()
        return (apart if self.weights is None else apart.mul_(self.weights)).sum(-1, dtype=torch.float64)

    def _in_units(self, scale: Tensor, minimum: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return scale * self.unit, None if minimum is None else minimum * self.unit

    def _mean(self, values: Tensor) -> Tensor:
        return _mean(values, self.weights)


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
        return ranged(*_range(block), action)
    if action.method == "aciq":
        return ranged(*_clipped(block, action), action)
    rows = max(1, _AT_ONCE // max(1, block[0].numel()))
    found = [
        _searched(block[at : at + rows], action, None if weights is None else weights[at : at + rows])
        for at in range(0, len(block), rows)
    ]
    minima = [one.minimum for one in found if one.minimum is not None]
    return torch.cat([one.scale for one in found]), torch.cat(minima) if minima else None


def _searched(block: Tensor, action: Quantize, weights: Tensor | None) -> _Search:
    search = _Search(block, action, weights)
    power = torch.zeros_like(search.low)
    for step in range(1, COARSE + 1):
        wanted = torch.full_like(power, step)
        power = torch.where(search.attempt(*search.shrunken(wanted)), wanted, power)
    for part in FINE:
        about = power
        for wanted in (about + part, about - part):
            power = torch.where(search.attempt(*search.shrunken(wanted)), wanted, power)
    for _ in range(REFITS):
        if not bool(search.attempt(*search.refit()).any()):
            break
    return search


def _range(block: Tensor) -> tuple[Tensor, Tensor]:
    return block.amin(-1).double(), block.amax(-1).double()


def _clipped(block: Tensor, action: Quantize) -> tuple[Tensor, Tensor]:
    low, high = _range(block)
    if action.scheme == "symmetric":
        top = reach(block, torch.zeros_like(low), 2**action.bits - 2)
        return low.clamp_min(-top), high.clamp_max(top)
    centre = block.mean(-1, dtype=torch.float64)
    top = reach(block, centre, 2**action.bits - 1)
    return torch.maximum(low, centre - top), torch.minimum(high, centre + top)


def ranged(low: Tensor, high: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None]:
    """Rounded scale and minimum (asymmetric) for ranges [low, high], float64."""
    # The range of zeros may come as −0, which is made 0.
    dtype = scale_dtype(action)
    if action.scheme == "symmetric":
        top = torch.maximum(-low, high).abs()
        return narrow_reach(top / (2 ** (action.bits - 1) - 1), dtype), None
    return narrow_reach(((high - low) / (2**action.bits - 1)).abs(), dtype), narrow(low + 0.0, dtype)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """float64 mean over the last dimension."""
    if weights is None:
        return values.mean(-1, dtype=torch.float64)
    return (values * weights).sum(-1, dtype=torch.float64) / weights.sum(-1, dtype=torch.float64)
