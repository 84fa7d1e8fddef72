"""The table of goals: what was asked, what was measured, and the distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.profilers.bench import Line, Store
from benchmarks.profilers.goals import GOALS, Goal

INTRODUCTION = """# The profilers against their goals

Printed by `make bench-profilers` (`make fashion-mnist-data` fetches the pictures; `make demo-smollm2` once, where the
language model's rows are wanted). `benchmarks/profilers/goals.py` holds the goals, `benchmarks/profilers/rows.py` what
is measured. Two networks are trained by `python -m benchmarks.profilers.train` and stored with the package:
`fashion-resnet20` (22 layers, 154 choices) and `fashion-vit` (18 layers, 126 choices); a choice is rounding to nearest
at 2 to 8 bits, symmetric, per output channel.

"""

HEAD = ("goal", "network", "asked", "measured", "met, or the distance")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row of the table; met is None where nothing was measured."""

    goal: Goal
    measured: float | None
    met: bool | None
    distance: str

    def cells(self) -> tuple[str, ...]:
        """As text."""
        shown = "-" if self.measured is None else f"{self.measured:.3g}{self.goal.unit}"
        return self.goal.what, self.goal.network, _asked(self.goal), shown, self.distance


def judge(store: Store, version: str) -> Iterator[Verdict]:
    """Every goal, against the rows of the present version."""
    for goal in GOALS:
        line = store.get(goal.row, goal.network, version)
        if line is None or goal.value not in line.values:
            reason = line.note if line is not None and line.note else "run it"
            yield Verdict(goal=goal, measured=None, met=None, distance=f"not measured: {reason}")
            continue
        value = line.values[goal.value]
        missed = distance(goal, value)
        yield Verdict(goal=goal, measured=value, met=missed is None, distance=missed or "met")


def distance(goal: Goal, value: float) -> str | None:
    """How far a value is from what was asked, None if it is there."""
    if goal.most is not None and not value <= goal.most:
        return f"{value - goal.most:.2g}{goal.unit} above ({value / goal.most:.2f}×)"
    if goal.least is not None and not value >= goal.least:
        return f"{goal.least - value:.2g}{goal.unit} below ({value / goal.least:.2f}×)"
    return None


def remarks(store: Store, version: str) -> str:
    """What the figures are, in words, for under the table, and the rest of what was measured."""
    lines = [line for line in store.lines.values() if line.version == version and line.values]
    verdicts = list(judge(store, version))
    said = [v for v in verdicts if v.met is not None]
    loads = sorted(line.load for line in lines) or [0.0]
    out = [
        f"{sum(bool(v.met) for v in said)} of {len(said)} goals measured are met; {len(verdicts) - len(said)} are not "
        "measured. FB: one forward and one backward pass over the 256 calibration pictures. KL: mean over 2,000 test "
        "pictures in nats; losses: over all 10,000.",
        f"Machine: {'; '.join(sorted({line.machine for line in lines})) or 'none'}; load average "
        f"{median(loads):.1f} in the median, {loads[-1]:.1f} at most.",
        *(_told(line) for line in lines),
    ]
    return "\n".join(out) + "\n"


def _told(line: Line) -> str:
    return f"{line.network}, {line.name}: " + ", ".join(f"{key} {value:.6g}" for key, value in line.values.items())


def _asked(goal: Goal) -> str:
    if goal.least is not None and goal.most is not None:
        return f"{goal.least:g} to {goal.most:g}{goal.unit}"
    return f"≤ {goal.most:g}{goal.unit}" if goal.most is not None else f"≥ {goal.least:g}{goal.unit}"
