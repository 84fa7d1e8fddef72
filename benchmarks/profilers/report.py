"""The table of goals: what was asked, what was measured, and the distance."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.goal import Verdict, verdict
from benchmarks.profilers.goals import GOALS
from benchmarks.store import Line, Store

INTRODUCTION = """# The profilers against their goals

Printed by `make bench-profilers` (`make fashion-mnist-data` fetches the pictures; `make demo-smollm2` once, where the
language model's rows are wanted). `benchmarks/profilers/goals.py` holds the goals, `benchmarks/profilers/rows.py` what
is measured. Two networks are trained by `python -m benchmarks.profilers.train` and stored with the package:
`fashion-resnet20` (22 layers, 154 choices) and `fashion-vit` (18 layers, 126 choices); a choice is rounding to nearest
at 2 to 8 bits, symmetric, per output channel.

"""


def judge(store: Store, version: str) -> Iterator[Verdict]:
    """Every goal, against the rows of the present version."""
    for goal in GOALS:
        line = store.get(goal.row, goal.network, version)
        if line is None or goal.value not in line.values:
            yield verdict(goal, None, line.note if line is not None and line.note else "run it")
        else:
            yield verdict(goal, line.values[goal.value])


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
    return "\n\n".join(out) + "\n"


def _told(line: Line) -> str:
    return f"{line.network}, {line.name}: " + ", ".join(f"{key} {value:.6g}" for key, value in line.values.items())
