"""Row on the measured interactions of real networks: how soon the best allocation is found, and proved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from allocator.budgets import apply_budgets
from benchmarks.interactions.networks import BITS, profiled
from benchmarks.interactions.pieces import PACKAGES, SHARED, Finding, Found, Piece, Row, Settings, listing
from benchmarks.interactions.timed import above, reached, solved

OWN = (*PACKAGES, *SHARED, "benchmarks/interactions/networks.py", "benchmarks/interactions/real.py")
RUNS = {"search": "quadratic[nodes=0,steps=0]", "proof": "quadratic"}


def real(network: str) -> Row:
    """A network's ``ggn`` problem at five budgets: the search alone and the proof, a process each."""
    return Row(
        name=f"real {network}",
        pieces=[
            Piece(
                row=f"real {network}", name=f"{bits} bits {run}", measure=partial(cell, network, bits, run), sources=OWN
            )
            for bits in BITS
            for run in RUNS
        ],
        figures=figures,
        table=listing("whole", "call", "objective", "bound", "optimal", "found"),
    )


def cell(network: str, bits: str, run: str, settings: Settings) -> Finding:
    """One run at one budget. ``found``: CPU seconds until what it ended with was first reported."""
    problem = apply_budgets(profiled(network, settings.folder), f"weight_bytes={bits}bits")
    made = solved(problem, RUNS[run])
    if "objective" in made.values:
        found = reached(made.facts, above(made.values["objective"]))
        made.values |= {} if found is None else {"found": found}
    return made


def figures(found: Found) -> Mapping[str, float]:
    """``proved``: budgets at which the core proved the optimum; ``proof``: CPU seconds of the slowest whole call.

    ``hit``: budgets at which the search alone ends with the best known; ``found``: CPU seconds until it had it, the
    slowest; infinite where one is missing. ``search``: CPU seconds of the slowest search.
    """
    cells = [[found.get(f"{bits} bits {run}") for run in RUNS] for bits in BITS]
    lines = [[line for line in pair if line is not None and "objective" in line.values] for pair in cells]
    if any(len(pair) < len(RUNS) for pair in lines):
        return {}
    times = []
    for search, proof in lines:
        best = min(search.values["objective"], proof.values["objective"])
        times.append(reached(search.facts, above(best)))
    hits = [t for t in times if t is not None]
    return {
        "proved": sum(proof.values["optimal"] for _, proof in lines),
        "proof": max(proof.values["whole"] for _, proof in lines),
        "hit": float(len(hits)),
        "found": max(hits) if len(hits) == len(BITS) else math.inf,
        "search": max(search.values["whole"] for search, _ in lines),
    }
