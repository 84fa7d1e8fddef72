"""One problem per kind: its choices alone beside the best of each group, and a solution of the whole."""

import numpy as np

from allocator.apart import MENU_OF, apart, menu_of
from allocator.kinds import KINDS
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.statement import Budget

INT = {"kind": "quantize", "bits": 4}
RANK = {"kind": "low_rank", "rank": 2}
KEPT = {"kind": "prune", "density": 0.5}
KEEP = {"kind": "keep"}


def of(rows, budget):
    """A problem of (action, loss, bytes) per group."""
    groups = [
        {
            "name": f"g{i}",
            "modules": [f"m{i}"],
            "choices": [
                {
                    "name": f"c{k}",
                    **({} if action is None else {"action": action}),
                    "score": {"s": loss},
                    "cost": {"b": size},
                }
                for k, (action, loss, size) in enumerate(group)
            ],
        }
        for i, group in enumerate(rows)
    ]
    problem = Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "resources": {"b": {}},
            "loss": {"terms": {"s": 1}},
            "groups": groups,
        }
    )
    return problem.replace(budgets=(Budget("b", max=budget),))


ROWS = [
    [(KEEP, 0.0, 9), (INT, 2.0, 4), (RANK, 1.0, 4)],
    [(KEEP, 0.0, 9), (INT, 1.0, 4), (RANK, 2.0, 4), (KEPT, 3.0, 1)],
]


def test_every_kind_of_the_menus_has_a_name():
    for name, menu in KINDS.items():
        assert {menu_of(choice) for choice in menu} == {name}
    assert set(MENU_OF.values()) == set(KINDS)
    assert menu_of({"kind": "corrected", "action": {"kind": "corrected", "action": RANK}}) == "ranks"
    assert menu_of(KEEP) is None
    assert menu_of({}) is None


def test_each_kind_alone_is_worse_than_all_of_them_and_one_of_their_solutions():
    problem = of(ROWS, 8)
    kinds = apart(problem)
    assert list(kinds) == ["bits", "ranks", "sparsity"]
    assert kinds["bits"].free.tolist() == [True, True, False, True, True, False, False]
    assert kinds["ranks"].free.tolist() == [True, False, True, True, False, True, False]
    assert kinds["sparsity"].free.tolist() == [True, False, False, True, False, False, True]
    assert solve(problem).objective == 2.0
    assert [solve(kinds[name]).objective for name in ("bits", "ranks")] == [3.0, 3.0]
    assert solve(kinds["sparsity"]).status == "infeasible"
    for name in ("bits", "ranks"):
        assert problem.evaluate(solve(kinds[name]).allocation.choice).feasible


def test_what_is_forbidden_stays_so():
    problem = of(ROWS, 30)
    kinds = apart(problem.replace(allowed=np.array([False, True, True, True, True, True, False])))
    assert list(kinds) == ["bits", "ranks"]
    assert kinds["bits"].free.tolist() == [False, True, True, True, True, False, False]  # rank 2 is the best of g0


def test_of_one_kind_or_without_actions_there_is_nothing_to_part():
    assert apart(of([[(KEEP, 0.0, 9), (INT, 2.0, 4)]], 9)) == {}
    assert apart(of([[(None, 0.0, 9), (None, 2.0, 4)]], 9)) == {}
    assert list(apart(of([[(None, 0.0, 9), (INT, 2.0, 4), (RANK, 3.0, 4)]], 9))) == ["bits", "ranks"]
