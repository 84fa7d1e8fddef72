"""The inputs of a layer as the vectors that its weight matrix multiplies, and their second moments."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.functional import pad

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ELEMENTS_AT_ONCE = 1 << 23
"""Numbers of patches or of second moments held at a time: 64 MB in float64."""


def groups_of(module: Module) -> int:
    """Blocks of the layer's matrix: each takes its own inputs to its own outputs."""
    return module.groups if isinstance(module, CONVOLUTIONS) else 1


def windows(module: Module, inputs: Tensor) -> Tensor:
    """What a convolution's kernel sees at every position [rows, groups, columns, positions]; columns as in the weight.

    A view in which every window is laid out, then one copy: several times faster than functional.unfold, and for any
    number of dimensions.
    """
    assert isinstance(module, CONVOLUTIONS)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = pad(inputs, module._reversed_padding_repeated_twice, mode=mode).contiguous()
    along, sizes = padded.stride()[2:], padded.shape[2:]
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    shape = [(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(sizes, kernel, dilation, stride, strict=True)]
    inside = [step * d for step, d in zip(along, dilation, strict=True)]
    between = [step * s for step, s in zip(along, stride, strict=True)]
    view = padded.as_strided((*padded.shape[:2], *kernel, *shape), (*padded.stride()[:2], *inside, *between))
    return view.reshape(len(inputs), module.groups, -1, math.prod(shape))


def patches(module: Module, inputs: Tensor) -> Tensor:
    """x [rows, groups, positions, columns] in float64: output = x · Wᵀ for W [outputs, columns] of each group.

    Args:
        module: nn.Linear or a convolution, or a layer of such inputs.
        inputs: what it is called with, [rows, …].
    """
    x = _batched(module, inputs).double()
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), 1, -1, module.in_features)
    return windows(module, x).transpose(2, 3)


def second_moments(module: Module, inputs: Tensor, samples: int) -> Iterator[Tensor]:
    """Σ x xᵀ over the positions of each sample [n, groups, columns, columns], some samples at a time, in order.

    Rows of the inputs are ``samples`` equal runs.
    """
    x = _batched(module, inputs)
    runs = x.reshape(samples, -1, *x.shape[1:])
    size = groups_of(module) * _weight(module)[0].numel() ** 2
    if not isinstance(module, nn.Linear):
        size *= runs.shape[1]
    step = max(1, ELEMENTS_AT_ONCE // max(_unfolded(module, runs[0]), size))
    for i in range(0, samples, step):
        part = runs[i : i + step]
        found = patches(module, part if isinstance(module, nn.Linear) else part.flatten(0, 1))
        moments = found.transpose(2, 3) @ found
        yield moments.reshape(len(part), -1, *moments.shape[1:]).sum(1)


def second_moment(module: Module, inputs: Tensor) -> Tensor:
    """Σ x xᵀ over all positions [groups, columns, columns]."""
    return moments(module, inputs)[1]


def moments(module: Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Σ x [groups, columns] and Σ x xᵀ [groups, columns, columns] over all positions."""
    groups, columns = groups_of(module), _weight(module)[0].numel()
    first = torch.zeros(groups, columns, dtype=torch.float64, device=inputs.device)
    second = torch.zeros(groups, columns, columns, dtype=torch.float64, device=inputs.device)
    rows = _batched(module, inputs)
    step = max(1, ELEMENTS_AT_ONCE // _unfolded(module, rows[:1]))
    for i in range(0, len(rows), step):
        x = patches(module, rows[i : i + step]).transpose(0, 1).reshape(groups, -1, columns)
        first += x.sum(1)
        second += x.transpose(1, 2) @ x
    return first, second


def counts(module: Module, inputs: Tensor, output: Tensor) -> int:
    """Positions of one call: vectors that the matrix multiplies, or lookups of an embedding."""
    return inputs.numel() if isinstance(module, nn.Embedding) else output.numel() // len(_weight(module))


def occurrences(module: nn.Embedding, inputs: Tensor) -> Tensor:
    """How often each row is looked up [rows], in float64."""
    return torch.bincount(inputs.flatten(), minlength=module.num_embeddings).double()


def _batched(module: Module, inputs: Tensor) -> Tensor:
    """With a first dimension of rows, which layers may be called without."""
    least = len(module.kernel_size) + 2 if isinstance(module, CONVOLUTIONS) else 2
    return inputs if inputs.dim() >= least else inputs.unsqueeze(0)


def _weight(module: Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _unfolded(module: Module, inputs: Tensor) -> int:
    """Numbers of the patches of some rows, at most (a stride makes them fewer)."""
    return max(1, inputs.numel() * _weight(module)[0, 0].numel())
