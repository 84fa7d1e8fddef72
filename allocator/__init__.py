"""Choose a bit-width, rank or format per layer of a neural network: optimal under a budget, with a checked proof.

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Problem": "allocator.problem",
    "Solution": "allocator.solution",
    "Answer": "allocator.solution",
    "Allocation": "allocator.solution",
    "Limits": "allocator.protocols",
    "Exactness": "allocator.protocols",
    "load_problem": "allocator.formats.problems",
    "save_problem": "allocator.formats.problems",
    "load_solution": "allocator.formats.solutions",
    "solve": "allocator.pipeline",
    "compare": "allocator.comparison",
    "Frontier": "allocator.curve",
    "frontier": "allocator.pareto",
    "load_frontier": "allocator.pareto",
    "explain": "allocator.explanation",
    "conflict": "allocator.conflicts",
    "stability": "allocator.resampling",
    "solvers": "allocator.listing",
    "Workload": "allocator.workload",
    "Space": "allocator.space",
    "profile": "allocator.profiling",
    "layer_statistics": "allocator.applying",
    "fidelity": "allocator.faithfulness.checking",
    "refine": "allocator.refining.refinement",
    "recover": "allocator.recovery.distilling",
    "run": "allocator.methods.running",
    "compare_methods": "allocator.methods.comparing",
    "apply_": "allocator.applier.apply",
    "compress": "allocator.applier.checkpoint",
    "save_compressed": "allocator.applier.saving",
    "load_compressed": "allocator.applier.loading",
    "export_program": "allocator.applier.program",
    "load_program": "allocator.applier.program",
    "load_weights": "allocator.applier.loading",
}

if TYPE_CHECKING:
    from allocator.applier.apply import apply_
    from allocator.applier.checkpoint import compress
    from allocator.applier.loading import load_compressed, load_weights
    from allocator.applier.program import export_program, load_program
    from allocator.applier.saving import save_compressed
    from allocator.applying import layer_statistics
    from allocator.comparison import compare
    from allocator.conflicts import conflict
    from allocator.curve import Frontier
    from allocator.explanation import explain
    from allocator.faithfulness.checking import fidelity
    from allocator.formats.problems import load_problem, save_problem
    from allocator.formats.solutions import load_solution
    from allocator.listing import solvers
    from allocator.methods.comparing import compare_methods
    from allocator.methods.running import run
    from allocator.pareto import frontier, load_frontier
    from allocator.pipeline import solve
    from allocator.problem import Problem
    from allocator.profiling import profile
    from allocator.protocols import Exactness, Limits
    from allocator.recovery.distilling import recover
    from allocator.refining.refinement import refine
    from allocator.resampling import stability
    from allocator.solution import Allocation, Answer, Solution
    from allocator.space import Space
    from allocator.workload import Workload

__all__ = [
    "Allocation",
    "Answer",
    "Exactness",
    "Frontier",
    "Limits",
    "Problem",
    "Solution",
    "Space",
    "Workload",
    "apply_",
    "compare",
    "compare_methods",
    "compress",
    "conflict",
    "explain",
    "export_program",
    "fidelity",
    "frontier",
    "layer_statistics",
    "load_compressed",
    "load_frontier",
    "load_problem",
    "load_program",
    "load_solution",
    "load_weights",
    "profile",
    "recover",
    "refine",
    "run",
    "save_compressed",
    "save_problem",
    "solve",
    "solvers",
    "stability",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'allocator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
