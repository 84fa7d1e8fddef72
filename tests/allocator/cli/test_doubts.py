"""`solve` and `explain` say what speaks against the optimum of a loss with interactions."""

from __future__ import annotations

import numpy as np
import pytest

from allocator.formats.problems import save_problem
from allocator.problem import Problem
from allocator.statement import Basis


@pytest.mark.parametrize("command", ["solve", "explain"])
def test_the_warnings_are_said(run, tmp_path, command):
    path = tmp_path / "problem.json"
    vectors = np.random.default_rng(0).normal(size=(8, 2))
    plain = Problem.from_arrays({"s": np.ones((4, 2))}, {"b": np.ones((4, 2), int)})
    save_problem(plain.replace(interactions=(Basis("s", np.array([3.0, -1.0]), vectors),)), path)
    code, _, err = run(command, path)
    assert code == 0
    assert "warning: the interactions of s have 2 rows for 8 choices" in err
    assert "`allocator refine` leaves that part out" in err
    save_problem(plain, path)
    assert "interactions" not in run(command, path)[2]
