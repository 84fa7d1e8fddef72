"""The few directions of all weights together in which the loss curves most, and what each choice does along them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.measurement import ratio
from profilers._backward import Changes
from profilers._findings import Basis, Findings
from profilers._forms import make_forms
from profilers._hvp import Matrix, build, check, differentiable
from profilers._lanczos import Pairs, largest
from profilers._parts import batch_seed
from profilers._pieces import pieces
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._score import Score
from profilers._traces import Trace, Traces


@dataclass(frozen=True, kw_only=True)
class Lanczos(Profiler):
    """``lanczos`` = ½ Σ_i λ_i ⟨U_l,i, Δ⟩² + ½ μ_l ‖Δ‖² in nats per position, and the interactions between layers.

    (λ_i, U_i) are the ``count`` eigenpairs of largest |λ| of the Hessian of the mean cross entropy over all weights of
    the plan together, U_l,i the entries of U_i in layer l (the subspace of Compression Error Theory, arXiv
    2502.15802). A choice has the vector v_i = ⟨U_l,i, Δ⟩, and the interactions' basis of λ and v adds
    ½ Σ_i λ_i [(Σ_g v_gi)² − Σ_g v_gi²]: the terms of ½ ΔᵀHΔ between layers, as far as the subspace goes; the own
    squares are in the score. μ_l = (tr H_ll − Σ_i λ_i ‖U_l,i‖²)/n_l is the mean curvature of what the subspace leaves
    out, 0 where it would be negative, and 0 everywhere without ``probes``. Signed: a λ < 0 stays what it is.

    Target ``ce``; with ``matrix="ggn"``, the Gauss–Newton matrix Jᵀ(diag p − p pᵀ)J, target ``kl``. The standard
    errors are over ``pieces`` of the data (`profilers._pieces`), for the subspace as found, joined with that of μ.

    Costs 3 to 4.6 FB per step, 2 to 3 FB per pair afterwards for residuals and standard errors, and with ``probes``
    that of `HessianTrace`; memory for as many copies of the weights as steps. The many small eigenvalues are not
    in the subspace: without ``probes`` the score of a layer that it hardly touches is near 0.

    The notes give the residuals ‖Hu − λu‖, the sum of the negative λ that were kept and of the negative Ritz values
    that were not, and the μ that were cut off at 0.

    Attributes:
        count: eigenpairs.
        steps: products at most, each over all the data; ≥ count.
        tolerance: stop earlier, when every pair's ‖Hu − λu‖ is within this share of |λ|.
        matrix: ``hessian`` or ``ggn``.
        probes: at most so many per layer for μ, at least 6, to 10 % as `HessianTrace` does by default; 0: no μ.
        seed: of the first direction, and of the probes.
        samples: use only the first so many rows of calibration data.
        pieces: at least so many, if there are as many samples.
        cache_bytes: memory for the changes of weights.
    """

    name: ClassVar[str] = "lanczos"
    count: int = 8
    steps: int = 32
    tolerance: float = 1e-3
    matrix: Matrix = "hessian"
    probes: int = 0
    seed: int = 0
    samples: int | None = None
    pieces: int = 8
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``lanczos``, its interactions, and how good the pairs are."""
        if self.count < 1 or self.steps < self.count or not self.tolerance >= 0:
            raise UsageError(
                f"lanczos needs steps ≥ count ≥ 1 and tolerance ≥ 0, got count={self.count}, steps={self.steps} and "
                f"tolerance={self.tolerance}"
            )
        if self.matrix not in ("hessian", "ggn"):
            raise UsageError(f"lanczos knows no matrix {self.matrix!r}: take hessian or ggn")
        check(plan, pieces(plan, self.name, self.samples, self.pieces)[0], self.matrix)
        make_forms(plan, progress)
        pairs = self._pairs(plan, progress)
        products, residuals, positions = self._again(plan, pairs, progress)
        traces = self._traces(plan, progress) if self.probes else None
        return self._findings(plan, pairs, products, positions, traces, {"residuals": residuals.tolist()})

    def _pairs(self, plan: Plan, progress: Progress) -> Pairs:
        batches = pieces(plan, self.name, self.samples, self.pieces)
        weights = [target.unit.weight for target in plan.targets]

        def product(step: int, vector: Tensor) -> Tensor:
            kept = plan.parts.take("lanczos", self, step)
            if kept is None:
                total, mass = torch.zeros(len(vector), dtype=torch.float64, device=vector.device), 0.0
                for piece in batches:
                    with differentiable(plan, plan.targets):
                        graph = build(plan, plan.targets, piece, self.matrix)
                        parts = graph.product(dict(enumerate(_split(vector, weights))), range(len(weights)))
                    total += torch.cat([part.flatten() for part in parts])
                    mass += graph.positions
                kept = {"product": (total / mass).float()}
                plan.parts.keep(kept, "lanczos", self, step)
            progress("lanczos", step + 1, self.steps)
            return kept["product"].to(vector)

        size = sum(weight.numel() for weight in weights)
        generator = torch.Generator().manual_seed(batch_seed(self.seed, 0))
        start = torch.randn(size, generator=generator).to(weights[0].device)
        found = largest(product, start, self.count, self.steps, self.tolerance)
        progress("lanczos", self.steps, self.steps)
        return found

    def _again(self, plan: Plan, pairs: Pairs, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
        """UᵀH_bU of every piece [B, R, R], summed over its positions [B]; and ‖Hu − λu‖ [R]."""
        batches = pieces(plan, self.name, self.samples, self.pieces)
        weights = [target.unit.weight for target in plan.targets]
        total = torch.zeros(pairs.vectors.shape, dtype=torch.float64, device=pairs.vectors.device)
        products, positions = [], []
        for done, piece in enumerate(batches, 1):
            with differentiable(plan, plan.targets):
                graph = build(plan, plan.targets, piece, self.matrix)
                rows = []
                for vector in pairs.vectors:
                    parts = graph.product(dict(enumerate(_split(vector, weights))), range(len(weights)))
                    rows.append(torch.cat([part.flatten() for part in parts]))
            images = torch.stack(rows)
            total += images
            products.append((images @ pairs.vectors.T).double().cpu())
            positions.append(graph.positions)
            progress("lanczos, residuals", done, len(batches))
        mean = total / sum(positions)
        residuals = (mean - pairs.values.to(mean).unsqueeze(1) * pairs.vectors).norm(dim=1)
        return torch.stack(products), residuals, torch.tensor(positions, dtype=torch.float64)

    def _traces(self, plan: Plan, progress: Progress) -> list[Trace]:
        return Traces(
            name=self.name, matrix=self.matrix, method="auto", probes=self.probes, tolerance=0.1, seed=self.seed,
            samples=self.samples, pieces=self.pieces,
        ).run(plan, progress)  # fmt: skip

    def _findings(
        self,
        plan: Plan,
        pairs: Pairs,
        products: Tensor,
        positions: Tensor,
        traces: Sequence[Trace] | None,
        notes: Mapping[str, Any],
    ) -> Findings:
        changes: Changes = plan.memory.setdefault((Changes, self.cache_bytes), Changes(self.cache_bytes))
        values, vectors = pairs.values, pairs.vectors.double().cpu()
        own = torch.split(vectors, [target.unit.weight.numel() for target in plan.targets], 1)
        scores: list[list[float]] = []
        errors: list[list[float]] = []
        basis: list[Tensor] = []
        clipped: dict[str, float] = {}
        for place, target in enumerate(plan.targets):
            rest, rest_error = 0.0, 0.0
            if traces is not None:
                size = target.unit.weight.numel()
                rest = (traces[place].value - float(values @ own[place].square().sum(1))) / size
                rest_error = traces[place].stderr / size
                if rest < 0:
                    clipped[target.name] = rest
                    rest, rest_error = 0.0, 0.0
            deltas = changes.of(target).flatten(1).double().cpu() if changes.places(target) else torch.zeros(0, 1)
            along = torch.zeros(len(target.menu), len(values), dtype=torch.float64)
            scores.append([0.0] * len(target.menu))
            errors.append([0.0] * len(target.menu))
            for choice, delta in zip(changes.places(target), deltas, strict=True):
                v = own[place] @ delta
                half = float(delta @ delta) / 2
                spread = ratio(torch.einsum("i,bij,j->b", v, products, v) / 2, positions).stderr
                along[choice] = v
                scores[-1][choice] = float(values @ v.square()) / 2 + rest * half
                errors[-1][choice] = math.hypot(spread, rest_error * half)
            basis.append(along)
        target_of: dict[Matrix, Any] = {"hessian": "ce", "ggn": "kl"}
        score = Score(scores, errors, unit="nat", target=target_of[self.matrix], per=plan.workload.task.per)
        told = {
            "steps": pairs.steps,
            **notes,
            "negative_kept": float(values.clamp(max=0).sum()),
            "negative_dropped": float(pairs.rest.clamp(max=0).sum()),
            "clipped": clipped,
        }
        return Findings(scores={"lanczos": score}, bases=(Basis("lanczos", values, basis),), notes=told)


def _split(vector: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
