"""Rows on synthetic networks: 40 and 60 groups are to be proved, 226 to be near a long run, 1,500 to be no worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from time import perf_counter

import allocator
from allocator import Problem
from benchmarks.interactions.greedy import greedy
from benchmarks.interactions.instances import correlated, facts
from benchmarks.interactions.pieces import PACKAGES, SHARED, Finding, Found, Piece, Row, Settings, Table, listing
from benchmarks.interactions.timed import above, reached, solved
from benchmarks.solvers.clock import Clock, resident

INSTANCE = ("benchmarks/interactions/instances.py", "benchmarks/solvers/case.py")
OWN = (*PACKAGES, *SHARED, *INSTANCE, "benchmarks/interactions/synthetic.py")

DEFAULT, SEARCH, BOUND = "quadratic", "quadratic[nodes=0,steps=0]", "quadratic[effort=0]"
NEAR, CLOSE = 1e-2, 1e-3
LIMIT = 120.0
"""Seconds on the clock that a run without proof may take."""


def proved(groups: int, rank: int, seeds: Sequence[int]) -> Row:
    """Instances of full rank: the proof, and the search alone."""
    return _row(groups, rank, seeds, ("facts", "search", "proof"), partial(proved_figures, seeds=seeds))


def near(groups: int, rank: int, seeds: Sequence[int]) -> Row:
    """Instances too large for a proof: the default run against a long one, and the first bound."""
    return _row(groups, rank, seeds, ("facts", "long", "run", "bound"), partial(near_figures, seeds=seeds))


def large(groups: int, rank: int, seed: int) -> Row:
    """An instance where the default run can be held against simple peers only."""
    return _row(groups, rank, (seed,), ("facts", "peers", "run"), partial(large_figures, seed=seed))


def proved_figures(found: Found, seeds: Sequence[int]) -> dict[str, float]:
    """``proof``: CPU seconds of the slowest proof; ``proved``: how many; ``search``: of the search alone, until .1 %.

    ``excess``: % of the search's own end above the best known. Seconds are infinite where one
    of the seeds never gets there.
    """
    proofs, within, excess = [], [], []
    for seed in seeds:
        pair = [found.get(f"seed {seed} {what}") for what in ("proof", "search")]
        if any(line is None or "objective" not in line.values for line in pair):
            return {}
        proof, search = (line for line in pair if line is not None)
        best = min(proof.values["objective"], search.values["objective"])
        proofs.append(proof.values["whole"] if proof.values["optimal"] else None)
        within.append(reached(search.facts, above(best, CLOSE)))
        excess.append(100 * (search.values["objective"] / best - 1))
    figures = {"proved": float(sum(p is not None for p in proofs)), "excess": max(excess)}
    return figures | _slowest("proof", proofs) | _slowest("search", within)


def near_figures(found: Found, seeds: Sequence[int]) -> dict[str, float]:
    """``near``: CPU seconds until 1 % above the best known; ``excess``: % of the end above it; ``bound``: CPU seconds.

    ``valid``: how many bounds are at most the best known; ``gap``: the largest, in % of the best known. ``whole``: CPU
    seconds of the whole run.
    """
    within, excess, bounds, gaps, wholes, valid = [], [], [], [], [], 0
    for seed in seeds:
        lines = [found.get(f"seed {seed} {what}") for what in ("long", "run", "bound")]
        if any(line is None or not line.values for line in lines):
            return {}
        long, ours, bound = (line for line in lines if line is not None)
        best = min(line.values["objective"] for line in (long, ours, bound) if "objective" in line.values)
        within.append(reached(ours.facts, above(best, NEAR)))
        wholes.append(ours.values["whole"])
        excess.append(100 * (ours.values["objective"] / best - 1))
        bounds.append(bound.values["call"])
        if "bound" in bound.values:
            valid += bound.values["bound"] <= above(best)
            gaps.append(100 * (1 - bound.values["bound"] / best))
    figures = {"excess": max(excess), "bound": max(bounds), "valid": float(valid), "whole": max(wholes)}
    return figures | _slowest("near", within) | ({"gap": max(gaps)} if gaps else {})


def large_figures(found: Found, seed: int) -> dict[str, float]:
    """``whole``: CPU seconds; ``GiB``: most resident memory; ``separable``, ``greedy``: objective over the peer's.

    ``honest``: 1 if the bound is within 95 % of the objective, or is said to be of no use; ``gap``: in %.
    """
    ours, others = found.get(f"seed {seed} run"), found.get(f"seed {seed} peers")
    if ours is None or "objective" not in ours.values:
        return {}
    values, objective = ours.values, ours.values["objective"]
    figures: dict[str, float] = {name: values[name] for name in ("whole", "GiB") if name in values}
    gap = 1 - values["bound"] / objective if "bound" in values else None
    figures["honest"] = float(values["no_useful_bound"] or (gap is not None and gap <= 0.95))
    if gap is not None:
        figures["gap"] = 100 * gap
    for name in ("separable", "greedy"):
        if others is not None and name in others.values:
            figures[name] = objective / others.values[name]
    return figures


def long_run(problem: Problem, seconds: float) -> Finding:
    """The best of many searches, a seed each, every one twice as long as the last, until the time is over."""
    started, values, points = perf_counter(), {}, []
    for seed in count():
        left = seconds - (perf_counter() - started)
        if left <= 0:
            break
        found = solved(problem, f"quadratic[effort={2**seed},nodes=0,steps=0]", limit=left, seed=seed)
        points.append(found.values["objective"])
        values = {"objective": min(points), "searches": float(len(points)), "at_first": points[0]}
    return Finding(values=values, facts=points)


def peers(problem: Problem) -> Finding:
    """The objectives of the separable optimum and of `greedy` in the problem itself, and the CPU seconds of each."""
    clocks = {"separable": Clock(), "greedy": Clock()}
    with clocks["separable"].running():
        alone = allocator.solve(problem.replace(interactions=()), "exact").allocation
    with clocks["greedy"].running():
        taken = greedy(problem)
    assert alone is not None
    values = {"separable": problem.evaluate(alone.choice).objective, "greedy": problem.evaluate(taken).objective}
    return Finding(values=values | {f"{name}_s": clock.cpu for name, clock in clocks.items()})


def run(problem: Problem) -> Finding:
    """The default run of a size at which nothing is proved, with the memory that the process held at most."""
    found = solved(problem, DEFAULT, limit=LIMIT)
    peak = resident("VmHWM")
    return Finding(values=found.values | ({} if peak is None else {"GiB": peak / 2**30}), facts=found.facts)


MEASURES: Mapping[str, Callable[[Problem, Settings], Finding]] = {
    "facts": lambda problem, _: Finding(values=facts(problem)),
    "proof": lambda problem, _: solved(problem, DEFAULT),
    "search": lambda problem, _: solved(problem, SEARCH),
    "run": lambda problem, _: run(problem),
    "bound": lambda problem, _: solved(problem, BOUND),
    "long": lambda problem, settings: long_run(problem, settings.long),
    "peers": lambda problem, _: peers(problem),
}
KEPT = {"facts": INSTANCE, "long": INSTANCE, "peers": (*INSTANCE, "benchmarks/interactions/greedy.py")}
"""What these found stays true whatever becomes of the solvers: a long run is the value of an allocation."""


def _row(
    groups: int, rank: int, seeds: Sequence[int], kinds: Sequence[str], figures: Callable[[Found], Mapping[str, float]]
) -> Row:
    name = f"synthetic {groups}"
    pieces = [
        Piece(
            row=name,
            name=f"seed {seed} {kind}",
            measure=partial(_measured, MEASURES[kind], seed, groups, rank),
            sources=KEPT.get(kind, OWN),
            setting=_seconds if kind == "long" else _none,
        )
        for seed in seeds
        for kind in kinds
    ]
    return Row(name=name, pieces=pieces, figures=figures, table=_table)


def _measured(
    measure: Callable[[Problem, Settings], Finding], seed: int, groups: int, rank: int, settings: Settings
) -> Finding:
    return measure(correlated(seed, groups, rank), settings)


def _seconds(settings: Settings) -> str:
    return f"{settings.long:g} s"


def _none(_: Settings) -> str:
    return ""


def _slowest(name: str, seconds: Sequence[float | None]) -> dict[str, float]:
    """The largest; infinite where one never came."""
    return {name: max(math.inf if s is None else s for s in seconds)}


def _table(found: Found) -> Table:
    """The runs; what the instances are stands under it in a sentence of its own."""
    runs = {name: line for name, line in found.items() if not name.endswith(("facts", "peers"))}
    return listing("whole", "call", "objective", "bound", "optimal", "GiB", "searches")(runs)
