"""Sets what was measured against the goals and against the best MIP library that was right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median

from benchmarks.solvers.goals import GOALS, SUBJECT, Goal
from benchmarks.solvers.records import MIPS, Record, wrong
from benchmarks.solvers.tables import duration, times

WORDS = {
    "call": "engine",
    "whole": "whole solve",
    "check": "check of the certificate",
    "overhead": "core's overhead",
    "imports": "imports and discovery",
    "frontier": "frontier",
    "memory": "extra memory",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row of the goals table; met is None where nothing was measured."""

    case: str
    goal: str
    measured: str
    peer: str
    met: bool | None
    distance: str

    def cells(self) -> tuple[str, ...]:
        """As text."""
        return self.case, self.goal, self.measured, self.peer, self.distance


@dataclass(frozen=True)
class Peer:
    """The best correct MIP library on a case. at_least: none was right; seconds is what each spent until stopped."""

    name: str
    seconds: float | None
    at_least: bool = False


def judge(records: Iterable[Record], which: str = "first", subject: str = SUBJECT) -> list[Verdict]:
    """Every goal on every measured case that it names.

    Args:
        records: the latest of each (case, seed, solver).
        which: "first", "second" or "best" call, of ours and of the peers.
        subject: the backend in question.
    """
    records = list(records)
    false = wrong(records)
    found = []
    for goal in GOALS:
        text = "frontier" if goal.quantity == "frontier" else subject + (f"@{goal.engine}" if goal.engine else "")
        ours = [r for r in records if r.solver == text and fnmatchcase(r.case, goal.cases)]
        if not ours:
            row = Verdict(case=goal.cases, goal=_goal(goal), measured="-", peer="-", met=None, distance="not measured")
            found.append(row)
        names = dict.fromkeys(r.case for r in ours)
        found += [_verdict(goal, [r for r in ours if r.case == n], records, false, which) for n in names]
    return found


def best_mip(records: Iterable[Record], case: str, seed: int, which: str) -> Peer | None:
    """The quickest MIP library that proved or claimed the optimum of this case and was not beaten."""
    records = list(records)
    false = wrong(records)
    tried = [r for r in records if (r.case, r.seed) == (case, seed) and r.backend in MIPS]
    right = [
        (s, r.solver)
        for r in tried
        if r.says_optimal
        and (r.case, r.seed, r.solver) not in false
        and (s := r.seconds("library", which) or r.seconds("call", which)) is not None
    ]
    if right:
        seconds, name = min(right)
        return Peer(name, seconds)
    ran = [r for r in tried if r.outcome in ("ran", "killed")]
    if not ran:
        return Peer(f"{tried[0].outcome}: {tried[0].note.partition(':')[0]}", None) if tried else None
    stopped = [r.seconds("library", which) or r.seconds("call", which) for r in ran if not r.says_optimal]
    mistaken = [r.solver for r in ran if r.says_optimal]
    words = f"none right in {max(r.time_limit for r in ran):g} s" + (
        f" ({', '.join(mistaken)} wrong)" if mistaken else ""
    )
    return Peer(words, min((s for s in stopped if s is not None), default=None), at_least=True)


def measured(record: Record, goal: Goal, which: str) -> float | None:
    """The goal's quantity of one record."""
    if record.outcome != "ran":
        return None
    if goal.quantity == "memory":
        return (
            record.extra_bytes / record.input_bytes if record.extra_bytes is not None and record.input_bytes else None
        )
    return record.seconds("whole" if goal.quantity == "frontier" else goal.quantity, which)


def _verdict(
    goal: Goal, ours: Sequence[Record], records: Sequence[Record], false: set[tuple[str, int, str]], which: str
) -> Verdict:
    known = [(v, r) for r in ours if (v := measured(r, goal, which)) is not None]
    case = ours[0].case if len(ours) == 1 else f"{ours[0].case}, {len(ours)} seeds"
    if not known:
        note = f"{ours[0].outcome}: {ours[0].note}"
        return Verdict(case=case, goal=_goal(goal), measured="-", peer="-", met=False, distance=note)
    values = [v for v, _ in known]
    worst, at = max(known, key=lambda pair: pair[0])
    shown = (
        _amount(goal, worst)
        if len(values) == 1
        else f"median {_amount(goal, median(values))}, worst {_amount(goal, worst)}"
    )
    if which == "first" and len(values) == 1 and (warm := measured(at, goal, "best")) not in (None, worst):
        shown += f" (warm {_amount(goal, warm or 0.0)})"
    peer = best_mip(records, at.case, at.seed, which) if goal.quantity in ("call", "whole") else None
    missed = [*_failures(goal, ours, false), *_distances(goal, worst, peer)]
    if len(known) < len(ours):
        missed.append(f"{len(ours) - len(known)} of {len(ours)} not measured")
    return Verdict(
        case=case, goal=_goal(goal), measured=shown, peer=_against(peer, worst), met=not missed,
        distance="; ".join(missed) or "met",
    )  # fmt: skip


def _failures(goal: Goal, ours: Sequence[Record], false: set[tuple[str, int, str]]) -> Iterator[str]:
    """Answers that are wrong, or not proved where they must be."""
    lies = [r for r in ours if (r.case, r.seed, r.solver) in false]
    if lies:
        yield f"{len(lies)} WRONG"
    open_ = [r for r in ours if r.status != "optimal" and not (goal.gap is not None and (r.gap or 1.0) <= goal.gap)]
    if goal.proved and open_:
        gaps = [r.gap for r in open_ if r.gap is not None]
        yield f"{len(open_)} of {len(ours)} not proved" + (f", gap {max(gaps):.1g}" if gaps else "")


def _distances(goal: Goal, value: float, peer: Peer | None) -> Iterator[str]:
    """By what factor a figure misses."""
    if goal.most is not None and value > goal.most:
        yield f"{times(value / goal.most)} the goal"
    if goal.ratio is not None:
        if peer is None or peer.seconds is None:
            yield "no MIP to compare with" if peer is None else "no correct MIP to compare with"
        elif peer.seconds / value < goal.ratio:
            yield f"{peer.seconds / value / goal.ratio:.2g} of the ratio" + (" at least" if peer.at_least else "")


def _against(peer: Peer | None, value: float) -> str:
    if peer is None:
        return "-"
    if peer.seconds is None or value <= 0:
        return peer.name
    return f"{'>' if peer.at_least else ''}{times(peer.seconds / value)} {peer.name}"


def _goal(goal: Goal) -> str:
    parts = [f"≤ {_amount(goal, goal.most)}"] if goal.most is not None else []
    parts += [f"≥ {goal.ratio:g}×"] if goal.ratio is not None else []
    parts += [f"proved or within {goal.gap:g}" if goal.gap else "proved"] if goal.proved else []
    return f"{WORDS[goal.quantity]}{' in numpy' if goal.engine else ''}: {', '.join(parts)}"


def _amount(goal: Goal, value: float) -> str:
    return f"{value:.2g}× input" if goal.quantity == "memory" else duration(value)
