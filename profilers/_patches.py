"""The inputs of a layer as the vectors that its weight matrix multiplies, and their second moments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.functional import pad, unfold

ELEMENTS_AT_ONCE = 1 << 23
"""Numbers of patches or of second moments held at a time: 64 MB in float64."""


def groups_of(module: Module) -> int:
    """Blocks of the layer's matrix: each takes its own inputs to its own outputs."""
    return module.groups if isinstance(module, (nn.Conv1d, nn.Conv2d)) else 1


def patches(module: Module, inputs: Tensor) -> Tensor:
    """x [rows, groups, positions, columns] in float64: output = x · Wᵀ for W [outputs, columns] of each group.

    Args:
        module: nn.Linear, nn.Conv1d or nn.Conv2d, or a layer of such inputs.
        inputs: what it is called with, [rows, …].
    """
    x = _batched(module, inputs).double()
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), 1, -1, module.in_features)
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = pad(x, module._reversed_padding_repeated_twice, mode)
    flat = (1,) * (2 - len(module.kernel_size))
    x = x if not flat else x.unsqueeze(2)
    columns = unfold(x, flat + module.kernel_size, dilation=flat + module.dilation, stride=flat + module.stride)
    return columns.reshape(len(x), module.groups, -1, columns.shape[2]).transpose(2, 3)  # channels lie before kernel


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
    groups, columns = groups_of(module), _weight(module)[0].numel()
    total = torch.zeros(groups, columns, columns, dtype=torch.float64, device=inputs.device)
    rows = _batched(module, inputs)
    step = max(1, ELEMENTS_AT_ONCE // _unfolded(module, rows[:1]))
    for i in range(0, len(rows), step):
        x = patches(module, rows[i : i + step]).transpose(0, 1).reshape(groups, -1, columns)
        total += x.transpose(1, 2) @ x
    return total


def counts(module: Module, inputs: Tensor, output: Tensor) -> int:
    """Positions of one call: vectors that the matrix multiplies, or lookups of an embedding."""
    return inputs.numel() if isinstance(module, nn.Embedding) else output.numel() // len(_weight(module))


def occurrences(module: nn.Embedding, inputs: Tensor) -> Tensor:
    """How often each row is looked up [rows], in float64."""
    return torch.bincount(inputs.flatten(), minlength=module.num_embeddings).double()


def _batched(module: Module, inputs: Tensor) -> Tensor:
    """With a first dimension of rows, which layers may be called without."""
    least = len(module.kernel_size) + 2 if isinstance(module, (nn.Conv1d, nn.Conv2d)) else 2
    return inputs if inputs.dim() >= least else inputs.unsqueeze(0)


def _weight(module: Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _unfolded(module: Module, inputs: Tensor) -> int:
    """Numbers of the patches of some rows, at most (a stride makes them fewer)."""
    return max(1, inputs.numel() * _weight(module)[0, 0].numel())
