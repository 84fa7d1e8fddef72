"""The true loss's Hessian over all weights of a plan, dense and in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

from allocator.applier.layers import units
from allocator.tasks.causal_lm import CausalLm
from allocator.tasks.positions import cross_entropy
from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Differentiable(CausalLm):
    """A language model whose loss keeps its graph, whatever the built-in one does."""

    def loss(self, logits: Tensor, batch: object) -> Tensor:
        ids = batch["input_ids"] if isinstance(batch, dict) else batch
        each, mask = cross_entropy(logits, ids[:, 1:]), self.mask(batch)
        return each.mean() if mask is None else (each * mask).sum() / mask.sum()


@dataclass(frozen=True)
class Dense:
    """H [N, N] summed over the data, its positions, and where each layer's weights are."""

    matrix: Tensor
    positions: float
    places: dict[str, slice]

    def block(self, name: str) -> Tensor:
        return self.matrix[self.places[name], self.places[name]] / self.positions


@pytest.fixture
def true_loss(workload_of) -> Callable[[str], Workload]:
    """A workload of which the loss can be differentiated."""

    def make(name: str) -> Workload:
        made = workload_of(name)
        if not name.startswith("lm"):
            return made
        return Workload(made.model, made.calibration, made.evaluation, Differentiable(), name)

    return make


def double(batch: object) -> object:
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, dict):
        return {key: double(value) for key, value in batch.items()}
    assert isinstance(batch, tuple)
    return tuple(double(value) for value in batch)


def hessians(workload: Workload, batches: list[object]) -> Iterator[tuple[Tensor, float, dict[str, slice]]]:
    """(H summed over positions, positions, where each layer is) of every batch."""
    model = copy.deepcopy(workload.model).double().eval()
    found = units(model)
    names = [next(n for n, p in model.named_parameters() if p is unit.weight) for unit in found]
    sizes = [unit.weight.numel() for unit in found]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    places = {u.name: slice(s, s + n) for u, s, n in zip(found, starts, sizes, strict=True)}
    flat = torch.cat([unit.weight.detach().flatten() for unit in found])

    class Called(nn.Module):
        def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
            return functional_call(model, self.state, args, kwargs)

    for batch in map(double, batches):
        mask = workload.task.mask(batch)
        with torch.no_grad():
            count = workload.task.logits(model, batch)[..., 0].numel() if mask is None else int(mask.sum())

        def loss(w: Tensor, batch: object = batch, count: int = count) -> Tensor:
            called = Called()
            parts = [w[places[u.name]].view_as(u.weight) for u in found]
            called.state = dict(zip(names, parts, strict=True))
            return workload.task.loss(workload.task.logits(called, batch), batch) * count

        with sdpa_kernel([SDPBackend.MATH]):  # the default CPU kernel has neither forward mode nor a second derivative
            yield hessian(loss)(flat).detach(), count, places


@pytest.fixture
def dense() -> Callable[[Workload], Dense]:
    """The Hessian of the calibration loss."""

    def of(workload: Workload) -> Dense:
        found = [Dense(*each) for each in hessians(workload, list(workload.calibration))]
        matrix = torch.stack([each.matrix for each in found]).sum(0)
        return Dense(matrix, sum(each.positions for each in found), found[0].places)

    return of


@pytest.fixture
def dense_each() -> Callable[[Workload, list[object]], list[Dense]]:
    """The Hessians of single batches."""
    return lambda workload, batches: [Dense(*found) for found in hessians(workload, batches)]
