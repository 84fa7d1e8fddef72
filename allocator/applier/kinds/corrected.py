"""`corrected`: the bytes of another action, then a shift for each row, then (with variance) a gain for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from allocator.actions import Corrected, Keep, Layer, Part
from allocator.actions.corrected import NUMBER_BYTES
from allocator.applier.gains import rows_times
from allocator.applier.kinds.kind import FactoredKind, Kind, as_bytes, as_numbers, stored
from allocator.applier.kinds.own_forward import Through
from allocator.applier.moments import input_mean, input_moment
from allocator.applier.weight import Weight

_SEEN = 1e-6
"""Least variance of an output, relative to its second moment, that is told from none: statistics are float32."""


class CorrectedKind(Kind):
    """See `Corrected`; of an action whose weight is one matrix once it is unpacked."""

    def slow(self, action: Corrected) -> bool:
        """Its numbers take a product with the second moment."""
        return True

    def of(self, action: Corrected) -> Kind:
        """The kind below where the action inside is factored."""
        return _IN_PARTS if isinstance(_inside(action), FactoredKind) else self

    def store(self, weight: Weight, action: Corrected) -> Tensor:
        """The action's bytes, then the numbers."""
        return _stored(weight, action)

    def restore(self, buffer: Tensor, action: Corrected, layer: Layer) -> Tensor:
        """gain ⊙ Ŵ."""
        inner, numbers = _split(buffer, action, layer)
        matrix = _inside(action).restore(inner, action.action, layer)
        return matrix.mul_(numbers[1].unsqueeze(1)) if action.variance else matrix

    def shift(self, buffer: Tensor, action: Corrected, layer: Layer) -> Tensor | None:
        """The shifts."""
        return _split(buffer, action, layer)[1][0]

    def rescaled(self, buffer: Tensor, action: Corrected, layer: Layer, gain: Tensor) -> Tensor | None:
        """The gains times the gain, or the action inside in its own rescaled form; shifts stay."""
        at = len(buffer) - NUMBER_BYTES * action.numbers(layer)
        if not action.variance:
            made = _inside(action).rescaled(buffer[:at], action.action, layer, gain)
            return None if made is None else torch.cat([made, buffer[at:]])
        shifts, gains = as_numbers(buffer[at:], torch.float16).view(2, layer.rows, 1)
        return torch.cat([buffer[:at], as_bytes(shifts), as_bytes(rows_times(gains, gain))])


class CorrectedInPartsKind(FactoredKind):
    """See `Corrected`; of a factored action, whose parts are followed by `shift` and (with variance) `gain`."""

    def planned(self, action: Corrected, layer: Layer) -> tuple[Part, ...]:
        """Those of the action inside, then the numbers as columns."""
        column, half = Layer("linear", (layer.rows, 1)), Keep(dtype="float16")
        names = ("shift", "gain") if action.variance else ("shift",)
        return (*_inner(action).planned(action.action, layer), *(Part(name, column, half) for name in names))

    def row_part(self, action: Corrected) -> int | None:
        """The gains, or that of the action inside."""
        inner = _inner(action).row_part(action.action)
        if action.variance:
            return -1
        return inner if inner is None or inner >= 0 else inner - 1

    def through(self, action: Corrected) -> Through:
        """As the action inside, which is given no bias."""
        return _inner(action).through(action.action)

    def factors(self, weight: Weight, action: Corrected) -> Sequence[Tensor]:
        """Those of the action inside, then the numbers that correct its stored form."""
        inner = stored(weight, action.action)
        return (*_inner(action).factors(weight, action.action), *_columns(_numbers(weight, inner, action)))

    def store(self, weight: Weight, action: Corrected) -> Tensor:
        """The action's bytes, then the numbers."""
        return _stored(weight, action)

    def parts(self, buffer: Tensor, action: Corrected, layer: Layer) -> tuple[Tensor, ...]:
        """As `planned`."""
        inner, numbers = _split(buffer, action, layer)
        return (*_inner(action).parts(inner, action.action, layer), *_columns(numbers))

    def shift(self, buffer: Tensor, action: Corrected, layer: Layer) -> Tensor | None:
        """The shifts, which `run` adds itself."""
        return _split(buffer, action, layer)[1][0]

    def product(self, parts: Sequence[Tensor], action: Corrected, layer: Layer) -> Tensor:
        """gain ⊙ the product of the others."""
        if not action.variance:
            return _inner(action).product(parts[:-1], action.action, layer)
        return parts[-1] * _inner(action).product(parts[:-2], action.action, layer)

    def run(
        self,
        module: nn.Module,
        x: Tensor,
        parts: Sequence[Tensor],
        action: Corrected,
        layer: Layer,
        bias: Tensor | None,
    ) -> Tensor:
        """gain ⊙ what the others give, + shift + bias."""
        count = 2 if action.variance else 1
        out = _inner(action).run(module, x, parts[:-count], action.action, layer, None)
        numbers = [part.view(-1, *[1] * (len(layer.weight_shape) - 2)) for part in parts[-count:]]
        shift = numbers[0] if bias is None else numbers[0] + bias.view_as(numbers[0])
        return out * numbers[1] + shift if action.variance else out + shift


_IN_PARTS = CorrectedInPartsKind()


def _inside(action: Corrected) -> Kind:
    from allocator.applier.kinds import kind_of

    return kind_of(action.action)


def _inner(action: Corrected) -> FactoredKind:
    kind = _inside(action)
    assert isinstance(kind, FactoredKind), "`CorrectedKind.of` takes only such actions here"
    return kind


def _stored(weight: Weight, action: Corrected) -> Tensor:
    inner = stored(weight, action.action)
    return torch.cat([inner, as_bytes(_numbers(weight, inner, action))])


def _split(buffer: Tensor, action: Corrected, layer: Layer) -> tuple[Tensor, Tensor]:
    """The bytes of the action inside, and the numbers [1 or 2, rows] in float32."""
    at = len(buffer) - NUMBER_BYTES * action.numbers(layer)
    return buffer[:at], as_numbers(buffer[at:], torch.float16).view(-1, layer.rows).to(torch.float32)


def _columns(numbers: Tensor) -> Sequence[Tensor]:
    return numbers.to(torch.float32).unsqueeze(2).unbind(0)


def _numbers(weight: Weight, inner: Tensor, action: Corrected) -> Tensor:
    """float16 [1 or 2, rows]: the shifts, and with variance the gains, for the stored form of the action inside."""
    layer = weight.layer
    made = _inside(action).restore(inner, action.action, layer)
    was, now = (matrix.double().view(layer.groups, -1, layer.columns) for matrix in (weight.matrix, made))
    mean = input_mean(weight, action)
    gain: Any = 1.0
    numbers = []
    if action.variance:
        moment = input_moment(weight, action)
        half = _halves(_spread_ratio(_spread(was, moment, mean), _spread(now, moment, mean)))
        numbers, gain = [half.flatten()], half.double().unsqueeze(2)
    shift = ((was - gain * now) @ mean.unsqueeze(2)).flatten()
    return torch.stack([_halves(shift), *numbers])


def _spread(rows: Tensor, moment: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and second moment of the outputs [groups, rows/groups]."""
    square = (rows @ moment * rows).sum(2)
    return square - (rows @ mean.unsqueeze(2)).squeeze(2).square(), square


def _spread_ratio(was: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> Tensor:
    """√ of the variances' ratio, 1 where either is none."""
    seen = (was[0] > _SEEN * was[1]) & (now[0] > _SEEN * now[1])
    return torch.where(seen, was[0] / now[0], 1.0).sqrt()


def _halves(numbers: Tensor) -> Tensor:
    top = torch.finfo(torch.float16).max
    return numbers.clamp(-top, top).to(torch.float16)
