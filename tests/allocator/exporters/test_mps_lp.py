"""Programs written as MPS and LP, read back by HiGHS: the same optimum as looking at every allocation."""

import json
import math
import re

import highspy
import pytest

import allocator
from allocator.errors import UnsupportedError
from allocator.exporters import exporter_for
from allocator.exporters.lp import Lp
from allocator.exporters.mps import Mps
from allocator.exporters.program import program_of
from allocator.exporters.words import LONGEST, Words
from allocator.milp import build
from allocator.testing.random_problems import PARTS, random_rows
from allocator.testing.reference import Reference

EXPORTERS = (Mps(), Lp())


def highs(path):
    """Status, value and name → value of the program in a file."""
    model = highspy.Highs()
    model.silent()
    for option in ("mip_feasibility_tolerance", "primal_feasibility_tolerance"):
        model.setOptionValue(option, 1e-9)
    model.setOptionValue("mip_rel_gap", 0.0)
    model.setOptionValue("mip_abs_gap", 0.0)
    model.setOptionValue("threads", 1)
    model.setOptionValue("presolve", "off")  # that of HiGHS 1.14 loses the optimum of random problem 56, read from MPS
    assert model.readModel(str(path)) == highspy.HighsStatus.kOk
    model.run()
    lp = model.getLp()
    taken = dict(zip(lp.col_names_, model.getSolution().col_value, strict=False))
    return model.getModelStatus(), model.getInfo().objective_function_value, taken


def allocation(problem, taken):
    """Place per group of the choices whose variables are 1; names are in the order of the groups and choices."""
    names = [v.name for v in program_of(problem).variables if v.name.startswith("x_")]
    one = [r for name, r in zip(names, build(problem).row.tolist(), strict=True) if taken[name] > 0.5]
    assert [int(problem.group_of[r]) for r in one] == list(range(problem.group_count))
    return tuple(int(problem.places[r]) for r in one)


def objective(path, value):
    """What the comment makes of the program's value."""
    formula = re.search(r"^[*\\] objective = (.*)$", path.read_text(), re.MULTILINE)[1]
    return eval(formula.replace("^", "**"), {"value": value})


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_every_patch_of_the_example_keeps_its_optimum(exporter, golden, tmp_path):
    rows = json.loads((golden / "example.json").read_text())
    patches = json.loads((golden / "example.expected.json").read_text())
    path = tmp_path / f"p.{exporter.name}"
    written = 0
    for case in patches:
        stated = rows | case["patch"]
        problem = allocator.Problem.from_rows(stated)
        best = Reference(stated).best
        exporter.write(problem, path)
        status, value, taken = highs(path)
        written += 1
        if best is None:
            assert status == highspy.HighsModelStatus.kInfeasible
            continue
        got = problem.evaluate(allocation(problem, taken)).objective
        assert got == pytest.approx(best.objective, rel=1e-9)
        assert objective(path, value) == pytest.approx(best.objective, rel=1e-6)
    assert written > 8


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_random_problems_keep_their_optimum(exporter, tmp_path):
    path = tmp_path / f"p.{exporter.name}"
    solved = infeasible = 0
    for seed in range(120):
        rows = random_rows(seed, PARTS - {"scales", "negative_weights"}, most_groups=5, most_choices=3)
        problem = allocator.Problem.from_rows(rows)
        if any(abs(int(c)) > 2**40 for r in problem.costs for c in problem.cost(r)):
            continue  # no engine in floats can be trusted with these
        if (problem.loss.p or 1.0) > 3:
            continue  # small unaries to the power of 40 are below what an engine in floats can see
        try:
            exporter.write(problem, path)
        except UnsupportedError:
            continue  # a p-norm in a mixture
        reference = Reference(rows)
        best = reference.best
        status, _, taken = highs(path)
        if best is None:
            assert status == highspy.HighsModelStatus.kInfeasible, seed
            infeasible += 1
            continue
        assert status == highspy.HighsModelStatus.kOptimal, seed
        places = allocation(problem, taken)
        if reference.violations(places):  # a float limit met to the last bit: the solver's tolerance, not the file
            continue
        assert abs(reference.objective(places) - best.objective) <= 1e-9 * reference.scale + 1e-300, seed
        solved += 1
    assert solved > 40
    assert infeasible > 5


def test_integers_stand_exactly(tmp_path):
    big = 2**53 + 1
    problem = allocator.Problem.from_arrays(
        [[1.0, 0.0], [1.0, 0.0]], [[0, big], [0, 2 * big + 1]], budgets={"cost": 3 * big}
    )
    for exporter in EXPORTERS:
        path = tmp_path / f"p.{exporter.name}"
        exporter.write(problem, path)
        text = path.read_text()
        assert str(big) in text
        assert str(2 * big + 1) in text
        assert str(3 * big) in text
        assert "beyond 2^53" in text


def test_a_common_divisor_is_told(tmp_path):
    problem = allocator.Problem.from_arrays([[1.0, 0.0]] * 2, [[100, 300], [200, 800]], budgets={"cost": 950})
    path = tmp_path / "p.lp"
    Lp().write(problem, path)
    assert "budget_0_cost: 'cost' = 200 * left side + 300" in path.read_text()
    assert "+ 1 x_g0_c1 + 3 x_g1_c1 <= 3" in path.read_text()


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_hostile_names_are_legal_and_told_apart(exporter, tmp_path):
    names = ["a b", "a_b", "a b ", "é\n* x", "\\ end", "3e5", "-inf", "x" * 400, "x" * 400 + "y", "a-b"]
    problem = allocator.Problem.from_arrays(
        [[2.0, 1.0, 0.0]] * len(names), [[1, 2, 3]] * len(names), budgets={"cost": 15}, group_names=names,
        choice_names=["st", "2 ", "2_"],
    )  # fmt: skip
    path = tmp_path / f"p.{exporter.name}"
    exporter.write(problem, path)
    assert path.read_bytes().isascii()
    assert max(map(len, path.read_text().splitlines())) < 1000
    status, value, taken = highs(path)
    assert status == highspy.HighsModelStatus.kOptimal
    assert len(taken) == problem.choice_count
    assert problem.evaluate(allocation(problem, taken)).objective == 15.0
    assert objective(path, value) == pytest.approx(15.0)


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.name)
def test_what_cannot_hold_is_written_as_such(exporter, tmp_path):
    problem = allocator.Problem.from_arrays([[1.0, 0.0]], [[5, 9]], budgets={"cost": 4})
    path = tmp_path / f"p.{exporter.name}"
    exporter.write(problem, path)
    assert highs(path)[0] == highspy.HighsModelStatus.kInfeasible
    assert "infeasible: cost" in path.read_text()


def test_the_least_maximum_says_that_it_is_not_the_second_stage(tmp_path):
    problem = allocator.Problem.from_arrays([[3.0, 1.0], [2.0, 1.0]], [[0, 4], [0, 4]], budgets={"cost": 4})
    problem = problem.with_loss("score", aggregate="max")
    path = tmp_path / "p.mps"
    Mps().write(problem, path)
    status, value, _ = highs(path)
    assert status == highspy.HighsModelStatus.kOptimal
    assert math.isclose(objective(path, value), 2.0)
    assert "not the one of least sum" in path.read_text()


def test_a_mixture_with_a_p_norm_is_refused(tmp_path):
    problem = allocator.Problem.from_arrays([[3.0, 1.0]], [[0, 4]]).with_loss("score", aggregate="pnorm", p=2)
    with pytest.raises(UnsupportedError, match="p-norm"):
        Mps().write(problem.replace(minimize={"loss": 1.0, "cost": 1.0}), tmp_path / "p.mps")


def test_words_never_repeat():
    words = Words()
    found = [words.name("x", *parts) for parts in (("a", "b_2"), ("a", "b"), ("a_b",), ("a_b", "2"), ("a" * 999,))]
    assert len(set(found)) == len(found)
    assert max(map(len, found)) <= LONGEST + 4


@pytest.mark.parametrize(("path", "name"), [("a/b.MPS", "mps"), ("b.lp", "lp"), ("b.json", None), ("-", None)])
def test_the_ending_decides(path, name):
    assert exporter_for(path) == name
