"""Row on a strongly coupled, indefinite toy: whether the optimum of all allocations is found, and every bound valid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import allocator
from allocator.comparison import solver_from_text
from allocator.testing.coupled_layers import coupled_layers, table
from benchmarks.interactions.pieces import PACKAGES, Finding, Found, Piece, Row, Settings, listing

SOLVERS = ("quadratic", "cvxpy_subspace")
BUDGETS = (2.5, 3.0, 3.5, 4.0, 5.0)
SEEDS, LAYERS = 6, 8
NEAR = 1e-9
"""Of Σ |score|: losses are sums in another order."""


def toy() -> Row:
    """A piece for each seed: five budgets, two backends, all 390,625 allocations."""
    return Row(
        name="toy",
        pieces=[
            Piece(
                row="toy",
                name=f"seed {seed}",
                measure=partial(seeded, seed, LAYERS),
                sources=(*PACKAGES, "benchmarks/interactions/toy.py"),
            )
            for seed in range(SEEDS)
        ],
        figures=figures,
        table=listing("problems", *(f"{solver}_{what}" for solver in SOLVERS for what in ("hits", "valid", "proved"))),
    )


def seeded(seed: int, layers: int, settings: Settings | None = None) -> Finding:
    """How often each backend finds the optimum (``hits``), states no bound above it (``valid``), and proves it."""
    values = {f"{solver}_{what}": 0.0 for solver in SOLVERS for what in ("hits", "valid", "proved")}
    _, loss, use = table(coupled_layers(seed, BUDGETS[0], layers))
    for bits in BUDGETS:
        problem = coupled_layers(seed, bits, layers)
        (budget,) = problem.budgets
        assert budget.max is not None
        best = float(loss[use <= budget.max].min())
        slip = NEAR * float(abs(problem.scores["s"]).sum())
        for name in SOLVERS:
            solution = allocator.solve(problem, solver_from_text(name), threads=1)
            stated = [bound for bound in (solution.proven_bound, solution.claimed_bound) if bound is not None]
            values[f"{name}_hits"] += solution.objective is not None and solution.objective <= best + slip
            values[f"{name}_valid"] += bool(stated) and max(stated) <= best + slip
            values[f"{name}_proved"] += solution.status == "optimal"
    return Finding(values=values | {"problems": float(len(BUDGETS))})


def figures(found: Found) -> Mapping[str, float]:
    """The sums over all seeds; nothing before all are there."""
    lines = [line for line in found.values() if line.values]
    if len(lines) < SEEDS:
        return {}
    return {name: sum(line.values[name] for line in lines) for name in lines[0].values}
