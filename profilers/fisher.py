"""The Fisher information in the direction of each choice: from labels that the network draws, or from the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from profilers._calibration import Key, piece
from profilers._columns import enough, joined, means
from profilers._findings import Findings
from profilers._forms import make_forms
from profilers._labels import drawn, true
from profilers._parts import batch_seed
from profilers._passes import backward_passes, changes_of, pieces_of_samples, whole_menu
from profilers._plan import Plan
from profilers._run import Profiler
from profilers._shards import Piece, sharded


@dataclass(frozen=True, kw_only=True)
class Fisher(Profiler):
    """``fisher`` = ½ Σ_i F_ii Δ_i² and ``fisher_projected`` = ½ E⟨g, Δ⟩² in nats per position, Δ the choice's own.

    g is the gradient of log p(y | x) in the weight. Labels y are drawn from the network's own p at every position,
    so that F = E g gᵀ is the Fisher matrix, the curvature of KL(p_float ‖ p_choice), equal to the Gauss–Newton matrix
    of `Ggn` (Martens 2020, arXiv 1412.1193). Gradients are a sample's, summed over its positions: products of
    different positions vanish in the mean, as their labels are drawn independently. Both scores are ≥ 0, estimate a
    KL (target ``kl``), and have standard errors over samples, which contain the noise of the draws.

    The diagonal takes rounding errors of different weights as unrelated and is blind to structure in Δ (not for low
    rank); the projection keeps all products, with one squared number per sample and draw. Sampled labels are rare
    and huge where the network is sure of itself: `Ggn` and `GgnDiag` estimate the same two numbers with less noise,
    and a few samples are dangerous here.

    With ``empirical`` the labels are the true ones, by the gradient of the task's loss: ``fisher_empirical`` and
    ``fisher_empirical_projected``, no cheaper, and no curvature (Kunstner et al. 2019, arXiv 1905.12558):
    products between the positions of one sample do not vanish, and errors of the network count as information. They
    only rank (target ``proxy``).

    Costs one forward and ``labels`` backward passes over the calibration data, and per layer the gradients of the
    single samples with one inner product per sample and choice: as much as `GgnDiag`, 1.2 to 1.8 FB per draw where
    layers are wide, and several times that where they are tiny.

    Attributes:
        labels: draws per position, each a backward pass; not read when ``empirical``.
        empirical: true labels in place of drawn ones.
        seed: of the draws.
        cache_bytes: memory for the changes of weights that are kept between passes.
    """

    name: ClassVar[str] = "fisher"
    labels: int = 1
    empirical: bool = False
    seed: int = 0
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """Two scores.

        Raises:
            UsageError: no draw; one sample only; a network that gradients cannot follow (`captured`,
                `rows_are_samples`); ``empirical`` with a loss that carries no gradient.
        """
        if self.labels < 1:
            raise UsageError(f"fisher needs at least one draw of labels, and got labels={self.labels}")
        make_forms(plan, progress)
        pieces = list(sharded(plan, self.name, self, pieces_of_samples(plan), self.squares, progress))
        counts = torch.cat([found["positions"] for found in pieces])
        enough(self.name, len(counts))
        target: Literal["kl", "proxy"] = "proxy" if self.empirical else "kl"
        name = "fisher_empirical" if self.empirical else "fisher"
        scores = {
            score: means(
                [column / 2 for column in joined(pieces, kind, len(plan.targets))],
                [counts] * len(plan.targets),
                unit="nat",
                target=target,
                per=plan.workload.task.per,
            )
            for score, kind in ((name, "diagonal"), (f"{name}_projected", "full"))
        }
        return Findings(scores=scores)

    def squares(self, plan: Plan, key: Key) -> Piece:
        """Means over the draws on one piece: positions [N], and Σ g²Δ² and ⟨g, Δ⟩² [N, choices] of each target."""
        batch, device = piece(plan, key), plan.targets[0].unit.weight.device
        generator = torch.Generator(device).manual_seed(batch_seed(self.seed, key[0]))

        def cotangent(logits: Tensor, mask: Tensor | None) -> Tensor:
            return true(plan.workload.task, logits, batch) if self.empirical else drawn(logits, mask, generator)

        count = 1 if self.empirical else self.labels
        found: Piece = {}
        changes = changes_of(plan, self.cache_bytes)
        for backward in backward_passes(plan, batch, count, cotangent, changes, "all"):
            found["positions"] = backward.positions
            for place, target in enumerate(plan.targets):
                rows = {"full": backward.projection(target).square(), "diagonal": backward.energy(target)}
                for kind, row in rows.items():
                    name = f"{kind}/{place}"
                    found[name] = found.get(name, 0) + whole_menu(backward, target, row) / count
        return found
