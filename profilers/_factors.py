"""Second moments of what goes into a layer and of what arrives at its outputs: the factors of K-FAC."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from allocator.applier.layers import kind_of
from allocator.errors import UsageError
from profilers._patches import CONVOLUTIONS, windows
from profilers._plan import Target
from profilers._project import Call


@dataclass(eq=False)
class Factors:
    """Sums over the rows (samples × places) of one module's calls in one piece of data; g groups.

    Attributes:
        inputs: Σ a aᵀ [g, I, I], or how often each row was looked up, [V] of an embedding.
        outputs: Σ ∂s/∂y ∂s/∂yᵀ [g, O/g, O/g], a mean over the cotangents.
        rows: how many.
    """

    inputs: Tensor
    outputs: Tensor
    rows: float = 0.0


@dataclass(eq=False)
class Gathering:
    """Takes in what hooks see in the passes of one piece; ``passes`` cotangents are sent back one after the other."""

    passes: int
    found: dict[nn.Module, Factors] = field(default_factory=dict)
    first: bool = True

    def arrive(self, target: Target, call: Call, cotangent: Tensor) -> None:
        """Add one call's inputs, on the first pass, and the gradient of its output.

        Raises:
            UsageError: a layer that is not linear in its weight, so that its gradient is no outer product.
        """
        if not call.stock:
            raise UsageError(
                f"layer {target.name} has a forward of its own ({type(call.module).__name__}), so that its gradient "
                "need not be an outer product of input and output gradient. Skip it with a rule "
                f'{{"modules": "{target.unit.modules[0]}", "choices": "skip"}}, or use the profiler ggn'
            )
        own = self.found.get(call.module)
        if own is None:
            own = self.found[call.module] = _empty(target, call.module)
        gradients = _outputs(call.module, cotangent)
        own.outputs += gradients @ gradients.transpose(1, 2) / self.passes
        if self.first:
            own.rows += gradients.shape[2]
            if isinstance(call.module, nn.Embedding):
                own.inputs += torch.bincount(call.inputs.reshape(-1), minlength=len(own.inputs))
            else:
                inputs = _inputs(call.module, call.inputs)
                own.inputs += inputs @ inputs.transpose(1, 2)


def elements(target: Target) -> int:
    """Numbers in the factors of all modules of a target."""
    return sum(factor.numel() for module in target.modules for factor in _shapes(target, module))


def _shapes(target: Target, module: nn.Module) -> tuple[Tensor, Tensor]:
    """Factors of the right shapes that hold no memory."""
    rows, columns = target.layer.rows, target.layer.columns
    if kind_of(module) == "embedding":
        return torch.empty(rows, device="meta"), torch.empty(1, columns, columns, device="meta")
    groups = target.layer.groups
    outputs = torch.empty(groups, rows // groups, rows // groups, device="meta")
    return torch.empty(groups, columns, columns, device="meta"), outputs


def _empty(target: Target, module: nn.Module) -> Factors:
    inputs, outputs = (torch.zeros_like(factor, device=target.unit.weight.device) for factor in _shapes(target, module))
    return Factors(inputs, outputs)


def _outputs(module: nn.Module, cotangent: Tensor) -> Tensor:
    """[g, O/g, rows]."""
    if not isinstance(module, CONVOLUTIONS):
        return cotangent.reshape(-1, cotangent.shape[-1]).T.unsqueeze(0)
    spatial = len(module.kernel_size)
    batched = cotangent.reshape(-1, module.out_channels, *cotangent.shape[-spatial:]).flatten(2)
    return _by_group(batched, module.groups)


def _inputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """[g, I, rows]: patches of a convolution, in the order of the weight's columns."""
    if not isinstance(module, CONVOLUTIONS):
        return inputs.reshape(-1, inputs.shape[-1]).T.unsqueeze(0)
    rows = inputs.reshape(-1, module.in_channels, *inputs.shape[-len(module.kernel_size) :])
    return windows(module, rows).permute(1, 2, 0, 3).flatten(2)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """[N, g·K, L] to [g, K, N·L]."""
    split = values.reshape(len(values), groups, -1, values.shape[2])
    return split.permute(1, 2, 0, 3).flatten(2)


def grouped(target: Target, module: nn.Module, delta: Tensor) -> Tensor:
    """Δ as the factors see it, in float64: [g, O/g, I], or [V, width] of an embedding."""
    matrix = delta.double().reshape(target.layer.rows, target.layer.columns)
    if kind_of(module) == "embedding":
        return matrix
    return matrix.reshape(target.layer.groups, -1, target.layer.columns)


def quadratic(change: Tensor, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """tr(Δᵀ G Δ A) and its derivatives in A and in G, of their own shapes; all in float64."""
    if inputs.dim() == 1:
        through = ((change @ outputs[0]) * change).sum(1)
        return inputs @ through, through, ((change.T * inputs) @ change).unsqueeze(0)
    by_inputs = change.transpose(1, 2) @ outputs @ change
    by_outputs = change @ inputs @ change.transpose(1, 2)
    return (by_inputs * inputs).sum(), by_inputs, by_outputs
