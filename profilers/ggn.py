"""The curvature of the divergence in the direction of each choice: one forward and one backward pass for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profilers._findings import Findings
from profilers._plan import Plan
from profilers._progress import Progress
from profilers._run import Profiler
from profilers._sketch import Sketch


@dataclass(frozen=True, kw_only=True)
class Ggn(Profiler):
    """``ggn`` = ½ ΔᵀGΔ in nats per position: the quadratic model of KL(p_float ‖ p_choice), with the choice's real Δ.

    G is the Gauss–Newton matrix Jᵀ (diag p − p pᵀ) J summed over the positions of a sample (Martens 2020,
    arXiv 1412.1193, section 8); it is probed by Rademacher cotangents, see `profilers._sketch`. With u the projection
    of one sample in one pass, the score is ½ Σ_samples mean_passes u² / Σ positions, ≥ 0, with its standard error over
    samples, which contains the sketch's noise.

    Costs S backward passes over the calibration data and, per layer, one inner product per sample and choice, instead
    of one forward pass per layer and choice. It under-predicts where the change is too large for a quadratic (2 and 3
    bits, low rank: 1.3 to 2 times) and ranks nearly as well as measured KL elsewhere.

    Any attention kernel will do, since only first derivatives in reverse are taken. Where the rows of a layer cannot
    be told apart by sample (sequence first, shared position tables), samples are run one at a time.

    Attributes:
        sketches: S, backward passes per batch.
        seed: of the random signs.
        diagonal: also give ``ggn_diag``, which keeps only the products of each weight with itself: see `GgnDiag`.
        cache_bytes: memory for the changes of weights that are kept between passes.
    """

    name: ClassVar[str] = "ggn"
    sketches: int = 1
    seed: int = 0
    diagonal: bool = False
    cache_bytes: int = 1 << 30

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The score ``ggn``, and ``ggn_diag`` if asked for."""
        sketch = Sketch(
            name="ggn", passes=self.sketches, seed=self.seed, diagonal=self.diagonal, cache_bytes=self.cache_bytes
        )
        full, diagonal = sketch.run(plan, progress)
        return Findings(scores={"ggn": full} if diagonal is None else {"ggn": full, "ggn_diag": diagonal})
