"""Rounding in which each column makes up for the errors of those before it: method gptq of `Quantize`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier.codes import Encoded, blocks, scale_dtype
from allocator.applier.curvature import Curvature, Numbers, curvature
from allocator.applier.scales import fit
from allocator.applier.weight import Weight

BLOCK = 64
"""Columns that are rounded before their errors go to the rest in one product."""
ROUNDS = 2
"""How often scales are fitted to the codes and the codes are improved one by one, after the first improvement."""


def encode_compensated(weight: Weight, action: Quantize) -> Encoded:
    """Codes and scales of a weight that make Σ_rows δ H δᵀ small, δ a row of W − Ŵ, H the damped E[x xᵀ].

    GPTQ (Frantar et al. 2022, arXiv 2210.17323): columns in order of falling H_jj, each rounded to the nearest code
    after the part of the earlier errors that it can make up for was added. Scales are found beforehand, for the error
    Σ_j H_jj (w_j − ŵ_j)². Then each code in turn takes the value that is best given all others, scales and minima take
    theirs given the codes, and codes again (coordinate descent: no step makes the error larger). Sums are float64.

    Raises:
        ActionError: the layer's input moment is missing or cannot be one.
    """
    found = curvature(weight, action)
    rounding = _Rounding(weight, action, found)
    rounding.feed_forward()
    rounding.descend()
    for _ in range(ROUNDS):
        rounding.refit()
        rounding.descend()
    return rounding.encoded()


class _Rounding:
    """A weight on its way to codes; arrays are [groups, columns in the order of the curvature, rows of a group].

    The weight of a code k is (stride · k − origin) · scale + minimum; scales and minima are [groups, scales of a row,
    rows of a group].
    """

    def __init__(self, weight: Weight, action: Quantize, found: Curvature) -> None:
        layer = weight.layer
        self.action, self.found, self.layer = action, found, layer
        self.shifted = action.scheme == "asymmetric"
        self.device = weight.matrix.device
        rows = layer.rows // layer.groups
        matrix = weight.matrix.cpu()
        self.weight = self._ordered(matrix.numpy().astype(np.float64))
        self.error = np.zeros_like(self.weight)
        self.codes = np.zeros(self.weight.shape, np.uint8)
        self.origin, self.stride, self.top = 0, 1, 2**action.bits - 1
        if action.scheme == "symmetric":
            self.origin, self.stride, self.top = (1, 2, 1) if action.bits == 1 else (self.top // 2, 1, self.top - 1)
        counts = np.repeat(found.importance.astype(np.float32), rows, 0)
        fitted = [
            fit(block, action, share)
            for block, share in zip(blocks(matrix, action), blocks(torch.from_numpy(counts), action), strict=True)
        ]
        self.scale = self._per_row([scale for scale, _ in fitted])
        self.minimum = self._per_row([low if low is not None else torch.zeros_like(scale) for scale, low in fitted])
        self.size = layer.columns if action.group_size is None else action.group_size
        shared = found.order // self.size
        # Which scale each place has: one for all groups where it is the same for all, so that no copy is needed.
        self.grid = [(slice(None), int(k[0])) if (k == k[0]).all() else (np.arange(len(k)), k) for k in shared.T]
        self.inverse = self._inverse()

    def feed_forward(self) -> None:
        """Round every column, in order, to the nearest code of w_j + Σ_{i<j} feed_ji (w_i − ŵ_i)."""
        feed = self.found.feed
        for start, stop in self._blocks():
            wanted = self.weight[:, start:stop] + feed[:, start:stop, :start] @ self.error[:, :start]
            for j in range(start, stop):
                self._round(j, wanted[:, j - start] + _mixed(feed[:, j, start:j], self.error[:, start:j]))

    def descend(self) -> None:
        """Give each code in turn the value of least error, all others as they are."""
        moment = self.found.moment
        for start, stop in self._blocks():
            slope = moment[:, start:stop] @ self.error
            moved = np.zeros_like(slope)
            for j in range(start, stop):
                before = self.error[:, j].copy()
                pull = slope[:, j - start] + _mixed(moment[:, j, start:j], moved[:, : j - start])
                self._round(j, self.weight[:, j] - before + pull / moment[:, j, j, None])
                moved[:, j - start] = self.error[:, j] - before

    def refit(self) -> None:
        """Give the scale and the minimum of each set of columns in turn the values of least error, codes as they are.

        The error of a row is quadratic in them; the two at once, rounded, and taken where they make it smaller.
        """
        for which in range(self.scale.shape[1]):
            places = self.found.place[:, which * self.size : (which + 1) * self.size]
            here = places[:, :, None]
            moment = np.take_along_axis(self.found.moment, here, 1)
            slope = moment @ self.error
            moment = np.take_along_axis(moment, places[:, None, :], 2)
            codes = np.take_along_axis(self.codes, here, 1) * float(self.stride) - self.origin
            sums = [(slope * codes).sum(1), (moment @ codes * codes).sum(1)]
            if self.shifted:
                ones = moment.sum(2)
                sums += [slope.sum(1), (ones[:, :, None] * codes).sum(1)]
                sums.append(np.broadcast_to(ones.sum(1)[:, None], sums[0].shape))
            scale, minimum = self._moved(which, sums)
            self.scale[:, which], self.minimum[:, which] = scale, minimum
            values = codes * scale[:, None] + minimum[:, None]
            np.put_along_axis(self.error, here, np.take_along_axis(self.weight, here, 1) - values, 1)
        self.inverse = self._inverse()

    def encoded(self) -> Encoded:
        """What was found, in the order of the weight."""
        codes = np.take_along_axis(self.codes, self.found.place[:, :, None], 1).transpose(0, 2, 1)
        numbers = [self.scale, self.minimum] if self.shifted else [self.scale]
        stored = [torch.from_numpy(part.transpose(0, 2, 1).reshape(self.layer.rows, -1).copy()) for part in numbers]
        if self.action.granularity == "tensor":
            stored = [part[:1] for part in stored]
        parts = [part.to(torch.float32).to(scale_dtype(self.action)).to(self.device) for part in stored]
        matrix = torch.from_numpy(codes.reshape(self.layer.rows, -1).copy()).to(self.device)
        return Encoded(matrix, parts[0], parts[1] if len(parts) > 1 else None)

    def _round(self, j: int, wanted: Numbers) -> None:
        """Take the codes next to the wanted weights [groups, rows of a group] for the column at place j."""
        grid = self.grid[j]
        codes = wanted - self.minimum[grid] if self.shifted else wanted
        codes = codes * self.inverse[grid]
        codes += self.origin / self.stride
        np.rint(codes, out=codes)
        np.minimum(np.maximum(codes, 0, out=codes), self.top, out=codes)
        self.codes[:, j] = codes
        codes *= self.stride
        codes -= self.origin
        codes *= self.scale[grid]
        if self.shifted:
            codes += self.minimum[grid]
        np.subtract(self.weight[:, j], codes, out=self.error[:, j])

    def _inverse(self) -> Numbers:
        """Codes per unit of weight; 0 where the scale is 0, so that such weights get the code of 0."""
        steps = self.scale * self.stride
        return np.divide(1.0, steps, out=np.zeros_like(steps), where=steps > 0)

    def _moved(self, which: int, sums: list[Numbers]) -> tuple[Numbers, Numbers]:
        """Scale and minimum after the step of least error, rounded to what can be stored."""
        scale, minimum = self.scale[:, which], self.minimum[:, which]
        if self.action.granularity == "tensor":
            sums = [np.broadcast_to(one.sum(), one.shape) for one in sums]
        slope, square = sums[0], sums[1]
        if len(sums) == 2:
            new = self._stored(scale + _ratio(slope, square)), minimum
            change = (new[0] - scale) ** 2 * square - 2 * (new[0] - scale) * slope
        else:
            _, _, fall, mixed, ones = sums
            steps = _ratio(slope * ones - fall * mixed, square * ones - mixed * mixed)
            new = self._stored(scale + steps), self._stored(minimum + _ratio(fall - steps * mixed, ones))
            s, m = new[0] - scale, new[1] - minimum
            change = s * s * square + 2 * s * m * mixed + m * m * ones - 2 * (s * slope + m * fall)
        better = (change < 0) & (new[0] > 0)
        return np.where(better, new[0], scale), np.where(better, new[1], minimum)

    def _stored(self, numbers: Numbers) -> Numbers:
        limit = torch.finfo(scale_dtype(self.action)).max
        kind = np.float16 if self.action.scale_dtype == "float16" else np.float32
        return np.clip(numbers, -limit, limit).astype(np.float32).astype(kind).astype(np.float64)

    def _ordered(self, matrix: Numbers) -> Numbers:
        blocked = matrix.reshape(self.layer.groups, -1, self.layer.columns).transpose(0, 2, 1)
        return np.take_along_axis(blocked, self.found.order[:, :, None], 1)

    def _per_row(self, parts: list[Tensor]) -> Numbers:
        numbers = torch.cat(parts, 1).double().expand(self.layer.rows, -1).numpy()
        blocked = numbers.reshape(self.layer.groups, -1, numbers.shape[1]).transpose(0, 2, 1)
        return np.ascontiguousarray(blocked)

    def _blocks(self) -> list[tuple[int, int]]:
        columns = self.layer.columns
        return [(start, min(start + BLOCK, columns)) for start in range(0, columns, BLOCK)]


def _mixed(shares: Numbers, errors: Numbers) -> Numbers:
    """Σ_i shares_i errors_i over the columns of a block: [groups, n] and [groups, n, rows] to [groups, rows]."""
    found: Numbers = (shares[:, None] @ errors)[:, 0]
    return found


def _ratio(top: Numbers, bottom: Numbers) -> Numbers:
    """top/bottom, 0 where bottom is not positive."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast_shapes(top.shape, bottom.shape)), where=bottom > 0)
