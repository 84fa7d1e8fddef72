"""Before curvature is trusted: does what the hooks see add up to the true gradient, and do rows belong to samples?"""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.protocol import Batch
from profilers._capture import captured, gradients
from profilers._plan import Plan, Target
from profilers._project import Call, projections

PROBES = 2
TOLERANCE = 1e-2
"""Of the gradient's norm: rounding leaves 1e-5, a use that the hooks missed about 1."""


def rows_are_samples(plan: Plan) -> bool:
    """Whether the rows of every layer's output fall into equal runs, one per sample; checked on two samples.

    A random cotangent is sent back from the first sample alone. The rows of the other one must receive nothing;
    a layer that works on (time, sample), or a position table shared by the batch, fails that, and then samples have
    to be run one by one. And the gradient that the hooks see must be the one that autograd gives for the weight.

    Raises:
        UsageError: a weight takes part in a way that its modules do not show, such as F.linear(x, module.weight).
    """
    batches = list(plan.workload.calibration)
    several = next((batch for batch in batches if count(batch) > 1), None)
    if several is not None and _agrees(plan, take(several, 0, 2)):
        return True
    _agrees(plan, take(batches[0], 0, 1))
    return several is None


def _agrees(plan: Plan, batch: Batch) -> bool:
    """Check the gradients of the batch's first sample; False if rows of another sample get a part of them."""
    signs = {target: _signs(target, seed) for seed, target in enumerate(plan.targets)}
    seen: dict[Target, Tensor] = {}
    mixed = False

    def arrive(target: Target, call: Call, cotangent: Tensor) -> None:
        nonlocal mixed
        rows = len(cotangent) // samples
        if rows * samples != len(cotangent) or bool(cotangent[rows:].any()):
            mixed = True
        else:
            projected = projections(call, cotangent, samples, signs[target])[0].sum(0)
            seen[target] = seen.get(target, 0) + projected.double()

    weights = [target.unit.weight.requires_grad_() for target in plan.targets]
    try:
        with captured(plan.targets, arrive), torch.enable_grad():
            logits = plan.workload.task.logits(plan.workload.model, batch)
        samples = len(logits)
        cotangent = torch.zeros_like(logits)
        cotangent[0] = torch.randn(logits[0].shape, generator=torch.Generator().manual_seed(0)).to(logits)
        found = gradients(logits, weights, cotangent)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    if mixed:
        return False
    for target, gradient in zip(plan.targets, found, strict=True):
        _compare(target, signs[target], gradient, seen.get(target))
    return True


def _compare(target: Target, signs: Tensor, gradient: Tensor | None, seen: Tensor | None) -> None:
    if gradient is None and seen is None:
        return  # the layer runs, but the logits do not depend on it
    true = torch.zeros_like(target.unit.weight) if gradient is None else gradient
    wanted = (signs * true).flatten(1).sum(1, dtype=torch.float64)
    found = torch.zeros_like(wanted) if seen is None else seen
    if bool(((wanted - found).abs() > TOLERANCE * true.norm()).any()):
        raise UsageError(
            f"the weight of layer {target.name} takes part in the forward pass in a way that its modules do not show, "
            "such as F.linear(x, module.weight), so its curvature cannot be followed. Call the module, skip the layer "
            f'with a rule {{"modules": "{target.unit.modules[0]}", "choices": "skip"}}, or use the profiler kl'
        )


def _signs(target: Target, seed: int) -> Tensor:
    """Two fixed random ±1 tensors of the weight's shape: their inner products with an error show its whole norm."""
    shape = (PROBES, *target.unit.weight.shape)
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(target.unit.weight)
