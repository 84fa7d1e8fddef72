"""compare(): rows that can be believed, whatever a backend does."""

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

import allocator
from allocator import comparison_runs
from allocator.comparison import compare
from allocator.comparison_rows import Row, judged, load_rows, save_rows
from allocator.errors import UsageError

BACKENDS = textwrap.dedent("""
    import ctypes, os, time
    from dataclasses import dataclass
    from typing import ClassVar
    import numpy as np
    from allocator.errors import SolverError
    from allocator.features import ALL
    from allocator.protocols import Exactness
    from allocator.solution import Answer

    @dataclass(frozen=True, kw_only=True)
    class Backend:
        what: str
        name: ClassVar[str] = "backend"
        features: ClassVar[frozenset[str]] = ALL
        exactness: ClassVar[Exactness] = Exactness.EXACT
        stats: ClassVar[tuple[str, ...]] = ()
        isolate: ClassVar[bool] = False
        imports: ClassVar[tuple[str, ...]] = ()

        def solve(self, problem, limits, start=None):
            cheapest = np.zeros(problem.group_count, np.int64)
            if self.what == "worst":
                return Answer(choice=cheapest, claim="optimal")
            if self.what == "infeasible":
                return Answer(claim="infeasible")
            if self.what == "over":
                return Answer(choice=problem.sizes - 1, claim="optimal")
            if self.what == "bound":
                return Answer(choice=cheapest, claimed_bound=float(problem.evaluate(cheapest).objective))
            if self.what == "raises":
                raise ValueError("no idea")
            if self.what == "dies":
                print("last words", flush=True)
                os._exit(7)
            if self.what == "segfault":
                ctypes.string_at(0)
            if self.what == "sleeps":
                time.sleep(60)
            if self.what == "hog":
                held = np.ones(2**27)
                time.sleep(60)
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
            return Answer(choice=cheapest)
""")


@pytest.fixture
def backend(tmp_path, monkeypatch):
    (tmp_path / "strange_backends.py").write_text(BACKENDS)
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    module = importlib.import_module("strange_backends")
    yield lambda what: module.Backend(what=what)
    import sys

    del sys.modules["strange_backends"]


@pytest.fixture
def problem():
    """Large enough that the core alone proves nothing eagerly by looking at all allocations."""
    rng = range(24)
    scores = [[1.0 + 0.37 * (g * 7 % 11), 0.5 + 0.01 * g, 0.01 * (g * 5 % 13)] for g in rng]
    return allocator.Problem.from_arrays(scores, [[1, 2 + g % 3, 5 + g % 7] for g in rng], budgets={"cost": 70})


def run(problem, *solvers, **options):
    return {r.solver: r for r in compare({"p": problem}, list(solvers), **options)}


@pytest.mark.parametrize("isolate", [False, True])
def test_lies_are_shown(backend, problem, isolate):
    rows = compare(
        {"p": problem}, ["exact", *(backend(w) for w in ("worst", "infeasible", "over", "bound"))], isolate=isolate
    )
    exact, worst, infeasible, over, bound = rows
    assert exact.verdict == "optimal"
    assert exact.regret == 0
    assert exact.bound_regret == 0
    assert worst.verdict == "WRONG"
    assert any("claims optimal" in w for w in worst.wrong)
    assert worst.regret == pytest.approx(worst.objective - exact.objective)
    assert infeasible.wrong == ("the backend claims infeasible, but exact has a feasible allocation",)
    assert over.objective is None
    assert "not feasible: cost" in over.wrong[0]
    assert f"above the objective {exact.objective!r} of exact" in bound.wrong[0]
    assert all(r.failed for r in rows[1:])
    assert {r.isolated for r in rows} == {isolate}


def test_own_processes_give_what_this_one_gives(problem):
    names = ("exact", "lagrangian", "scipy_milp", "greedy")
    here, there = run(problem, *names), run(problem, *names, isolate=True)
    for name in names:
        same = [
            (r.status, r.claim, r.objective, r.loss, r.proven_bound, r.totals, r.regret, r.sha256, r.options, r.reasons)
            for r in (here[name], there[name])
        ]
        assert same[0] == same[1]
        assert there[name].cpu_s > 0


@pytest.mark.parametrize(
    ("what", "message"),
    [("raises", "ValueError: no idea"), ("dies", "exit code 7; it last said: last words"), ("segfault", "SIGSEGV")],
)
def test_a_crash_is_a_row(backend, problem, what, message):
    crashed, exact = compare({"p": problem}, [backend(what), "exact"], isolate=True)
    assert crashed.verdict == "crashed"
    assert message in crashed.error
    assert crashed.failed
    assert exact.verdict == "optimal"


def test_a_run_over_its_time_is_killed(backend, problem, monkeypatch):
    monkeypatch.setattr(comparison_runs, "GRACE", 0.3)
    [row] = compare({"p": problem}, [backend("sleeps")], isolate=True, time_limit=0.1)
    assert (row.verdict, row.limit) == ("killed", "time")
    assert not row.failed
    assert 0.5 <= row.seconds < 30


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_a_run_over_its_memory_is_killed(backend, problem):
    [row] = compare({"p": problem}, [backend("hog")], isolate=True, memory_limit=2**28, time_limit=60)
    assert (row.verdict, row.limit) == ("killed", "memory")
    assert "its limit is 256 MiB" in row.error
    assert row.peak_bytes > 2**28


def test_processor_time_is_that_of_the_solve(backend, problem):
    [busy] = compare({"p": problem}, [backend("busy")], isolate=True)
    assert busy.cpu_s >= 0.29


def test_a_refusal_is_no_failure():
    rows = allocator.Problem.from_arrays([[1.0, 0.0]] * 2, [[0, 1]] * 2).with_loss("score", aggregate="max")
    [row] = compare({"p": rows}, ["greedy"], isolate=True)
    assert row.verdict == "refused"
    assert "does not take" in row.error
    assert not row.failed


def test_seeds_budgets_and_order(problem):
    rows = compare({"p": problem}, "random,exact", budgets=["60", "70"], seeds=[3, 4])
    assert [(r.budget, r.seed, r.solver) for r in rows] == [
        (b, s, n) for b in ("60", "70") for s in (3, 4) for n in ("random", "exact")
    ]
    assert len({r.sha256 for r in rows}) == 2
    assert all(r.regret >= 0 for r in rows)


def test_known_rows_are_not_run_again(problem, tmp_path):
    first = compare({"p": problem}, "exact,greedy", time_limit=5)
    path = tmp_path / "rows.json"
    save_rows(path, first)
    known = load_rows(path)
    assert known == first
    made = []
    again = compare({"p": problem}, "exact,greedy,lagrangian", time_limit=5, known=known, each=made.append)
    assert [r.solver for r in made] == ["lagrangian"]
    assert again[:2] == first
    made.clear()
    compare({"p": problem}, "exact", time_limit=6, known=known, each=made.append)
    compare({"p": problem.with_budget("cost", 71)}, "exact", time_limit=5, known=known, each=made.append)
    compare({"p": problem}, "exact", time_limit=5, seed=1, known=known, each=made.append)
    assert len(made) == 3


def test_a_later_row_judges_an_earlier_one(problem):
    first = compare({"p": problem}, "random")
    assert first[0].regret == 0
    lying = [replace(first[0], claim="optimal", status="feasible")]
    assert not judged(lying)[0].wrong
    [again] = judged(lying, compare({"p": problem}, "exact"))
    assert again.regret > 0
    assert again.wrong
    assert judged([again])[0].wrong == ()


def row(**parts):
    empty = dict.fromkeys(
        ("claim", "objective", "loss", "proven_bound", "claimed_bound", "gap", "regret", "limit", "error")
    )
    base = {"problem": "p", "budget": "", "status": "feasible", "seconds": 1.0, "totals": {}, "wrong": (), "scale": 1.0}
    return Row(**(empty | base | parts))


@pytest.mark.parametrize(
    ("mine", "wrong"),
    [
        ({"objective": 1.0 + 2e-12, "claim": "optimal"}, 1),
        ({"objective": 1.0 + 0.5e-12, "claim": "optimal"}, 0),
        ({"objective": 2.0, "status": "optimal"}, 1),
        ({"objective": 2.0}, 0),
        ({"status": "infeasible"}, 1),
        ({"objective": 2.0, "proven_bound": 1.1}, 1),
        ({"objective": 2.0, "claimed_bound": 1.0 + 1e-10}, 0),
        ({"objective": 2.0, "claimed_bound": 1.0 + 1e-8}, 1),
    ],
)
def test_what_counts_as_wrong(mine, wrong):
    [found, _] = judged([row(solver="a", **mine), row(solver="b", objective=1.0)])
    assert len(found.wrong) == wrong


def test_what_cannot_be_meant(problem, tmp_path):
    with pytest.raises(UsageError, match="isolate"):
        compare({"p": problem}, "exact", memory_limit=10)
    with pytest.raises(UsageError, match="keep"):
        compare({"p": problem}, "exact", isolate=True, keep=print)
    with pytest.raises(UsageError, match="seconds above 0"):
        compare({"p": problem}, "exact", time_limit=-1)
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(UsageError, match="is not a comparison"):
        load_rows(tmp_path / "x.json")


def test_files_of_one_name_are_told_apart(problem, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        allocator.save_problem(problem, tmp_path / folder / "p.json")
    rows = compare([tmp_path / "a" / "p.json", tmp_path / "b" / "p.json"], "exact")
    assert [r.problem for r in rows] == [str(tmp_path / f / "p.json") for f in "ab"]
