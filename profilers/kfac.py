"""The curvature of the divergence as a Kronecker product per layer: what goes in times what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.measurement import Measured
from allocator.tasks.positions import per_sample
from profilers._capture import captured
from profilers._cotangent import half_hessian
from profilers._factors import Factors, Gathering, elements, grouped, quadratic
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._parts import batch_seed
from profilers._pieces import pieces
from profilers._plan import Plan, Target
from profilers._run import Profiler
from profilers._score import Score
from profilers._shards import Piece, sharded
from profilers._verify import rows_are_samples


@dataclass(frozen=True, kw_only=True)
class Kfac(Profiler):
    """``kfac`` = ½ tr(Δᵀ G Δ A) in nats per position, ≥ 0, with the choice's real Δ as a matrix [outputs, inputs].

    With rows a of a layer's inputs and g of the gradients at its outputs (of cotangents whose second moment is the
    curvature of KL, `profilers._cotangent`), A ⊗ G stands for the layer's Gauss–Newton matrix, as if a and g, and
    different rows, were unrelated: Σ a aᵀ · Σ g gᵀ / (rows · positions) (Martens and Grosse 2015, arXiv 1503.05671).
    Rows are samples times tokens, or places of a convolution whose inputs are unfolded to patches (Grosse and Martens
    2016, arXiv 1602.01407; "expand" in Eschenhagen et al. 2023, arXiv 2311.00636). Groups of a convolution have
    factors of their own; an embedding's A is the diagonal of its counts; modules that share a weight add up.

    Since rows of one sample are not unrelated, it was measured to be 1.6 to 3 times too low, more where layers share
    weights over many places; it ranks a little worse than `Ggn`, which costs the same and needs no such assumption. It
    is here to compare with what is published. Target ``kl``; the standard error over ``pieces`` of the data is that of
    the product, to first order in both factors, and knows nothing of that bias.

    Costs 1 forward and ``sketches`` backward passes and the products of the factors, again for every share of the
    layers whose factors fit ``cache_bytes``; per choice two products with each factor. Any attention kernel will do.

    Attributes:
        sketches: cotangents per piece of data.
        seed: of the random signs.
        samples: use only the first so many rows of calibration data.
        pieces: at least so many, if there are as many samples.
        cache_bytes: memory for factors, of which there is one set per piece.
    """

    name: ClassVar[str] = "kfac"
    sketches: int = 1
    seed: int = 0
    samples: int | None = None
    pieces: int = 8
    cache_bytes: int = 1 << 32

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``kfac``."""
        if self.sketches < 1:
            raise UsageError(f"kfac needs at least one sketch, and got sketches={self.sketches}")
        count = len(pieces(plan, self.name, self.samples, self.pieces))
        plan.workload.model.requires_grad_(False)
        rows_are_samples(plan)  # whether they are does not matter here; that the hooks see the whole gradient does
        values: list[list[float]] = []
        errors: list[list[float]] = []
        make_forms(plan, progress)
        shares = list(self._shares(plan, count))
        for share, piece in zip(shares, sharded(plan, self.name, self, shares, self.scored, progress), strict=True):
            for place in share:
                values.append(piece[f"value/{place}"].tolist())
                errors.append(piece[f"stderr/{place}"].tolist())
        score = Score(values, errors, unit="nat", target="kl", per=plan.workload.task.per)
        return Findings(scores={"kfac": score})

    def _shares(self, plan: Plan, count: int) -> Sequence[tuple[int, ...]]:
        """Consecutive targets whose factors fit the memory together."""
        found: list[tuple[int, ...]] = []
        left = -1
        for place, target in enumerate(plan.targets):
            needed = 4 * count * elements(target)
            if needed > self.cache_bytes:
                raise UsageError(
                    f"the factors of layer {target.name} take {needed} bytes in {count} pieces, more than "
                    f"cache_bytes={self.cache_bytes}: allow more, take fewer pieces, skip the layer with a rule "
                    f'{{"modules": "{target.unit.modules[0]}", "choices": "skip"}}, or use the profiler ggn'
                )
            if needed > left:
                found.append(())
                left = self.cache_bytes
            found[-1] += (place,)
            left -= needed
        return found

    def scored(self, plan: Plan, share: Sequence[int]) -> Piece:
        """``value`` and ``stderr`` [choices] of some of the targets."""
        targets = [plan.targets[place] for place in share]
        plan.workload.model.requires_grad_(False)
        made: list[dict[Module, Factors]] = []
        positions: list[float] = []
        for key in range(len(pieces(plan, self.name, self.samples, self.pieces))):
            found, count = self.factors(plan, targets, key)
            made.append(found)
            positions.append(count)
        piece: Piece = {}
        for place, target in zip(share, targets, strict=True):
            cells = [Measured(0.0, 0.0)] * len(target.menu)
            for choice, delta in target.changes():
                cells[choice] = _scored(target, delta, made, torch.tensor(positions, dtype=torch.float64))
            piece[f"value/{place}"] = torch.tensor([cell.value for cell in cells], dtype=torch.float64)
            piece[f"stderr/{place}"] = torch.tensor([cell.stderr for cell in cells], dtype=torch.float64)
        return piece

    def factors(self, plan: Plan, targets: Sequence[Target], key: int) -> tuple[dict[Module, Factors], float]:
        """The factors of these targets' modules from one piece of data, and its positions."""
        task, batch = plan.workload.task, pieces(plan, self.name, self.samples, self.pieces)[key]
        gathering = Gathering(self.sketches)
        with captured(targets, gathering.arrive) as capture, torch.enable_grad():
            logits = task.logits(plan.workload.model, batch)
        mask = task.mask(batch)
        generator = torch.Generator(logits.device).manual_seed(batch_seed(self.seed, key))
        for left in reversed(range(self.sketches)):
            capture.backward(logits, half_hessian(logits, mask, generator), again=left > 0)
            gathering.first = False
        return gathering.found, float(per_sample(torch.ones(logits.shape[:-1]), mask)[1].sum())


def _scored(target: Target, delta: Tensor, made: Sequence[dict[Module, Factors]], positions: Tensor) -> Measured:
    """½ Σ_modules tr(Δᵀ G Δ A)/(rows · positions); the error by how each piece's A, G, rows and positions move it."""
    value, mass = 0.0, float(positions.sum())
    moves = torch.zeros(len(made), dtype=torch.float64)
    for module in target.modules:
        own = [found.get(module) for found in made]
        some = [factors for factors in own if factors is not None]
        rows = sum(factors.rows for factors in some)
        if not rows:
            continue  # no gradient arrives at this use of the weight
        inputs = torch.stack([factors.inputs for factors in some]).sum(0, dtype=torch.float64)
        outputs = torch.stack([factors.outputs for factors in some]).sum(0, dtype=torch.float64)
        whole, by_inputs, by_outputs = quadratic(grouped(target, module, delta), inputs, outputs)
        value += float(whole) / (2 * rows * mass)
        for place, factors in enumerate(own):
            move = -float(whole) * float(positions[place]) / mass
            if factors is not None:
                move += float((by_inputs * factors.inputs).sum() + (by_outputs * factors.outputs).sum())
                move -= float(whole) * factors.rows / rows
            moves[place] += move / (2 * rows * mass)
    count = len(made)
    return Measured(value, math.sqrt(count / (count - 1) * float(moves.square().sum())))
