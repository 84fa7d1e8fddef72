"""What can be trained of a packed network at no further bytes, as one vector of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from allocator.applier.packed import rescale
from allocator.applier.packed_units import Packed, packed_units
from allocator.applier.scaled import RowGains, running


class Trainable:
    """Numbers of a packed network: its parameters of one dimension, then the logarithms of the row gains.

    Parameters of one dimension are biases and the affine parameters of norms; frozen ones (requires_grad False) are
    left out. Each packed weight whose stored form takes a gain per row has one. A vector of these numbers is float64 on
    the CPU, whatever their own types and devices are.

    Attributes:
        parameters: of one dimension.
        gains: one for each packed weight, trained or not.
        start: the vector of the network as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        packed = packed_units(model)
        held = {id(one.buffer) for one in packed}
        self.parameters = [
            parameter
            for parameter in model.parameters()
            if parameter.dim() == 1
            and parameter.requires_grad
            and parameter.is_floating_point()
            and id(parameter) not in held
        ]
        self.gains = [RowGains(one, _scalable(one)) for one in packed]
        self._buffers = [one.buffer.detach().clone() for one in packed]
        self.start = torch.cat([_flat(tensor) for tensor in [torch.zeros(0), *self._leaves()]])

    def write(self, vector: Tensor) -> None:
        """Put the numbers in their stored place: parameters as they are, gains rounded with the scales they go into."""
        leaves = self._pieces(vector)
        with torch.no_grad():
            for parameter, values in zip(self.parameters, leaves, strict=False):
                parameter.copy_(values)
            logs = iter(leaves[len(self.parameters) :])
            for gains, buffer in zip(self.gains, self._buffers, strict=True):
                if gains.log is None:
                    continue
                made = rescale(buffer, gains.packed.action, gains.packed.layer, next(logs).exp())
                assert made is not None, "whether there is such a form depends on action and layer alone"
                gains.packed.buffer.copy_(made)

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[list[Tensor]]:
        """Inside, the network runs on these numbers unrounded; its leaves, for autograd, in the vector's order.

        Afterwards the packed layers are what they were, while parameters keep the numbers.
        """
        leaves = self._leaves()
        with torch.no_grad():
            for leaf, values in zip(leaves, self._pieces(vector), strict=True):
                leaf.copy_(values)
        with running(self.gains):
            yield leaves

    def gradient(self, loss: Tensor, leaves: list[Tensor]) -> Tensor:
        """∂loss of the leaves as a vector; 0 for those that take no part."""
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        pairs = zip(found, leaves, strict=True)
        return torch.cat([_flat(torch.zeros_like(leaf) if part is None else part) for part, leaf in pairs])

    def _leaves(self) -> list[Tensor]:
        return [*self.parameters, *(gains.log for gains in self.gains if gains.log is not None)]

    def _pieces(self, vector: Tensor) -> tuple[Tensor, ...]:
        return torch.split(vector, [leaf.numel() for leaf in self._leaves()])


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).to("cpu", torch.float64, copy=True)


def _scalable(packed: Packed) -> bool:
    ones = torch.ones(packed.layer.rows)
    return rescale(packed.buffer.detach(), packed.action, packed.layer, ones) is not None
