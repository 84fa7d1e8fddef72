"""Whether an allocation that is predicted to lower the loss may be called lossless."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from allocator.applying import applied
from allocator.errors import UsageError
from allocator.methods.judging import compared, paired
from allocator.problem import Problem
from allocator.solution import Solution
from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A predicted gain held against a measurement that the prediction has not seen; nats per position.

    Attributes:
        gain: predicted fall of the task's loss; ≤ 0 where it is predicted to rise.
        measured: change of the loss, on the held-in samples.
        stderr: its standard error, of the paired differences.
        remainder: |measured − predicted|, of the whole allocation together.
        samples: held-in ones.
    """

    gain: float
    measured: float
    stderr: float
    remainder: float
    samples: int

    @property
    def margin(self) -> float:
        """gain − remainder − stderr; above 0 it also implies that the measured loss fell by more than its error."""
        return self.gain - self.remainder - self.stderr

    @property
    def lossless(self) -> bool:
        """Whether the gain exceeds the joint remainder and its standard error."""
        return self.margin > 0

    @property
    def words(self) -> str:
        """The verdict as it is printed."""
        said = (
            f"predicted gain {self.gain:.3g}, joint remainder {self.remainder:.3g} ± {self.stderr:.2g} nat on "
            f"{self.samples} held-in samples"
        )
        return f"lossless: {said}" if self.lossless else f"not certified, short by {-self.margin:.3g} nat: {said}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"lossless": self.lossless, "margin": self.margin, **asdict(self), "words": self.words}


def certify(parted: Workload, problem: Problem, solution: Solution, predicted: float) -> Certified:
    """Measure the whole allocation on ``parted.evaluation``, which the profile on ``parted.calibration`` has not seen.

    Args:
        parted: calibration data cut in two, see `allocator.splitting`.
        problem: the profile.
        solution: with an allocation; its actions are applied to a copy of the network.
        predicted: change of the task's loss that the profile expects.

    Raises:
        UsageError: samples of the profile among those to be measured on; a task without a metric ``loss``.
    """
    parted.check()
    profiled = set(((problem.notes.provenance or {}).get("calibration") or {}).get("sample_digests", ()))
    if profiled & set(parted.digests("evaluation")):
        raise UsageError(
            "the profile has seen samples that its prediction is to be held against: profile on parted.calibration"
        )
    found = compared(parted, applied(parted, solution))
    if "loss" not in found.sums:
        raise UsageError(f"task {parted.task.name} has no metric named loss, so that no gain can be certified")
    change = paired(found, found.original, "loss")
    return Certified(
        gain=-predicted,
        measured=change.value,
        stderr=change.stderr,
        remainder=abs(change.value - predicted),
        samples=found.samples,
    )
