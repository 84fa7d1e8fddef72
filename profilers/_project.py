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

from profilers._patches import CONVOLUTIONS, groups_of, windows

STOCK = tuple(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding))
ELEMENTS_AT_ONCE = 1 << 19
"""Entries of per-sample gradients held at a time: 2 MB, which a processor's cache holds."""


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
        """The layer's output for another weight, of as many features as that has, and without its bias if so asked."""
        state = {"weight": weight}
        bias = getattr(self.module, "bias", None)
        if not biased and isinstance(bias, Tensor):
            state["bias"] = bias.new_zeros(len(weight))
        args, kwargs = self.others
        output: Tensor = functional_call(self.module, state, (inputs, *args), kwargs)
        return output

    @property
    def stock(self) -> bool:
        """Whether the output is known to be linear in the weight: torch's own forward, not a subclass's."""
        return type(self.module).forward in STOCK and "forward" not in self.module.__dict__


def projections(call: Call, cotangent: Tensor, samples: int, changes: Tensor) -> Tensor:
    """u [samples, F, C] for changes [C, *weight.shape], split by output feature: the cheaper way by multiplications.

    Summed over features it is ⟨g_n, Δ⟩. A feature is a row of the weight; of an embedding a column.

    Args:
        call: of the layer.
        cotangent: ∂s/∂y [rows, …]; rows are ``samples`` equal runs, one per sample.
        samples: N.
        changes: C changes of the weight.
    """
    if not by_gradients_is_cheaper(call, cotangent, samples, changes):
        return by_outputs(call, cotangent, samples, changes)
    parts = [by_gradients(call.module, part, changes) for part in gradients_by_sample(call, cotangent, samples)]
    return torch.cat([part.permute(1, 2, 0) for part in parts], 2).permute(2, 0, 1)  # as they lie in memory


def by_feature_and_sample(call: Call, cotangent: Tensor, samples: int) -> Tensor:
    """Σ over positions of the cotangent [samples, F]: the gradient, sample by sample, in something added to outputs."""
    place = -1 - len(call.module.kernel_size) if isinstance(call.module, CONVOLUTIONS) else -1
    moved = cotangent.movedim(place, -1)
    return moved.reshape(samples, -1, moved.shape[-1]).sum(1)


def by_gradients_is_cheaper(
    call: Call, cotangent: Tensor, samples: int, changes: Tensor, count: int | None = None
) -> bool:
    """Whether gradients by sample, then inner products, take fewer multiplications than a run of the layer per change.

    Always where the layer may not be linear in its weight: there only gradients are right. ``count``: of changes, where
    these are some of more.
    """
    weight, count = changes[0].numel(), count or len(changes)
    forward = multiplications(call, cotangent) / samples
    once = 2 * forward if isinstance(call.module, nn.Embedding) else forward
    return not call.stock or count * forward > once + count * weight


def by_outputs(call: Call, cotangent: Tensor, samples: int, changes: Tensor) -> Tensor:
    """u [samples, F, C] as ⟨∂s/∂y, layer(x; Δ)⟩: one run of the layer per change."""
    place = -1 - len(call.module.kernel_size) if isinstance(call.module, CONVOLUTIONS) else -1
    features = cotangent.shape[place]
    rows = []
    for change in changes:
        moved = (call(change, call.inputs, biased=False) * cotangent).movedim(place, -1)
        rows.append(moved.reshape(samples, -1, features).sum(1))
    return torch.stack(rows, 2)


def by_gradients(module: Module, gradients: Tensor, changes: Tensor) -> Tensor:
    """u [n, F, C] from gradients [n, *weight.shape]."""
    if isinstance(module, nn.Embedding):
        return torch.einsum("nvd,cvd->ndc", gradients, changes)
    rows = torch.bmm(changes.flatten(2).transpose(0, 1), gradients.flatten(2).permute(1, 2, 0))  # [F, C, n]
    return rows.permute(2, 0, 1)


def gradients_by_sample(call: Call, cotangent: Tensor, samples: int) -> Iterator[Tensor]:
    """∂s_n/∂W, some samples at a time, [n, *weight.shape]; together ``samples`` of them in order."""
    module = call.module
    weight = module.weight
    assert isinstance(weight, Tensor)
    if call.stock and isinstance(module, nn.Linear):
        x, dy = call.inputs.reshape(samples, -1, weight.shape[1]), cotangent.reshape(samples, -1, weight.shape[0])
        for part in _runs(samples, weight.numel()):
            yield torch.bmm(dy[part].transpose(1, 2), x[part])
    elif call.stock and isinstance(module, CONVOLUTIONS) and cotangent.dim() == weight.dim():
        rows = len(cotangent) // samples
        patches = weight[0].numel() * groups_of(module) * cotangent[:rows, 0].numel()
        for part in _runs(samples, max(weight.numel(), patches)):
            own = slice(part.start * rows, part.stop * rows)
            found = _convolution_gradients(module, call.inputs[own], cotangent[own])
            yield found if rows == 1 else found.reshape(-1, rows, *weight.shape).sum(1)
    else:
        inputs, outputs = call.inputs.chunk(samples), cotangent.chunk(samples)
        for part in _runs(samples, weight.numel()):
            pairs = zip(inputs[part], outputs[part], strict=True)
            yield torch.stack([_gradient(call, weight, x, dy) for x, dy in pairs])


def _runs(samples: int, elements: int) -> Iterator[slice]:
    """The samples in runs whose elements may be held at a time."""
    step = max(1, ELEMENTS_AT_ONCE // elements)
    for start in range(0, samples, step):
        yield slice(start, start + step)


def _convolution_gradients(module: Module, inputs: Tensor, cotangent: Tensor) -> Tensor:
    """∂s_row/∂W [rows, *weight.shape]: what the kernel saw at every output position, times the cotangents there."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    seen = windows(module, inputs)
    dy = cotangent.reshape(*seen.shape[:2], -1, seen.shape[3])
    return (dy @ seen.transpose(2, 3)).reshape(len(inputs), *weight.shape)


def _gradient(call: Call, weight: Tensor, inputs: Tensor, cotangent: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = weight.detach().requires_grad_()
        output = call(leaf, inputs)
    return torch.autograd.grad(output, leaf, cotangent)[0]


def multiplications(call: Call, cotangent: Tensor) -> int:
    """Of one run of the layer on all rows."""
    weight = call.module.weight
    assert isinstance(weight, Tensor)
    per_output = 1 if isinstance(call.module, nn.Embedding) else weight[0].numel()
    return cotangent.numel() * per_output
