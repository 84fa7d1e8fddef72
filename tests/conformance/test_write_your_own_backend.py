"""The page for those who write a backend: what it shows is what lies in docs/examples, runs, and passes the suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import allocator
from allocator import registry
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.testing import SolverConformance
from allocator.testing.conformance.bench import Bench

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "write-your-own-backend.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "half_greedy"
FILES = ("half_greedy.py", "pyproject.toml", "test_half_greedy.py")
BLOCKS = re.findall(r"^```(python|toml)\n(.*?)^```", PAGE, re.M | re.S)


def test_the_page_shows_the_files_as_they_are() -> None:
    shown = [text for _, text in BLOCKS]
    assert shown[:3] == [(EXAMPLE / name).read_text(encoding="utf-8") for name in FILES]
    assert len(shown) == 4


class TestInstalled:
    def test_its_entry_point_and_the_last_block_work(self, install: Any) -> None:
        project = tomllib.loads(BLOCKS[1][1])
        (line,) = project["project"]["entry-points"]["allocator.solvers"].items()
        install(project["project"]["name"], dict([line]), [EXAMPLE / "half_greedy.py"])
        kind = registry.find("solvers", "half_greedy").load()
        assert kind.exactness is Exactness.HEURISTIC
        namespace: dict[str, Any] = {}
        exec(BLOCKS[3][1], namespace)
        problem, solution = namespace["problem"], namespace["solution"]
        again = allocator.solve(problem, "half-greedy")
        assert dict(again.choices) == dict(solution.choices)
        assert allocator.solve(problem, "half_greedy", upgrades="0").objective > again.objective


def test_the_suite_runs_there_as_an_outsider_runs_it(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(EXAMPLE / name, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", "-p", "no:xdist"]
    path = os.pathsep.join([str(tmp_path), *(entry or os.getcwd() for entry in sys.path)])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|warning|failed)", done.stdout)}
    tests = sum(name.startswith("test_") for name in dir(SolverConformance))
    assert counts == {"passed": 2 * tests - 1, "skipped": 1, "warning": 1}, done.stdout
    assert "TestNoUpgrades is exempt from test_the_unit_of_costs_does_not_matter: shown in the" in done.stdout


def test_what_may_be_overridden_is_there() -> None:
    table = PAGE[PAGE.index("| may be overridden") : PAGE.index("## What is declared")]
    named = re.findall(r"^\| `(\w+)", table, re.M)
    assert len(named) == 6
    for name in named:
        assert name in vars(Bench), name


def test_what_is_answered_and_limited_is_there() -> None:
    limits = PAGE[PAGE.index("`limits`:") : PAGE.index("`start`:")]
    for name in [n for cell in re.findall(r"^\| (`[^|]*) \|", limits, re.M) for n in re.findall(r"`(\w+)`", cell)]:
        assert name in {*Limits.__dataclass_fields__, "left"}, name
    answer = PAGE[PAGE.index("`Answer(") : PAGE.index("The half greedy claims")]
    assert set(re.findall(r"^\| `(\w+)`", answer, re.M)) == set(Answer.__dataclass_fields__)


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        path = ROOT / "docs" / file
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, target
