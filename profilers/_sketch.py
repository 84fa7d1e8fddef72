"""The Gauss–Newton curvature of the divergence in the direction of every choice, from a few backward passes.

With logits z, p = softmax(z) and a change Δ of the weights that moves the logits by JΔ to first order,
KL(p ‖ softmax(z + JΔ)) ≈ ½ (JΔ)ᵀ (diag p − p pᵀ) (JΔ) = ½ ΔᵀGΔ at one position. Cotangents v with
E[v vᵀ] = diag p − p pᵀ, independent between positions, give u = Σ_positions ⟨v, JΔ⟩ with E[u²] = Σ_positions ΔᵀGΔ;
and u = ⟨g, Δ⟩, where g is the sample's gradient of Σ v·z. One backward pass serves all layers and choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.measurement import Measured, ratio
from allocator.tasks.positions import per_sample
from allocator.tasks.protocol import Batch
from profilers._backward import Backward, Changes
from profilers._capture import captured
from profilers._cotangent import half_hessian
from profilers._parts import batch_seed
from profilers._plan import Plan, Target
from profilers._progress import Progress
from profilers._project import Call
from profilers._score import Score
from profilers._verify import rows_are_samples


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """How the curvature is sampled.

    Attributes:
        name: for progress and messages.
        passes: S, backward passes per batch; the work grows with S, the sketch's own noise falls with √S.
        seed: of the random signs.
        diagonal: also gather Σ_ij g_ij² Δ_ij².
        cache_bytes: memory for changes of weights kept between passes.
    """

    name: str
    passes: int
    seed: int
    diagonal: bool
    cache_bytes: int

    def run(self, plan: Plan, progress: Progress) -> tuple[Score, Score | None]:
        """½ E u² and, if asked for, ½ E Σ g²Δ² of every choice: nats per position, standard errors over samples.

        The model's parameters lose requires_grad meanwhile (`untouched` gives it back).

        Raises:
            UsageError: no pass at all; a layer that gradients cannot follow (see `captured` and `rows_are_samples`);
                one sample only.
        """
        if self.passes < 1:
            raise UsageError(f"{self.name} needs at least one sketch, and got sketches={self.passes}")
        plan.workload.model.requires_grad_(False)
        batches = list(_batches(plan))
        changes = Changes(self.cache_bytes)
        full: dict[Target, list[Tensor]] = {target: [] for target in plan.targets}
        diagonal: dict[Target, list[Tensor]] = {target: [] for target in plan.targets}
        positions: list[Tensor] = []
        for done, batch in enumerate(batches):
            kept = plan.parts.take("sketch", self, done)
            if kept is None:
                kept = self._measured(plan, batch, changes, done, len(batches), progress)
                plan.parts.keep(kept, "sketch", self, done)
            positions.append(kept["positions"])
            for place, target in enumerate(plan.targets):
                full[target].append(kept[f"full/{place}"])
                diagonal[target].append(kept[f"diagonal/{place}"])
        counts = torch.cat(positions)
        if len(counts) < 2:
            raise UsageError(
                f"{self.name} needs at least 2 calibration samples for a standard error, and got {len(counts)}: give "
                "more, or several batches where a whole batch is one sample"
            )
        per = plan.workload.task.per
        return _score(full, changes, counts, per), _score(diagonal, changes, counts, per) if self.diagonal else None

    def _measured(
        self, plan: Plan, batch: Batch, changes: Changes, done: int, batches: int, progress: Progress
    ) -> dict[str, Tensor]:
        """Means over the passes of one batch: positions [N], and u² and Σ g²Δ² [N, C] of each target."""
        device = plan.targets[0].unit.weight.device
        generator = torch.Generator(device).manual_seed(batch_seed(self.seed, done))
        passes: list[Backward] = []
        for backward in self._passes(plan, batch, changes, generator):
            passes.append(backward)
            progress(self.name, done * self.passes + len(passes), batches * self.passes)
        found = {"positions": passes[0].positions}
        for place, target in enumerate(plan.targets):
            found[f"full/{place}"] = torch.stack([b.projection(target).square() for b in passes]).mean(0)
            found[f"diagonal/{place}"] = torch.stack([b.energy(target) for b in passes]).mean(0)
        return found

    def _passes(self, plan: Plan, batch: Batch, changes: Changes, generator: torch.Generator) -> Iterator[Backward]:
        """The finished backward passes of one batch."""
        task = plan.workload.task
        current: list[Backward] = []

        def arrive(target: Target, call: Call, cotangent: Tensor) -> None:
            current[-1].arrive(target, call, cotangent)

        with captured(plan.targets, arrive) as capture, torch.enable_grad():
            logits = task.logits(plan.workload.model, batch)
        mask = task.mask(batch)
        positions = per_sample(torch.ones(logits.shape[:-1]), mask)[1]
        for left in reversed(range(self.passes)):
            current[:] = [Backward(changes, capture.calls, positions, self.diagonal)]
            capture.backward(logits, half_hessian(logits, mask, generator), again=left > 0)
            current[-1].finish()
            yield current[-1]


def _batches(plan: Plan) -> Iterator[Batch]:
    """The calibration batches; one sample at a time if a layer's rows cannot be told apart by sample."""
    together = rows_are_samples(plan)
    for batch in plan.workload.calibration:
        if together:
            yield batch
        else:
            yield from (take(batch, i, i + 1) for i in range(count(batch)))


def _score(squares: dict[Target, list[Tensor]], changes: Changes, counts: Tensor, per: str) -> Score:
    values, errors = [], []
    for target, parts in squares.items():
        cells = [Measured(0.0, 0.0)] * len(target.menu)
        columns = torch.cat(parts).cpu() / 2
        for place, column in zip(changes.places(target), columns.T, strict=True):
            cells[place] = ratio(column, counts)
        values.append([cell.value for cell in cells])
        errors.append([cell.stderr for cell in cells])
    return Score(values, errors, unit="nat", target="kl", per=per)
