"""How far a choice moves the outputs of its own layer, given the float network's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.batches import count
from profilers._calibration import batches, keys, piece
from profilers._columns import enough, joined, means
from profilers._energy import Responses, held_bytes
from profilers._findings import Findings
from profilers._patches import counts
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._run import Profiler
from profilers._shards import Piece, sharded
from profilers._watch import rows_by_sample, watched

Key: TypeAlias = tuple[int, int, int, int, int, int]
"""(first target, last target + 1) of a chunk; the piece of the data (`_calibration.Key`); how many samples it is."""


@dataclass(frozen=True, kw_only=True)
class OutputError(Profiler):
    """Squared error of a layer's outputs on calibration activations x of the float network, in three scalings, ≥ 0.

    - ``output_error`` = mean ‖layer(x; Ŵ) − layer(x; W)‖² per output element;
    - ``output_error_sum`` = the same summed over the outputs of one position (a token, a pixel, a lookup);
    - ``output_error_relative`` = Σ ‖layer(x; Ŵ) − layer(x; W)‖² / Σ ‖layer(x; W) without bias‖².

    The layer-wise objective of post-training quantisation (Nagel et al. 2020, AdaRound, arXiv 2004.10568; GPTQ, arXiv
    2210.17323), and for low rank the whitened error ‖(Ŵ − W) S‖² with S Sᵀ the inputs' second moment (SVD-LLM, arXiv
    2403.07378). They only rank (target ``proxy``): what later layers make of an error they do not know. Within one
    bit-width the relative form ranks layers poorly and the others about as badly as chance. Standard errors are over
    samples. All positions of a layer count, those of padding too.

    Costs one forward pass, and per layer either one run per choice or the second moment of each sample's inputs, by
    which ‖X Δᵀ‖² = ⟨ΔᵀΔ, XᵀX⟩, whichever takes fewer multiplications: measured 1.4 to 2.6 FB for eight choices. Layers
    are taken as many at a time as ``cache_bytes`` allows, with a forward pass for each such chunk. No gradients:
    networks that cannot be differentiated are measured too.

    Attributes:
        cache_bytes: memory for the changes of weights of one chunk of layers.
    """

    name: ClassVar[str] = "output_error"
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """Three scores, with standard errors over samples.

        Raises:
            UsageError: one sample only; a layer that is called with keywords only.
        """
        data = self._data(plan)
        columns: dict[str, list[Tensor]] = {kind: [] for kind in ("energy", "elements", "positions")}
        chunks = self._chunks(plan)
        every = [(*chunk, *part) for chunk in chunks for part in data]
        found = list(sharded(plan, self.name, self, every, self.energies, progress))
        for place, (first, last) in enumerate(chunks):
            pieces = found[place * len(data) : (place + 1) * len(data)]
            for kind, own in columns.items():
                own += joined(pieces, kind, last - first)
        plan.memory.pop(self, None)
        enough(self.name, len(columns["elements"][0]))
        errors, whole = [e[:, :-1] for e in columns["energy"]], [e[:, -1] for e in columns["energy"]]
        masses = {"": columns["elements"], "_sum": columns["positions"], "_relative": whole}
        return Findings(
            scores={
                f"output_error{suffix}": means(errors, mass, unit="1", target="proxy")
                for suffix, mass in masses.items()
            }
        )

    def energies(self, plan: Plan, key: Key) -> Piece:
        """Of a chunk of targets on a piece of the data, by place in the chunk.

        ``energy`` [N, choices + 1]: squared error of each choice, then squared output without bias; ``elements`` and
        ``positions`` [N] of the outputs.
        """
        first, last, place, batch, sample, samples = key
        targets = plan.targets[first:last]
        held = self._held(plan, first, last)
        found: Piece = {}
        for i, target in enumerate(targets):
            found[f"energy/{i}"] = torch.zeros(samples, len(target.menu) + 1, dtype=torch.float64)
            found[f"elements/{i}"] = torch.zeros(samples, dtype=torch.float64)
            found[f"positions/{i}"] = torch.zeros(samples, dtype=torch.float64)

        def seen(target: Target, call: Call, output: Tensor) -> None:
            if len(output) % samples or len(call.inputs) % samples:
                raise UsageError(
                    f"layer {target.name} works on {len(output)} rows for {samples} samples, so that its error cannot "
                    "be told apart by sample: give calibration batches of one sample each"
                )
            i = targets.index(target)
            found[f"energy/{i}"] += held[target].energies(call, samples)
            found[f"elements/{i}"] += output.numel() / samples
            found[f"positions/{i}"] += counts(call.module, call.inputs, output) / samples

        watched(plan, targets, piece(plan, (place, batch, sample)), seen)
        return found

    def _data(self, plan: Plan) -> list[tuple[int, int, int, int]]:
        """Pieces of the data, and how many samples each is."""
        rows = rows_by_sample(plan)
        sizes = [count(batch) if rows == "runs" else 1 for batch in batches(plan)]
        return [(*key, sizes[key[1]]) for key in keys(plan, rows != "mixed")]

    def _chunks(self, plan: Plan) -> list[tuple[int, int]]:
        """Runs of targets whose changes fit into the memory, at least one target each."""
        samples, ends, used = sum(map(count, batches(plan))), list[int](), 0
        for place, target in enumerate(plan.targets):
            size = held_bytes(target, samples)
            if place and used + size > self.cache_bytes:
                ends.append(place)
                used = 0
            used += size
        return list(zip([0, *ends], [*ends, len(plan.targets)], strict=True))

    def _held(self, plan: Plan, first: int, last: int) -> dict[Target, Responses]:
        """The changes of one chunk; those of the one before are let go."""
        chunk, held = plan.memory.get(self, (None, {}))
        if chunk != (first, last):
            plan.memory.pop(self, None)
            del held
            samples = sum(map(count, batches(plan)))
            held = {target: Responses(target, samples) for target in plan.targets[first:last]}
            plan.memory[self] = (first, last), held
        found: dict[Target, Responses] = held
        return found
