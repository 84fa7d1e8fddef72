"""Gradients of the log-likelihood in the logits, for labels drawn from the network itself and for the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.protocol import Batch, Task


def drawn(logits: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """onehot(y) − p with y drawn from p = softmax(logits) at every position, 0 where the mask is False.

    [N, …positions, K] like the logits. E[v vᵀ] = diag p − p pᵀ, the Fisher matrix of the position in its logits.
    """
    p = torch.softmax(logits.detach(), -1)
    flat = p.reshape(-1, p.shape[-1])
    labels = torch.multinomial(flat, 1, generator=generator)
    v = flat.neg().scatter_add_(1, labels, torch.ones_like(flat[:, :1])).view_as(p)
    return v if mask is None else v.mul_(mask.unsqueeze(-1))


def true(task: Task, logits: Tensor, batch: Batch) -> Tensor:
    """∂/∂logits of the task's loss, *summed* over the positions that count; [N, …positions, K].

    A sample's loss is a function of its own logits, so that the rows of one sample are its own gradient.

    Raises:
        UsageError: the task's loss does not carry gradients.
    """
    mask = task.mask(batch)
    positions = logits[..., 0].numel() if mask is None else int(mask.sum())
    if not positions:
        return torch.zeros_like(logits)  # nothing but padding: its mean loss would be 0/0
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = task.loss(leaf, batch)
    if not loss.requires_grad:
        raise UsageError(
            f"the loss of task {task.name} carries no gradient: compute it from the logits by differentiable "
            "operations, without detach, no_grad or .item()"
        )
    return torch.autograd.grad(loss, leaf)[0] * positions
