"""The Gauss–Newton curvature of the divergence in the direction of every choice, from a few backward passes.

With logits z, p = softmax(z) and a change Δ of the weights that moves the logits by JΔ to first order,
KL(p ‖ softmax(z + JΔ)) ≈ ½ (JΔ)ᵀ (diag p − p pᵀ) (JΔ) = ½ ΔᵀGΔ at one position. Cotangents v with
E[v vᵀ] = diag p − p pᵀ, independent between positions, give u = Σ_positions ⟨v, JΔ⟩ with E[u²] = Σ_positions ΔᵀGΔ;
and u = ⟨g, Δ⟩, where g is the sample's gradient of Σ v·z. One backward pass serves all layers and choices, and
E[u_a u_b] of two choices is their interaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.measurement import ratio
from allocator.tasks.positions import per_sample
from allocator.tasks.protocol import Batch
from profilers._backward import Backward, Changes, Diagonal
from profilers._capture import captured
from profilers._cotangent import half_hessian
from profilers._parts import batch_seed
from profilers._plan import Plan, Target
from profilers._progress import Progress
from profilers._project import Call
from profilers._score import Score
from profilers._shards import Piece, sharded
from profilers._verify import rows_are_samples

FEW = 64
"""Samples up to which estimates weight by weight, the narrowest, are worth their time."""


@dataclass(frozen=True, eq=False)
class Sketched:
    """Projections of every choice that changes its weight; S passes, N samples, C choices of a target.

    Attributes:
        plan: what was measured.
        places: of these choices in the menu, per target.
        lengths: ‖Δ‖ of these choices, per target.
        projections: u [S, N, C], per target.
        rows: mean over passes of Σ_f u_f² [N, C], f the output features, per target.
        diagonal: mean over passes of Σ_ij g_ij² Δ_ij² [N, C], per target; [N, 0] where it was not gathered.
        positions: of each sample [N].
    """

    plan: Plan
    places: Sequence[Sequence[int]]
    lengths: Sequence[Sequence[float]]
    projections: Sequence[Tensor]
    rows: Sequence[Tensor]
    diagonal: Sequence[Tensor]
    positions: Tensor

    def score(self, squares: Sequence[Tensor]) -> Score:
        """½ Σ squares / Σ positions of every choice, 0 where nothing changes; squares [N, C] per target."""
        values, errors = [], []
        for target, places, columns in zip(self.plan.targets, self.places, squares, strict=True):
            value, error = [0.0] * len(target.menu), [0.0] * len(target.menu)
            for place, column in zip(places, columns.T, strict=True):
                cell = ratio(column / 2, self.positions)
                value[place], error[place] = cell.value, cell.stderr
            values.append(value)
            errors.append(error)
        return Score(values, errors, unit="nat", target="kl", per=self.plan.workload.task.per)


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """How the curvature is sampled.

    Attributes:
        name: for progress and messages.
        passes: S, backward passes per batch; the work grows with S, the sketch's own noise falls with √S.
        seed: of the random signs.
        diagonal: gather Σ_ij g_ij² Δ_ij² of every target; else where it is cheap and samples are few (`FEW`).
        cache_bytes: memory for changes of weights kept between passes.
    """

    name: str
    passes: int
    seed: int
    diagonal: bool
    cache_bytes: int

    def run(self, plan: Plan, progress: Progress) -> Sketched:
        """Project every choice on every sample; the model's parameters lose requires_grad (`untouched` restores it).

        Raises:
            UsageError: no pass at all; a layer that gradients cannot follow (see `captured` and `rows_are_samples`);
                one sample only.
        """
        if self.passes < 1:
            raise UsageError(f"{self.name} needs at least one sketch, and got sketches={self.passes}")
        keys = range(len(sample_batches(plan)))
        pieces = list(sharded(plan, "sketch", self, keys, self.shard, progress))
        positions = torch.cat([piece["positions"] for piece in pieces])
        if len(positions) < 2:
            raise UsageError(
                f"{self.name} needs at least 2 calibration samples for a standard error, and got {len(positions)}: "
                "give more, or several batches where a whole batch is one sample"
            )
        ordinals = range(len(plan.targets))
        return Sketched(
            plan,
            places=[pieces[0][f"places/{t}"].tolist() for t in ordinals],
            lengths=[pieces[0][f"lengths/{t}"].tolist() for t in ordinals],
            projections=[torch.cat([piece[f"u/{t}"] for piece in pieces], 1) for t in ordinals],
            rows=[torch.cat([piece[f"rows/{t}"] for piece in pieces]) for t in ordinals],
            diagonal=[_everywhere([piece[f"diagonal/{t}"] for piece in pieces]) for t in ordinals],
            positions=positions,
        )

    def shard(self, plan: Plan, key: int) -> Piece:
        """All passes of one batch."""
        passes = list(self._passes(plan, sample_batches(plan)[key], key))
        changes = self._changes(plan)
        found = {"positions": passes[0].positions}
        for place, target in enumerate(plan.targets):
            found[f"places/{place}"] = torch.tensor(changes.places(target), dtype=torch.int64)
            found[f"lengths/{place}"] = torch.tensor(changes.lengths(target), dtype=torch.float64)
            found[f"u/{place}"] = torch.stack([b.projection(target) for b in passes]).cpu()
            found[f"rows/{place}"] = torch.stack([b.rows(target) for b in passes]).mean(0).cpu()
            energies = [energy for b in passes if (energy := b.energy(target)) is not None]
            empty = torch.zeros(len(passes[0].positions), 0, dtype=torch.float64)
            found[f"diagonal/{place}"] = torch.stack(energies).mean(0).cpu() if energies else empty
        return found

    def cotangents(self, logits: Tensor, mask: Tensor | None, key: int) -> Iterator[Tensor]:
        """What the passes of batch ``key`` send back, in order; [N, …positions, K] each."""
        generator = torch.Generator(logits.device).manual_seed(batch_seed(self.seed, key))
        for _ in range(self.passes):
            yield half_hessian(logits, mask, generator)

    def _passes(self, plan: Plan, batch: Batch, key: int) -> Iterator[Backward]:
        """The finished backward passes of one batch."""
        task = plan.workload.task
        plan.workload.model.requires_grad_(False)
        few = sum(map(count, sample_batches(plan))) <= FEW
        diagonal: Diagonal = "all" if self.diagonal else "some" if few else "none"
        current: list[Backward] = []

        def arrive(target: Target, call: Call, cotangent: Tensor) -> None:
            current[-1].arrive(target, call, cotangent)

        with captured(plan.targets, arrive) as capture, torch.enable_grad():
            logits = task.logits(plan.workload.model, batch)
        mask = task.mask(batch)
        positions = per_sample(torch.ones(logits.shape[:-1]), mask)[1]
        for done, cotangent in enumerate(self.cotangents(logits, mask, key), 1):
            current[:] = [Backward(self._changes(plan), capture.calls, positions, diagonal)]
            capture.backward(logits, cotangent, again=done < self.passes)
            current[-1].finish()
            yield current[-1]

    def _changes(self, plan: Plan) -> Changes:
        changes: Changes = plan.memory.setdefault(("changes", self.cache_bytes), Changes(self.cache_bytes))
        return changes


def _everywhere(parts: list[Tensor]) -> Tensor:
    """The parts of all batches [N, C]; [N, 0] where some batch lacks it: gradients may pay for long sequences only."""
    return torch.cat(parts) if all(part.shape[1] for part in parts) else torch.cat([part[:, :0] for part in parts])


def sample_batches(plan: Plan) -> list[Batch]:
    """The calibration batches; one sample at a time if a layer's rows cannot be told apart by sample."""
    if "sample batches" not in plan.memory:
        plan.workload.model.requires_grad_(False)
        together = rows_are_samples(plan)
        found: list[Batch] = []
        for batch in plan.workload.calibration:
            found += [batch] if together else [take(batch, i, i + 1) for i in range(count(batch))]
        plan.memory["sample batches"] = found
    batches: list[Batch] = plan.memory["sample batches"]
    return batches
