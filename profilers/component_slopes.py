"""The slope of the loss along every singular component of every layer, and of what a rank takes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from allocator.actions import Action, LowRank
from allocator.progress import Progress
from allocator.tasks.positions import per_sample
from profilers._calibration import Key, piece
from profilers._capture import captured
from profilers._columns import enough, joined, means
from profilers._findings import Findings
from profilers._labels import true
from profilers._passes import pieces_of_samples
from profilers._plan import Plan, Target
from profilers._project import Call, by_gradients, gradients_by_sample
from profilers._run import Profiler
from profilers._shards import Piece, sharded

SIGNIFICANT = 2.0


@dataclass(frozen=True, kw_only=True)
class ComponentSlopes(Profiler):
    """``component_slopes`` = −Σ_{i>r} σ_i u_iᵀGv_i in nats per position for a choice of rank r, G = ∂ mean loss/∂W.

    W = Σ_i σ_i u_i v_iᵀ, and leaving component i out changes the loss by −σ_i u_iᵀGv_i to first order: one signed
    number for each component, so that all ranks of all layers cost one pass (Lossless joint low-rank factorisation,
    arXiv 2412.06867; LLC, arXiv 2412.06868, equation 10). What storing the factors in few bits adds is not in it:
    `FirstOrder` has that, with the choice's own change. Any other choice has its own ⟨G, Δ⟩. Signed, target ``ce``,
    with standard errors over samples.

    On a trained network it is mostly noise, as `FirstOrder` is, and the truncation of a rank is no small change: take
    it with the measured gap (`Remainder`). The notes count the components that stand 2 standard errors above 0, and
    would lower the loss if they were left out, and those that a rank cannot leave out without its smaller ones, unless
    it names its components: what is summed is over those that the choice does not keep.

    Costs one forward and one backward pass over the calibration data, the gradients of the single samples, and rank
    times as many multiplications as weights for each sample: for networks of small layers.

    Attributes:
        listed: put the slope of every component, −σ_i u_iᵀGv_i, and its σ_i into the notes, by group: what a method
            that picks components needs.
    """

    name: ClassVar[str] = "component_slopes"
    listed: bool = False

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """One score, and in the notes what the components say.

        Raises:
            UsageError: one sample only; a network that gradients cannot follow (`captured`, `rows_are_samples`);
                a loss that carries no gradient.
        """
        pieces = list(sharded(plan, self.name, self, pieces_of_samples(plan), self.slopes, progress))
        counts = torch.cat([found["positions"] for found in pieces])
        enough(self.name, len(counts))
        sums, single = (joined(pieces, kind, len(plan.targets)) for kind in ("slope", "component"))
        per = plan.workload.task.per
        score = means(sums, [counts] * len(sums), unit="nat", target="ce", per=per)
        parts = means(single, [counts] * len(single), unit="nat", target="ce", per=per)
        assert parts.stderr is not None, "means gives it"
        harmful = [
            [value < -SIGNIFICANT * error for value, error in zip(values, errors, strict=True)]
            for values, errors in zip(parts.value, parts.stderr, strict=True)
        ]
        notes: dict[str, Any] = {
            "components": sum(map(len, harmful)),
            "that_raise_the_loss": sum(map(sum, harmful)),
            "not_in_a_tail": sum(_before_a_useful_one(row) for row in harmful),
        }
        if self.listed:
            notes["slopes"] = {t.name: list(row) for t, row in zip(plan.targets, parts.value, strict=True)}
            notes["sigma"] = {t.name: _decomposed(plan, t)[1].flatten().tolist() for t in plan.targets}
        return Findings(scores={self.name: score}, notes=notes)

    def slopes(self, plan: Plan, key: Key) -> Piece:
        """On one piece: positions [N]; per target −σ_i u_iᵀg_n v_i [N, components] and choices' slopes [N, choices]."""
        batch, task, model = piece(plan, key), plan.workload.task, plan.workload.model
        model.requires_grad_(False)
        single: dict[Target, Tensor] = {}
        others: dict[Target, Tensor] = {}

        def arrive(target: Target, call: Call, gradient: Tensor) -> None:
            rest = _changes(plan, target)
            found, changed = [], []
            for part in gradients_by_sample(call, gradient, samples):
                found.append(_components(plan, target, part))
                changed.append(by_gradients(call.module, part, rest).sum(1).double())
            single[target] = single.get(target, 0) + torch.cat(found)
            others[target] = others.get(target, 0) + torch.cat(changed)

        with captured(plan.targets, arrive) as capture, torch.enable_grad():
            logits = task.logits(model, batch)
        samples = len(logits)
        capture.backward(logits, true(task, logits, batch))
        counts = per_sample(torch.ones(logits.shape[:-1]), task.mask(batch))[1]
        out: Piece = {"positions": counts}
        for place, target in enumerate(plan.targets):
            own = single.get(target)
            if own is None:
                own = torch.zeros(samples, _decomposed(plan, target)[1].numel(), dtype=torch.float64)
                others[target] = torch.zeros(samples, len(_places(target)), dtype=torch.float64)
            out[f"component/{place}"] = own.cpu()
            out[f"slope/{place}"] = _menu(target, own, others[target]).cpu()
        return out


def _decomposed(plan: Plan, target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """U [groups, rows, k], σ [groups, k], Vᵀ [groups, k, columns] of the weight's matrix, kept from piece to piece."""
    key = ("components", target.name)
    if key not in plan.memory:
        weight = target.unit.weight.detach().double()  # as the applier does it, so that components have one order
        matrix = weight.reshape(target.layer.groups, -1, target.layer.columns)
        plan.memory[key] = tuple(part.float() for part in torch.linalg.svd(matrix, full_matrices=False))
    found: tuple[Tensor, Tensor, Tensor] = plan.memory[key]
    return found


def _components(plan: Plan, target: Target, gradients: Tensor) -> Tensor:
    """−σ_i u_iᵀ g_n v_i [n, components] in float64 of gradients [n, *weight.shape]."""
    left, sigma, right = _decomposed(plan, target)
    matrices = gradients.reshape(len(gradients), *left.shape[:2], -1)
    found = ((left.transpose(1, 2) @ matrices) * right).sum(-1) * sigma
    return -found.flatten(1).double()


def _by_components(target: Target, action: Action) -> bool:
    """Whether a choice keeps some components of the plain SVD of the whole weight."""
    return isinstance(action, LowRank) and action.weighting == "none" and target.layer.groups == 1


def _places(target: Target) -> list[int]:
    """Choices that do not."""
    return [place for place, item in enumerate(target.menu) if not _by_components(target, item.action)]


def _changes(plan: Plan, target: Target) -> Tensor:
    """Their changes of the weight, kept from piece to piece."""
    key = ("other changes", target.name)
    if key not in plan.memory:
        weight = target.unit.weight.detach()
        changes = [target.approximation(place).sub_(weight) for place in _places(target)]
        plan.memory[key] = torch.stack(changes) if changes else weight.new_zeros((0, *weight.shape))
    found: Tensor = plan.memory[key]
    return found


def _menu(target: Target, components: Tensor, others: Tensor) -> Tensor:
    """[N, choices]: tails of the components for ranks, own slopes for the rest."""
    wide = torch.zeros(len(components), len(target.menu), dtype=torch.float64, device=components.device)
    wide[:, _places(target)] = others
    for place, item in enumerate(target.menu):
        if _by_components(target, item.action):
            assert isinstance(item.action, LowRank)
            kept = item.action.components or range(item.action.rank)
            wide[:, place] = components.sum(1) - components[:, list(kept)].sum(1)
    return wide


def _before_a_useful_one(harmful: list[bool]) -> int:
    """Harmful components, sorted by σ, that are followed by one that is not."""
    last = max((place for place, bad in enumerate(harmful) if not bad), default=-1)
    return sum(harmful[: last + 1])
