"""Row on what interactions are worth: held-out divergence of allocations with and without them, over draws of data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

import numpy as np

from allocator import Problem
from allocator.budgets import apply_budgets
from allocator.statement import IntArray
from benchmarks.interactions.networks import BITS, DRAWS, NETWORKS, drawn
from benchmarks.interactions.pieces import PACKAGES, Finding, Found, Piece, Row, Settings, Table

if TYPE_CHECKING:
    from allocator.space import Space
    from allocator.workload import Workload

OWN = (
    *PACKAGES,
    "benchmarks/interactions/held_out.py",
    "benchmarks/interactions/networks.py",
    "benchmarks/profilers/truth.py",
)
KINDS = ("uniform", "additive", "quadratic", "refined")
MIDDLE = ("3", "3.5", "4")


def held_out() -> Row:
    """A piece for every network, budget and draw of calibration data."""
    return Row(
        name="held-out",
        pieces=[
            Piece(
                row="held-out",
                name=f"{network} {bits} bits draw {draw}",
                measure=partial(cell, network, bits, draw),
                sources=OWN,
            )
            for network in NETWORKS
            for bits in BITS
            for draw in range(DRAWS)
        ],
        figures=figures,
        table=table,
    )


def cell(network: str, bits: str, draw: int, settings: Settings) -> Finding:
    """KL(float ‖ allocation) in nats over all evaluation data, for every kind of `KINDS`."""
    import torch

    from allocator.demos import demo_named

    torch.set_num_threads(1)
    return Finding(values=measured(drawn(network, draw), demo_named(network).space(), bits))


def measured(workload: Workload, space: Space, bits: str) -> dict[str, float]:
    """The divergences, and the standard error of the additive one over samples.

    ``additive``: the optimum of ``kl``, measured on all calibration data, exact. ``quadratic``: ``quadratic`` on
    ``ggn`` with its interactions. ``refined``: `allocator.refine` as it comes, from ``ggn``. ``uniform``: the uniform
    allocation of the most bits that the budget allows; left out where it allows none. Those that share an allocation
    share its measurement.
    """
    from allocator import profile, refine, solve
    from benchmarks.profilers.truth import Held, compressed, wholes

    kl, ggn = (profile(workload, space, name) for name in ("kl", "ggn"))
    budget = {"weight_bytes": bytes_of(ggn, float(bits))}
    solutions = {
        "additive": solve(kl, "exact", budgets=budget),
        "quadratic": solve(ggn, "quadratic", budgets=budget),
        "refined": refine(workload, ggn, budgets=budget).solution,
    }
    places: dict[str, IntArray] = {
        name: one.allocation.choice.astype(np.int64) for name, one in solutions.items() if one.allocation is not None
    }
    plain = uniform(apply_budgets(ggn, budget))
    if plain is not None:
        places["uniform"] = plain
    held = Held(workload, list(workload.evaluation))
    values: dict[str, float] = {}
    known: dict[bytes, tuple[float, float]] = {}
    for name, place in places.items():
        key = place.tobytes()
        if key not in known:
            found = held.kl(compressed(workload.model, next(wholes(ggn, [place]))))
            known[key] = found.value, found.stderr
        values[name] = known[key][0]
        values |= {"additive_stderr": known[key][1]} if name == "additive" else {}
    return values


def bytes_of(problem: Problem, bits: float) -> int:
    """What uniform rounding to so many bits stores, scales included; the middle of two where it is halfway."""
    from allocator.demos.runner import budget_of

    low, high = (budget_of(problem, f"int{whole}") for whole in (math.floor(bits), math.ceil(bits)))
    return (low + high) // 2


def uniform(problem: Problem) -> IntArray | None:
    """The same place in every group, the last one that keeps the budget; all groups have the same choices."""
    for place in reversed(range(problem.sizes[0])):
        choice = np.full(problem.group_count, place, np.int64)
        if problem.evaluate(choice).feasible:
            return choice
    return None


def cells(found: Found) -> Iterator[tuple[str, str, Mapping[str, list[float]]]]:
    """(network, bits, kind → divergence of each draw) of the cells of which all draws are there."""
    for network in NETWORKS:
        for bits in BITS:
            lines = [found.get(f"{network} {bits} bits draw {draw}") for draw in range(DRAWS)]
            there = [line for line in lines if line is not None and line.values]
            if len(there) == DRAWS:
                kinds = [kind for kind in KINDS if all(kind in line.values for line in there)]
                yield network, bits, {kind: [line.values[kind] for line in there] for kind in kinds}


def figures(found: Found) -> Mapping[str, float]:
    """For ``quadratic`` and ``refined`` against additive, by the means over draws.

    ``…_cells``: cells of ten where it is at most as large; ``…_median``: % above it in the median of 3 to 4 bits;
    ``…_worst``: % above it in the worst cell of all. Nothing before all ten are there.
    """
    means = {(n, b): {kind: fmean(v) for kind, v in kinds.items()} for n, b, kinds in cells(found)}
    if len(means) < len(NETWORKS) * len(BITS):
        return {}
    made = {}
    for kind in ("quadratic", "refined"):
        above = {at: 100 * (mean[kind] / mean["additive"] - 1) for at, mean in means.items()}
        made[f"{kind}_cells"] = float(sum(value <= 0 for value in above.values()))
        made[f"{kind}_median"] = median(value for (_, bits), value in above.items() if bits in MIDDLE)
        made[f"{kind}_worst"] = max(above.values())
    return made


def table(found: Found) -> Table:
    """Thousandths of a nat, mean over draws ± their standard deviation, and % against additive."""
    rows = []
    for network, bits, kinds in cells(found):
        base = fmean(kinds["additive"])
        row = [network, bits]
        for kind in KINDS:
            values = kinds.get(kind)
            row.append(f"{1e3 * fmean(values):.3g} ± {1e3 * stdev(values):.2g}" if values else "-")
        row += [f"{100 * (fmean(kinds[kind]) / base - 1):+.0f} %" for kind in ("quadratic", "refined")]
        rows.append(tuple(row))
    return ("network", "bits", *KINDS, "quadratic", "refined"), rows
