"""What the singular values of each weight say of the ranks that it needs: numbers that closed-form solvers read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from allocator.actions import Layer, LowRank
from allocator.errors import UsageError
from allocator.menu_items import FACTOR
from allocator.progress import Progress
from profilers._findings import Findings
from profilers._groups import RESOURCES, costs
from profilers._moments import input_moments, moment_bytes
from profilers._plan import Plan, Target
from profilers._run import Profiler
from profilers._shards import Piece, sharded

Key: TypeAlias = tuple[int, int]
"""(first target, last target + 1)."""

STATS = ("effective_rank", "stable_rank", "norm")


@dataclass(frozen=True, kw_only=True)
class SingularSpectrum(Profiler):
    """Stats of every group from the singular values σ of its weight matrix W [rows, columns]; no scores.

    - ``effective_rank`` = exp(−Σ p ln p) with p_i = σ_i² / Σ σ², between 1 and min(rows, columns) (D-Rank 2025; with
      σ in place of σ²: Roy and Vetterli 2007);
    - ``stable_rank`` = ‖W‖_F² / σ_1², never larger than the rank;
    - ``norm`` = ‖W‖_F² = Σ σ², what losing the layer altogether scores: in the units of ``weight_error_sum``, and
      when ``whitened`` of ``output_error_sum``. It is squared, because those scores are;
    - ``rank_cost``: what one rank more costs, in ``resource``: rows + columns bytes where both factors take a byte
      per weight, and the bytes of a scale more where each row of a factor has one.

    The solver ``inverse_rank`` reads the first and the last, ``desired_error`` the norm. With ``whitened``, σ are
    those of W S, S Sᵀ = E[x xᵀ] the second moment of the layer's inputs (D-Rank; SVD-LLM, arXiv 2403.07378): the
    ranks that the layer's *outputs* need; of an embedding, those of √share ⊙ W with the share of lookups per row.
    The matrix of a grouped convolution is block-diagonal. A weight of zeros has ranks 0, which solvers refuse.

    There is no score, since the energy that a choice drops is ``weight_error_relative`` (`WeightError`) or, whitened,
    ``output_error_relative`` (`OutputError`), both with the choice's own Δ: profile with one that gives a score.

    Costs one eigendecomposition of min(rows, columns)² per layer, in float64; ``whitened`` also a forward pass for
    each chunk of layers whose second moments fit into ``cache_bytes``, and positions · columns² multiplications per
    layer in float64: 1 FB for a small transformer, 5 for a narrow convolutional network, whose patches are long.

    Attributes:
        whitened: weigh by the inputs.
        resource: of ``rank_cost``: weight_bytes, macs or bops, as the budget will be.
        cache_bytes: memory for second moments.
    """

    name: ClassVar[str] = "singular_spectrum"
    whitened: bool = False
    resource: str = "weight_bytes"
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """Four stats per target, exact but for rounding.

        Raises:
            UsageError: an unknown resource; a layer that the calibration data does not reach (``whitened``).
        """
        if self.resource not in RESOURCES:
            raise UsageError(f"resource={self.resource!r} of singular_spectrum: give one of {', '.join(RESOURCES)}")
        pieces = list(sharded(plan, self.name, self, self._chunks(plan), self.spectra, progress))
        stats = {name: torch.cat([piece[name] for piece in pieces]).tolist() for name in STATS}
        prices = [rank_cost(target, self.resource) for target in plan.targets]
        return Findings(stats={**stats, "rank_cost": prices}, notes={"whitened": self.whitened})

    def spectra(self, plan: Plan, key: Key) -> Piece:
        """`STATS` of a run of targets, one number each."""
        targets = plan.targets[slice(*key)]
        moments = input_moments(plan, targets) if self.whitened else {}
        rows = [summary(energies(t.unit.weight.detach(), t.layer, moments.get(t))) for t in targets]
        return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in STATS}

    def _chunks(self, plan: Plan) -> list[Key]:
        """Runs of targets whose second moments fit into the memory; without whitening one target each."""
        ends: list[int] = []
        used = 0
        for place, target in enumerate(plan.targets):
            size = moment_bytes(target)
            if place and (not self.whitened or used + size > self.cache_bytes):
                ends.append(place)
                used = 0
            used += size
        return list(zip([0, *ends], [*ends, len(plan.targets)], strict=True))


def energies(weight: Tensor, layer: Layer, moment: Tensor | None = None) -> Tensor:
    """σ² of the weight matrix, or of W S where ``moment`` is S Sᵀ (see `input_moments`); in no order, float64.

    They are eigenvalues of a product with the smaller side, exact to 1e-16 of the largest one.
    """
    matrix = weight.double().reshape(layer.groups, -1, layer.columns)
    if moment is not None and layer.kind == "embedding":
        matrix, moment = matrix * moment.sqrt().unsqueeze(1), None
    if matrix.shape[1] <= matrix.shape[2]:
        product = matrix if moment is None else matrix @ moment
        gram = product @ matrix.transpose(1, 2)
    else:
        gram = matrix.transpose(1, 2) @ matrix
        if moment is not None:
            values, vectors = torch.linalg.eigh(moment)
            root = vectors * values.clamp(min=0).sqrt().unsqueeze(1)
            gram = root.transpose(1, 2) @ gram @ root
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0).flatten()


def summary(squares: Tensor) -> dict[str, float]:
    """`STATS` from σ²."""
    total = float(squares.sum())
    if not total:
        return dict.fromkeys(STATS, 0.0)
    share = squares / total
    entropy = -float(torch.special.xlogy(share, share).sum())
    return {
        "effective_rank": float(torch.tensor(entropy, dtype=torch.float64).exp()),
        "stable_rank": total / float(squares.max()),
        "norm": total,
    }


def rank_cost(target: Target, resource: str) -> float:
    """What one rank more costs on average between 1 and the full rank, with the menu's first low-rank choice's factors.

    Without such a choice: with factors as a rank choice has them unless told (8 bits, a scale per row).
    """
    layer = target.layer
    action = next((item.action for item in target.menu if isinstance(item.action, LowRank)), None)
    if action is None:
        action = LowRank.from_json({"kind": "low_rank", "rank": 1, "left": FACTOR, "right": FACTOR})
    top = min(layer.rows, layer.columns)
    action = replace(action, components=None)
    most = costs(layer, replace(action, rank=top))[resource]
    return (most - costs(layer, replace(action, rank=1))[resource]) / (top - 1) if top > 1 else float(most)
