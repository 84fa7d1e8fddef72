"""The Fisher diagonal at each layer's output, on what a choice does to that output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allocator.progress import Progress
from allocator.tasks.positions import per_sample
from profilers._backward import Changes
from profilers._calibration import Key, piece
from profilers._capture import captured
from profilers._columns import enough, joined, means
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._labels import true
from profilers._passes import changes_of, pieces_of_samples
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._run import Profiler
from profilers._shards import Piece, sharded


@dataclass(frozen=True, kw_only=True)
class OutputFisher(Profiler):
    """``output_fisher`` = Σ (∂ℓ/∂y)² (layer(x; Ŵ) − layer(x; W))² per position, over all outputs y of a layer; ≥ 0.

    ℓ is a sample's loss under the true labels, summed over its positions, and x the float network's inputs: the score
    of ModelOpt's `auto_quantize` by gradient, the empirical Fisher matrix of the outputs cut down to its diagonal. So
    products of two outputs of a layer do not count, and with the true labels it only ranks (target ``proxy``; Kunstner
    et al. 2019, arXiv 1905.12558). Standard errors are over samples. Calls of one layer add up.

    Costs one forward and one backward pass over the calibration data, and per layer one run for each choice: about
    C/3 FB.

    Attributes:
        cache_bytes: memory for the changes of weights that are kept between batches.
    """

    name: ClassVar[str] = "output_fisher"
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """One score.

        Raises:
            UsageError: one sample only; a network that gradients cannot follow (`captured`, `rows_are_samples`);
                a loss that carries no gradient.
        """
        make_forms(plan, progress)
        pieces = list(sharded(plan, self.name, self, pieces_of_samples(plan), self.products, progress))
        counts = torch.cat([found["positions"] for found in pieces])
        enough(self.name, len(counts))
        columns = joined(pieces, "product", len(plan.targets))
        score = means(columns, [counts] * len(plan.targets), unit="1", target="proxy", per=plan.workload.task.per)
        return Findings(scores={"output_fisher": score})

    def products(self, plan: Plan, key: Key) -> Piece:
        """On one piece: positions [N]; Σ_outputs g² Δy² [N, choices] of each target."""
        batch, task, model = piece(plan, key), plan.workload.task, plan.workload.model
        changes = changes_of(plan, self.cache_bytes)
        model.requires_grad_(False)
        found: dict[Target, Tensor] = {}

        def arrive(target: Target, call: Call, gradient: Tensor) -> None:
            if changes.places(target):
                own = _products(call, gradient, changes.of(target), samples)
                found[target] = found.get(target, 0) + own

        with captured(plan.targets, arrive) as capture, torch.enable_grad():
            logits = task.logits(model, batch)
        samples = len(logits)
        capture.backward(logits, true(task, logits, batch))
        counts = per_sample(torch.ones(logits.shape[:-1]), task.mask(batch))[1]
        wide = {f"product/{i}": _wide(found.get(t), t, changes, samples) for i, t in enumerate(plan.targets)}
        return {"positions": counts, **wide}


def _products(call: Call, gradient: Tensor, changes: Tensor, samples: int) -> Tensor:
    """[N, C] of one call, in float64."""
    weight = call.module.weight
    assert isinstance(weight, Tensor)
    squares = gradient.double().square()
    with torch.no_grad():
        plain = None if call.stock else call(weight.detach(), call.inputs)
        columns = []
        for change in changes:
            moved = call(change, call.inputs, biased=False) if plain is None else call(weight + change, call.inputs)
            moved = moved if plain is None else moved - plain
            columns.append((moved.double().square() * squares).reshape(samples, -1).sum(1))
    return torch.stack(columns, 1)


def _wide(found: Tensor | None, target: Target, changes: Changes, samples: int) -> Tensor:
    """[N, choices] on the CPU; 0 for choices that change nothing."""
    wide = torch.zeros(samples, len(target.menu), dtype=torch.float64)
    if found is not None:
        wide[:, changes.places(target)] = found.cpu()
    return wide
