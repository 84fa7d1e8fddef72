"""Inner products of a layer's weight gradient, sample by sample, with given changes of the weight.

For one call y = layer(x; W) and a cotangent ∂/∂y of some scalar s, every sample n has its own gradient
g_n = ∂s_n/∂W, and a change Δ of the weight moves s_n by u_n = ⟨g_n, Δ⟩ = ⟨∂s_n/∂y, layer(x; Δ)⟩ to first order
(bias aside, since these layers are linear in their weight). The two sides are the two ways to compute it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Module

STOCK = tuple(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding))
ELEMENTS_AT_ONCE = 1 << 24
"""Entries of per-sample gradients held at a time (64 MB)."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer: its inputs, as they were.

    Attributes:
        module: the layer.
        inputs: the first positional argument [rows, …], a private copy.
        others: the other arguments.
    """

    module: Module
    inputs: Tensor
    others: tuple[tuple[Any, ...], dict[str, Any]]

    def __call__(self, weight: Tensor, inputs: Tensor, *, biased: bool = True) -> Tensor:
        """The layer's output for another weight, and without its bias if so asked."""
        state = {"weight": weight}
        bias = getattr(self.module, "bias", None)
        if not biased and isinstance(bias, Tensor):
            state["bias"] = torch.zeros_like(bias)
        args, kwargs = self.others
        output: Tensor = functional_call(self.module, state, (inputs, *args), kwargs)
        return output

    @property
    def linear(self) -> bool:
        """Whether the output is known to be linear in the weight: torch's own forward, not a subclass's."""
        return type(self.module).forward in STOCK and "forward" not in self.module.__dict__


def projections(call: Call, cotangent: Tensor, samples: int, changes: Tensor) -> Tensor:
    """u [samples, C] for changes [C, *weight.shape]: the cheaper way, by count of multiplications.

    Args:
        call: of the layer.
        cotangent: ∂s/∂y [rows, …]; rows are ``samples`` equal runs, one per sample.
        samples: N.
        changes: C changes of the weight.
    """
    weight, count = changes[0].numel(), len(changes)
    forward = _multiplications(call, cotangent) / samples
    once = forward if _plain_linear(call.module) else 2 * forward
    if call.linear and count * forward <= once + count * weight:
        return by_outputs(call, cotangent, samples, changes)
    flat = changes.flatten(1)
    parts = [gradients.flatten(1) @ flat.T for gradients in gradients_by_sample(call, cotangent, samples)]
    return torch.cat(parts)


def by_outputs(call: Call, cotangent: Tensor, samples: int, changes: Tensor) -> Tensor:
    """u [samples, C] as ⟨∂s/∂y, layer(x; Δ)⟩: one run of the layer per change."""
    rows = [(call(change, call.inputs, biased=False) * cotangent).reshape(samples, -1).sum(1) for change in changes]
    return torch.stack(rows, 1)


def gradients_by_sample(call: Call, cotangent: Tensor, samples: int) -> Iterator[Tensor]:
    """∂s_n/∂W, some samples at a time, [n, *weight.shape]; together ``samples`` of them in order."""
    weight = call.module.weight
    assert isinstance(weight, Tensor)
    step = max(1, ELEMENTS_AT_ONCE // weight.numel())
    if _plain_linear(call.module):
        x = call.inputs.reshape(samples, -1, weight.shape[1])
        dy = cotangent.reshape(samples, -1, weight.shape[0])
        for i in range(0, samples, step):
            yield torch.bmm(dy[i : i + step].transpose(1, 2), x[i : i + step])
        return
    inputs, outputs = call.inputs.chunk(samples), cotangent.chunk(samples)
    for i in range(0, samples, step):
        pairs = zip(inputs[i : i + step], outputs[i : i + step], strict=True)
        yield torch.stack([_gradient(call, weight, x, dy) for x, dy in pairs])


def _gradient(call: Call, weight: Tensor, inputs: Tensor, cotangent: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = weight.detach().requires_grad_()
        output = call(leaf, inputs)
    return torch.autograd.grad(output, leaf, cotangent)[0]


def _plain_linear(module: Module) -> bool:
    return type(module).forward is nn.Linear.forward and "forward" not in module.__dict__


def _multiplications(call: Call, cotangent: Tensor) -> int:
    """Of one run of the layer on all rows."""
    weight = call.module.weight
    assert isinstance(weight, Tensor)
    per_output = 1 if isinstance(call.module, nn.Embedding) else weight[0].numel()
    return cotangent.numel() * per_output
