"""Row on chains of neighbouring layers: ours against every exact backend that takes pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from benchmarks.interactions.chains import chain
from benchmarks.interactions.pieces import PACKAGES, SHARED, Finding, Found, Piece, Row, Settings, listing
from benchmarks.interactions.timed import above, solved
from benchmarks.store import Line

OURS = ("graph", "quadratic")
PEERS = ("scipy_milp", "ortools_mip[engine=scip]", "ortools_mip[engine=highs]", "ortools_cpsat", "scip", "gurobi")
SEED = 1
OWN = (*PACKAGES, *SHARED, "benchmarks/interactions/chains.py", "benchmarks/interactions/chain.py")


def chained(groups: int, network: str) -> Row:
    """One network; each backend in a process of its own."""
    name = f"chain {groups}"
    return Row(
        name=name,
        pieces=[
            Piece(
                row=name,
                name=solver,
                measure=partial(one, network, solver),
                sources=OWN,
                setting=lambda settings: f"{settings.limit:g} s",
            )
            for solver in (*OURS, *PEERS)
        ],
        figures=figures,
        table=listing("whole", "call", "library", "objective", "bound", "claimed", "optimal", "claims", "killed"),
    )


def one(network: str, solver: str, settings: Settings) -> Finding:
    """A backend's first call."""
    return solved(chain(SEED, network), solver, limit=settings.limit)


def figures(found: Found) -> Mapping[str, float]:
    """``ratio``: CPU seconds of the quickest correct peer's own library over our quickest backend's call.

    ``whole_ratio``: over our whole `allocator.solve` with the core's check. A peer is correct if its allocation is the
    optimum: the best of all, and somebody who has it says that nothing is better. Ours counts if it says so itself,
    ``proved`` tells whether the core agrees. ``ours`` and ``peer``: those seconds; ``correct``: how many peers are.
    The ratio is 0 where none of ours is right, and missing where no peer is.
    """
    answers = {name: line for name, line in found.items() if "objective" in line.values}
    if not answers:
        return {}
    best = min(line.values["objective"] for line in answers.values())
    right = {n: line for n, line in answers.items() if line.values["objective"] <= above(best)}
    if not any(line.values["claims"] for line in right.values()):
        return {"correct": 0.0}
    ours = [right[name] for name in OURS if name in right and right[name].values["claims"]]
    peers = [right[name] for name in PEERS if name in right]
    made = {"correct": float(len(peers)), "found": float(sum(name in right for name in OURS))}
    if ours:
        made |= {"ours": min(line.values["call"] for line in ours), "whole": min(line.values["whole"] for line in ours)}
        made["proved"] = max(line.values["optimal"] for line in ours)
    if peers:
        made["peer"] = min(map(_seconds, peers))
    if peers and not ours:
        made |= {"ratio": 0.0, "whole_ratio": 0.0}
    if ours and peers:
        made |= {"ratio": made["peer"] / made["ours"], "whole_ratio": made["peer"] / made["whole"]}
    return made


def _seconds(line: Line) -> float:
    return line.values.get("library", line.values["call"])
