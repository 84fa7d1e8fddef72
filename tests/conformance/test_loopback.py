"""A package from elsewhere, found by its entry point, whose solver knows the published format and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import allocator
from allocator import registry
from allocator.testing import SolverConformance
from allocator.testing.simple_problems import simple_rows

HERE = Path(__file__).parent / "loopback"
FILES = [HERE / "loopback_plugin.py", HERE / "loopback_program.py"]


@pytest.fixture(scope="class")
def folder(install: Any) -> Path:
    made: Path = install("loopback-package", {"loopback": "loopback_plugin:Loopback"}, FILES)
    return made


class TestLoopback(SolverConformance):
    problems = 60  # each takes a process

    @pytest.fixture
    def solver(self, folder: Path) -> str:
        return "loopback"


class TestEntryPoint:
    def test_the_registry_finds_it(self, folder: Path) -> None:
        entry = registry.find("solvers", "loopback")
        assert (entry.distribution, entry.target) == ("loopback-package", "loopback_plugin:Loopback")
        (listed,) = [one for one in allocator.solvers() if one.name == "loopback"]
        assert (listed.available, listed.exactness, listed.options) == (True, "exact", {"most": 20_000_000})

    def test_the_command_finds_it(self, folder: Path, tmp_path: Path) -> None:
        file = tmp_path / "problem.json"
        file.write_text(json.dumps(simple_rows(0)))
        command = [sys.executable, "-c", "from allocator.cli import main; main()"]
        command += ["solve", str(file), "--solver", "loopback", "--set", "most=1000", "--json"]
        path = os.pathsep.join([str(folder), *(entry or os.getcwd() for entry in sys.path)])
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["status"] == "optimal"
        assert said["solver"]["name"] == "loopback"
        assert said["solver"]["options"] == {"most": 1000}
        assert said["choices"] == dict(allocator.solve(simple_rows(0), "brute_force").choices)


def test_it_is_gone_when_its_folder_is() -> None:
    assert "loopback" not in registry.entries("solvers")


def test_its_program_knows_nothing_of_the_package() -> None:
    text = (HERE / "loopback_program.py").read_text()
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"__future__", "itertools", "json", "math", "sys", "time"}
