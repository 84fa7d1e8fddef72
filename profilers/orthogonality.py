"""How alike the outputs of layers are over the samples: what OMPQ takes as their unimportance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.batches import count
from profilers._calibration import keys, piece
from profilers._columns import enough
from profilers._findings import Findings
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._run import Profiler
from profilers._shards import Piece, sharded
from profilers._watch import rows_by_sample, watched


@dataclass(frozen=True, kw_only=True)
class Orthogonality(Profiler):
    """Stat ``likeness`` = Σ_{j ≠ l} ORM_lj of every group, ORM_lj = ‖Y_jᵀY_l‖² / (‖Y_lᵀY_l‖ ‖Y_jᵀY_j‖); no score.

    Y_l [samples, features] are the outputs of a layer, their positions side by side, and ORM (from 0, orthogonal, to 1)
    is the uncentred linear alignment of two layers' kernels Y Yᵀ over the samples: ⟨K_l, K_j⟩ / (‖K_l‖ ‖K_j‖) (OMPQ, Ma
    et al. 2023, arXiv 2109.07865). OMPQ gives more bits to layers with a small sum. No choice is tried: profile with a
    statistic that gives a score.

    A layer that is called several times counts by its first call on each batch. Costs one forward pass, and positions
    · samples² multiplications per layer; memory for the outputs of all layers on ``samples`` rows.

    Attributes:
        samples: the first so many rows of calibration data; all for 0.
    """

    name: ClassVar[str] = "orthogonality"
    samples: int = 64

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """One stat per target.

        Raises:
            UsageError: one sample only; rows of a layer that cannot be told apart by sample.
        """
        (found,) = sharded(plan, self.name, self, ["kernels"], self.kernels, progress)
        enough(self.name, int(found["samples"]))
        kernels = [found[f"kernel/{place}"].flatten() for place in range(len(plan.targets))]
        table = torch.stack([kernel / kernel.norm().clamp(min=1e-300) for kernel in kernels])
        alike = table @ table.T
        likeness = alike.sum(1) - alike.diagonal()
        return Findings(stats={"likeness": likeness.tolist()})

    def kernels(self, plan: Plan, key: str) -> Piece:
        """``kernel`` Y Yᵀ [N, N] of every target, in float64, and ``samples`` N."""
        rows_are = rows_by_sample(plan)
        outputs: dict[Target, list[Tensor]] = {target: [] for target in plan.targets}
        done = 0
        for one in keys(plan, rows_are != "mixed"):
            if self.samples and done >= self.samples:
                break
            rows: dict[Target, Tensor] = {}
            batch = piece(plan, one)
            samples = count(batch) if rows_are == "runs" else 1

            def seen(
                target: Target, call: Call, output: Tensor, rows: dict[Target, Tensor] = rows, n: int = samples
            ) -> None:
                if len(output) % n:
                    raise UsageError(
                        f"layer {target.name} works on {len(output)} rows for {n} samples, so that its outputs cannot "
                        "be told apart by sample: give calibration batches of one sample each"
                    )
                rows.setdefault(target, output.detach().reshape(n, -1).double())

            watched(plan, plan.targets, batch, seen)
            left = self.samples - done if self.samples else samples
            for target, own in outputs.items():
                if target in rows:
                    own.append(rows[target][:left])
            done += min(samples, left)
        found: Piece = {"samples": torch.tensor(done)}
        for place, target in enumerate(plan.targets):
            found[f"kernel/{place}"] = _kernel(outputs[target], done)
        return found


def _kernel(parts: list[Tensor], samples: int) -> Tensor:
    """Y Yᵀ; positions beyond those of the shortest batch are left out, as features have to be the same."""
    if not parts or sum(map(len, parts)) != samples:
        return torch.zeros(samples, samples, dtype=torch.float64)
    width = min(part.shape[1] for part in parts)
    outputs = torch.cat([part[:, :width] for part in parts])
    return (outputs @ outputs.T).cpu()
