"""How much each residual block turns what passes through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Module

from allocator.errors import UsageError
from allocator.progress import Progress
from profilers._blocks import blocks
from profilers._calibration import Key, keys, piece
from profilers._findings import Findings
from profilers._plan import Plan, Target
from profilers._run import Profiler
from profilers._shards import Piece, sharded


@dataclass(frozen=True, kw_only=True)
class BlockInfluence(Profiler):
    """Stats of every group from the block it is in: ``block_influence`` = E[1 − cos(input, output)], 0 to 2; no score.

    The cosine is between the feature vectors of one position (a token, a pixel) before and after the block, and the
    mean over all positions of the calibration data, padding included (ShortGPT: Men et al. 2024, arXiv 2403.03853). A
    block that hardly turns its input matters little: ``importance`` is the same number, larger for what should be
    kept, as the solver ``entropic`` reads it (MoDeGPT: Lin et al. 2025, arXiv 2408.09632).

    Blocks are the members of the network's containers (see `_blocks`) that hold other modules and give a tensor of
    the shape of one that they are given: those with a skip connection are; whether one is added cannot be seen.
    Features lie along dimension 1 where a convolution of the block takes that many channels, else along the last.
    Positions where either vector is 0 have no angle and are left out. Layers in no such block (the stem, the head,
    blocks that change the shape) get the mean over the blocks, neither spared nor preferred; a weight shared by
    several blocks gets the mean over these. The notes name both kinds.

    All layers of a block get one number, so it cannot tell them apart: profile with a statistic that gives a score.
    Costs one forward pass.
    """

    name: ClassVar[str] = "block_influence"

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """Two equal stats per target.

        Raises:
            UsageError: no block with layers gives back the shape that it takes.
        """
        found = list(sharded(plan, self.name, self, keys(plan, True), self.turns, progress))
        turned, positions = (torch.stack([part[kind] for part in found]).sum(0) for kind in ("turned", "positions"))
        members = [_blocks_of(plan, target) for target in plan.targets]
        known = {block for own in members for block in own if positions[block] > 0}
        influence = {block: float(turned[block] / positions[block]) for block in sorted(known)}
        if not influence:
            raise UsageError(
                "block_influence found no block that holds layers and gives back the shape that it takes, so nothing "
                "can be said of residual blocks; take another measure of importance, or a solver that needs none"
            )
        mean = sum(influence.values()) / len(influence)
        values: list[float] = []
        outside: list[str] = []
        for target, own in zip(plan.targets, members, strict=True):
            inside = [influence[block] for block in own if block in influence]
            values.append(sum(inside) / len(inside) if inside else mean)
            if not inside:
                outside.append(target.name)
        names = {module: name for name, module in plan.workload.model.named_modules()}
        candidates = list(_candidates(plan.workload.model))
        notes = {
            "blocks": {names[candidates[block]]: value for block, value in influence.items()},
            "in_no_block": outside,
        }
        return Findings(stats={"block_influence": values, "importance": list(values)}, notes=notes)

    def turns(self, plan: Plan, key: Key) -> Piece:
        """Σ (1 − cos) and the number of positions of each block on one batch; [blocks] each."""
        candidates = list(_candidates(plan.workload.model))
        places = {block: place for place, block in enumerate(candidates)}
        sums = torch.zeros(2, len(candidates), dtype=torch.float64)
        given: dict[Module, list[Tensor]] = {}

        def before(block: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            given[block] = [t.detach().clone() for t in tensors if t.is_floating_point()]  # a block may overwrite them

        def after(block: Module, args: object, output: object) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            inputs = given.pop(block, [])
            if isinstance(first, Tensor):
                like = next((t for t in inputs if t.shape == first.shape and t.dim() > 1), None)
                if like is not None:
                    sums[:, places[block]] += _turn(like, first, _features(block, first))

        handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in candidates]
        handles += [block.register_forward_hook(after) for block in candidates]
        try:
            with torch.no_grad():
                plan.workload.task.logits(plan.workload.model, piece(plan, key))
        finally:
            for handle in handles:
                handle.remove()
        return {"turned": sums[0], "positions": sums[1]}


def _candidates(model: Module) -> Iterator[Module]:
    """Blocks that hold other modules: a lone layer is no block with a skip connection."""
    return (block for block in blocks(model) if any(True for _ in block.children()))


def _blocks_of(plan: Plan, target: Target) -> list[int]:
    """Places of the candidates that hold one of the target's modules."""
    return [
        place
        for place, block in enumerate(_candidates(plan.workload.model))
        if any(module in target.modules for module in block.modules())
    ]


def _features(block: Module, output: Tensor) -> int:
    """The dimension along which a position's features lie."""
    kind = {3: nn.Conv1d, 4: nn.Conv2d}.get(output.dim())
    if kind is None:
        return -1
    channels = {module.in_channels for module in block.modules() if isinstance(module, kind)}
    return 1 if output.shape[1] in channels else -1


def _turn(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """(Σ (1 − cos), positions) in float64 over the positions where both vectors have a direction."""
    a, b = before.double(), after.detach().double()
    lengths = a.norm(dim=dim) * b.norm(dim=dim)
    directed = lengths > 0
    cosines = (a * b).sum(dim)[directed] / lengths[directed]
    return torch.stack([(1 - cosines).sum(), directed.sum().double()]).cpu()
