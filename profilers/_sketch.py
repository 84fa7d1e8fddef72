"""The Gauss–Newton curvature of the divergence in the direction of every choice, from a few backward passes.

With logits z, p = softmax(z) and a change Δ of the weights that moves the logits by JΔ to first order,
KL(p ‖ softmax(z + JΔ)) ≈ ½ (JΔ)ᵀ (diag p − p pᵀ) (JΔ) = ½ ΔᵀGΔ at one position. Cotangents v with
E[v vᵀ] = diag p − p pᵀ, independent between positions, give u = Σ_positions ⟨v, JΔ⟩ with E[u²] = Σ_positions ΔᵀGΔ;
and u = ⟨g, Δ⟩, where g is the sample's gradient of Σ v·z. One backward pass serves all layers and choices, and
E[u_a u_b] of two choices is their interaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.batches import count
from allocator.tasks.measurement import ratios
from allocator.tasks.protocol import Batch
from profilers._backward import Diagonal
from profilers._calibration import piece
from profilers._columns import enough
from profilers._cotangent import half_hessian
from profilers._forms import make_forms
from profilers._parts import batch_seed
from profilers._passes import Cotangent, backward_passes, changes_of, pieces_of_samples
from profilers._plan import Plan
from profilers._score import Score
from profilers._shards import Piece, sharded
from profilers._stretches import Block, Stretch, blocks, part

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
            found = (part.tolist() for part in ratios(columns / 2, self.positions))
            for place, own, spread in zip(places, *found, strict=True):
                value[place], error[place] = own, spread
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
        cache_bytes: memory for changes of weights, and gradients of layer outputs, kept between passes.
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
        batches = range(len(sample_batches(plan)))
        cut = self._blocks(plan)
        keys = [(block, batch) for block in range(len(cut)) for batch in batches]
        make_forms(plan, progress)
        found = dict(zip(keys, sharded(plan, self.name, self, keys, self.shard, progress), strict=True))
        plan.memory.pop(("block", self), None)  # and with it the changes of the last block
        positions = torch.cat([found[0, batch]["positions"] for batch in batches])
        enough(self.name, len(positions))
        columns = [_Columns([], [], [], [], []) for _ in plan.targets]
        for block, stretches in enumerate(cut):
            for one in stretches:
                columns[one.place].add([found[block, batch] for batch in batches], one)
        return Sketched(
            plan,
            places=[own.places for own in columns],
            lengths=[own.lengths for own in columns],
            projections=[torch.cat(own.projections, 2) for own in columns],
            rows=[torch.cat(own.rows, 1) for own in columns],
            diagonal=[_everywhere(own) for own in columns],
            positions=positions,
        )

    def shard(self, plan: Plan, key: tuple[int, int]) -> Piece:
        """All passes of one batch, for one block of choices."""
        block, number = key
        few = sum(map(count, sample_batches(plan))) <= FEW
        diagonal: Diagonal = "all" if self.diagonal else "some" if few else "none"
        batch, cotangent = sample_batches(plan)[number], self.cotangent(plan, number)
        own = self._part(plan, block)
        changes = changes_of(own, self.cache_bytes)
        passes = list(backward_passes(own, batch, self.passes, cotangent, changes, diagonal))
        found = {"positions": passes[0].positions}
        for one, target in zip(self._blocks(plan)[block], own.targets, strict=True):
            place = one.place
            found[f"places/{place}"] = torch.tensor(changes.places(target), dtype=torch.int64)
            found[f"lengths/{place}"] = torch.tensor(changes.lengths(target), dtype=torch.float64)
            found[f"u/{place}"] = torch.stack([b.projection(target) for b in passes]).cpu()
            found[f"rows/{place}"] = torch.stack([b.rows(target) for b in passes]).mean(0).cpu()
            found[f"diagonal/{place}"] = torch.stack([b.energy(target) for b in passes]).mean(0).cpu()
        return found

    def _blocks(self, plan: Plan) -> list[Block]:
        key = ("blocks", self)
        if key not in plan.memory:
            samples = [count(batch) for batch in sample_batches(plan)]
            plan.memory[key] = blocks(plan, samples, self.passes, self.cache_bytes)
        found: list[Block] = plan.memory[key]
        return found

    def _part(self, plan: Plan, block: int) -> Plan:
        """The plan of one block; that of the one before is let go, with its changes."""
        number, own = plan.memory.get(("block", self), (None, None))
        if number != block:
            plan.memory.pop(("block", self), None)
            del own
            own = part(plan, self._blocks(plan)[block])
            plan.memory["block", self] = (block, own)
        found: Plan = own
        return found

    def cotangent(self, plan: Plan, key: int) -> Cotangent:
        """What each pass of batch ``key`` sends back, drawn anew at every call."""
        device = plan.targets[0].unit.weight.device
        generator = torch.Generator(device).manual_seed(batch_seed(self.seed, key))
        return lambda logits, mask: half_hessian(logits, mask, generator)


@dataclass(frozen=True)
class _Columns:
    """What was found of one target's choices, stretch after stretch."""

    places: list[int]
    lengths: list[float]
    projections: list[Tensor]
    rows: list[Tensor]
    diagonal: list[Tensor]

    def add(self, pieces: Sequence[Piece], stretch: Stretch) -> None:
        """Those of one stretch, from the pieces of all batches."""
        t = stretch.place
        self.places.extend(stretch.start + place for place in pieces[0][f"places/{t}"].tolist())
        self.lengths.extend(pieces[0][f"lengths/{t}"].tolist())
        self.projections.append(torch.cat([piece[f"u/{t}"] for piece in pieces], 1))
        self.rows.append(torch.cat([piece[f"rows/{t}"] for piece in pieces]))
        own = [piece[f"diagonal/{t}"] for piece in pieces]
        # A batch may lack it: gradients may pay for long sequences only.
        lacking = any(part.shape[1] != self.rows[-1].shape[1] for part in own)
        self.diagonal.append(torch.cat([part[:, :0] for part in own] if lacking else own))


def _everywhere(columns: _Columns) -> Tensor:
    """[N, C], or [N, 0] where some stretch lacks it."""
    whole = all(part.shape == rows.shape for part, rows in zip(columns.diagonal, columns.rows, strict=True))
    return torch.cat(columns.diagonal, 1) if whole else columns.diagonal[0][:, :0]


def sample_batches(plan: Plan) -> list[Batch]:
    """The calibration batches; one sample at a time if a layer's rows cannot be told apart by sample."""
    if "sample batches" not in plan.memory:
        plan.memory["sample batches"] = [piece(plan, key) for key in pieces_of_samples(plan)]
    found: list[Batch] = plan.memory["sample batches"]
    return found
