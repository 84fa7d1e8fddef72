"""The core starts fast: no heavy package is imported until something needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "cvxpy",
    "ortools",
    "networkx",
    "scipy",
    "highspy",
    "hypothesis",
    "pytest",
    "matplotlib",
    "typer",
    "rich",
)
LIMIT_S = 0.3

REPORT = f"""
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(*heavy, "took", time.process_time() - started)
"""


def run(script: str) -> tuple[str, float]:
    """Heavy modules that the script loaded, and the processor seconds it took, Python's own start left out.

    Processor time, because on a busy machine the clock measures the neighbours.
    """
    text = "import sys, time\nstarted = time.process_time()\n" + script + REPORT
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    heavy, _, took = done.stdout.rpartition("took")
    return heavy.strip(), float(took)


SOLVE = "import allocator\nassert allocator.solve({path!r}, solver='brute_force').status == 'optimal'\n"


@pytest.fixture
def scripts(golden: Path) -> dict[str, str]:
    return {"import": "import allocator\n", "solve": SOLVE.format(path=str(golden / "example.json"))}


@pytest.mark.parametrize("what", ["import", "solve"])
def test_nothing_heavy_is_imported(what: str, scripts: dict[str, str]) -> None:
    heavy, _ = run(scripts[what])
    assert heavy == ""


def test_every_core_module_is_light() -> None:
    """Also those that are imported late: checks, reductions, formats."""
    names = """
        pipeline verification reduce bounds budgets registry listing comparison isolation actions formats.problems
        formats.solutions formats.columns formats.schema testing.claims testing.random_problems
    """
    modules = [f"allocator.{name}" for name in names.split()]
    modules += [f"solvers.{name}" for name in ("uniform", "greedy", "lagrangian", "brute_force")]
    heavy, _ = run("".join(f"import {name}\n" for name in modules))
    assert heavy == ""


@pytest.mark.serial
@pytest.mark.parametrize("what", ["import", "solve"])
def test_it_takes_less_than_a_third_of_a_second(what: str, scripts: dict[str, str]) -> None:
    best = min(run(scripts[what])[1] for _ in range(5))
    assert best < LIMIT_S
