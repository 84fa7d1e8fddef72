"""Every kind of row on something tiny, and its figures from pieces whose values are known."""

import math
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.interactions import chain, held_out, real, synthetic, timed, toy
from benchmarks.interactions.chains import chain as chained
from benchmarks.interactions.instances import correlated
from benchmarks.interactions.pieces import Settings, listing
from benchmarks.interactions.rows import ROWS
from benchmarks.store import Line

SETTINGS = Settings(out="nowhere", long=0.2, limit=5.0)


def line(facts=(), **values):
    return Line(name="row", network="piece", version="", values=values, facts=list(facts))


def measured(row):
    """Every piece of a row, in this process."""
    found = {}
    for piece in row.pieces:
        made = piece.measure(SETTINGS)
        found[piece.name] = Line(name=row.name, network=piece.name, version="", values=made.values, facts=made.facts)
    return found


def test_a_call_is_timed_and_its_course_recorded():
    problem = correlated(1, 5, 40)
    found = timed.solved(problem, "quadratic")
    values = found.values
    assert 0 < values["call"] <= values["whole"] < 20
    assert (values["optimal"], values["claims"], values["killed"]) == (1, 1, 0)
    assert values["bound"] == values["objective"]
    cpu, objective = found.facts[::2], found.facts[1::2]
    assert cpu == sorted(cpu)
    assert cpu[-1] <= values["whole"]
    assert all(a > b for a, b in pairwise(objective))
    assert objective[-1] == pytest.approx(values["objective"])


def test_a_library_is_timed_in_its_worker():
    found = timed.solved(correlated(1, 3, 10), "scipy_milp", limit=20)
    assert 0 < found.values["library"] <= found.values["call"] <= found.values["whole"]
    assert found.values["claims"] == 1
    assert found.facts == []


def test_when_a_level_was_reached():
    course = [0.1, 9.0, 0.2, 5.0, 0.3, 4.0]
    assert timed.reached(course, 5.0) == 0.2
    assert timed.reached(course, 3.9) is None
    assert timed.above(-2.0, 0.5) == -1.0


def test_synthetic_rows_on_a_few_groups():
    figures = synthetic.proved(5, 40, (1, 2)).figures(measured(synthetic.proved(5, 40, (1, 2))))
    assert figures["proved"] == 2
    assert figures["excess"] == pytest.approx(0, abs=1e-9)
    assert figures["search"] < 20
    figures = synthetic.near(5, 40, (1,)).figures(measured(synthetic.near(5, 40, (1,))))
    assert figures["valid"] == 1
    assert figures["excess"] == pytest.approx(0, abs=1e-9)
    assert 0 <= figures["gap"] < 100  # of the convex program alone
    figures = synthetic.large(5, 40, 1).figures(measured(synthetic.large(5, 40, 1)))
    assert figures["separable"] <= 1 + 1e-12
    assert figures["greedy"] <= 1 + 1e-12
    assert figures["honest"] == 1
    assert 0 < figures["GiB"] < 100


def test_proofs_that_fail_and_searches_that_never_arrive():
    proof, search = line(objective=1.0, whole=3.0, optimal=1.0), line((0.5, 1.0005), objective=1.0005)
    found = {"seed 1 proof": proof, "seed 1 search": search}
    figures = synthetic.proved_figures(found, (1,))
    assert figures == pytest.approx({"proof": 3.0, "search": 0.5, "proved": 1.0, "excess": 0.05})
    found |= {"seed 2 proof": line(objective=1.0, whole=3.0, optimal=0.0)}
    assert synthetic.proved_figures(found, (1, 2)) == {}
    found |= {"seed 2 search": line((0.5, 1.1), objective=1.1)}
    figures = synthetic.proved_figures(found, (1, 2))
    assert figures["proof"] == figures["search"] == math.inf
    assert (figures["proved"], figures["excess"]) == (1, pytest.approx(10))


def test_a_bound_above_the_best_known_is_not_valid():
    def found(bound):
        run = line((1.0, 1.02, 6.0, 1.005), objective=1.005, whole=7.0)
        return {"seed 1 long": line(objective=1.0), "seed 1 run": run, "seed 1 bound": line(call=0.1, bound=bound)}

    figures = synthetic.near_figures(found(0.25), (1,))
    assert figures == pytest.approx({"near": 6, "excess": 0.5, "bound": 0.1, "valid": 1, "gap": 75, "whole": 7})
    assert synthetic.near_figures(found(1.001), (1,))["valid"] == 0


def test_a_useless_bound_has_to_be_called_so():
    def honest(**values):
        found = {"seed 1 run": line(objective=1.0, whole=1.0, **values)}
        return synthetic.large_figures(found, 1)["honest"]

    assert honest(bound=0.5, no_useful_bound=0.0) == 1
    assert honest(bound=0.01, no_useful_bound=0.0) == 0
    assert honest(bound=0.01, no_useful_bound=1.0) == 1
    assert honest(no_useful_bound=0.0) == 0


def test_chains_count_only_peers_that_are_right():
    def answer(objective, claims, call, **values):
        return line(objective=objective, claims=claims, call=call, whole=2 * call, optimal=0.0, **values)

    found = {
        "graph": answer(1.0, 1.0, 0.01),
        "quadratic": answer(1.0, 0.0, 0.001),  # has it, and does not say so
        "scipy_milp": answer(1.0, 1.0, 2.0, library=1.5),
        "ortools_cpsat": answer(1.1, 1.0, 0.1, library=0.1),  # wrong
    }
    figures = chain.figures(found)
    assert figures["ratio"] == pytest.approx(150)
    assert figures["whole_ratio"] == pytest.approx(75)
    assert (figures["correct"], figures["found"], figures["proved"]) == (1, 2, 0)
    found["graph"] = answer(1.2, 1.0, 0.01)
    assert chain.figures(found)["ratio"] == 0
    assert chain.figures({"graph": answer(1.0, 0.0, 0.01)}) == {"correct": 0}
    assert chain.figures({}) == {}


def test_a_chain_is_solved_by_ours(monkeypatch):
    monkeypatch.setattr(chain, "chain", lambda seed, network: small_chain())
    best = {name: chain.one("resnet50", name, SETTINGS).values["objective"] for name in ("graph", "scipy_milp")}
    assert best["graph"] == pytest.approx(best["scipy_milp"], rel=1e-9)


def small_chain():
    problem = chained(1, "resnet50")
    rows, (pairs,) = 5 * 7, problem.interactions
    kept = (pairs.index < rows).all(axis=1)
    cut = type(problem).from_arrays(
        {"modelled": problem.unary[:rows].reshape(5, 7)},
        {"bits": problem.costs["bits"][:rows].reshape(5, 7)},
        budgets={"bits": int(0.4 * problem.costs["bits"][6:rows:7].sum())},
    )
    return cut.replace(interactions=(type(pairs)("modelled", pairs.index[kept], pairs.value[kept]),))


def test_the_toy_is_solved_and_wrong_answers_are_seen(monkeypatch):
    found = toy.seeded(0, 4)
    assert found.values["problems"] == found.values["quadratic_hits"] == found.values["cvxpy_subspace_valid"] == 5
    monkeypatch.setattr(toy, "SOLVERS", ("uniform",))
    assert toy.seeded(0, 4).values["uniform_hits"] < 5
    lines = {f"seed {i}": line(a_hits=5.0 - (i == 3)) for i in range(6)}
    assert toy.figures(lines) == {"a_hits": 29}
    assert toy.figures({"seed 0": line(a_hits=5.0)}) == {}


def test_real_figures(monkeypatch):
    found = {}
    for bits in real.BITS:
        found[f"{bits} bits search"] = line((0.01, 2.0, 0.02, 1.0), objective=1.0, whole=0.3)
        found[f"{bits} bits proof"] = line(objective=1.0, whole=0.5, optimal=1.0)
    assert real.figures(found) == {"proved": 5, "proof": 0.5, "hit": 5, "found": 0.02, "search": 0.3}
    found["3 bits proof"] = line(objective=0.9, whole=0.5, optimal=0.0)
    figures = real.figures(found)
    assert (figures["proved"], figures["hit"], figures["found"]) == (4, 4, math.inf)
    del found["3 bits proof"]
    assert real.figures(found) == {}


def test_a_real_cell_on_a_stand_in(monkeypatch):
    monkeypatch.setattr(real, "profiled", lambda network, folder: sized())
    found = real.cell("n", "3", "proof", SETTINGS)
    assert found.values["optimal"] == 1
    assert 0 < found.values["found"] <= found.values["whole"]


def sized():
    from allocator.statement import Resource

    problem = correlated(1, 4, 20)
    costs = {"weight_bytes": problem.costs["bits"]}
    resources = {"weight_bytes": Resource(unit="bit")}
    return problem.replace(costs=costs, resources=resources, budgets=())


def known(ratio):
    return {
        f"{n} {bits} bits draw {draw}": line(
            additive=1.0 + 0.1 * draw, quadratic=(1.0 + 0.1 * draw) * ratio(n, bits), refined=0.5, uniform=9.0
        )
        for n in held_out.NETWORKS
        for bits in held_out.BITS
        for draw in range(held_out.DRAWS)
    }


def test_held_out_figures():
    found = known(lambda network, bits: 1.2 if (network, bits) == ("fashion-vit", "2.5") else 0.7)
    figures = held_out.figures(found)
    assert (figures["quadratic_cells"], figures["refined_cells"]) == (9, 10)
    assert figures["quadratic_median"] == pytest.approx(-30)
    assert figures["quadratic_worst"] == pytest.approx(20)
    assert figures["refined_worst"] == pytest.approx(100 * (0.5 / 1.1 - 1))
    _, rows = held_out.table(found)
    assert len(rows) == 10
    assert rows[0][3] == "1.1e+03 ± 1e+02"
    del found["fashion-vit 3 bits draw 0"]
    assert held_out.figures(found) == {}
    assert len(held_out.table(found)[1]) == 9


def test_divergences_of_a_tiny_network(tiny):
    from benchmarks.profilers.truth import Held, compressed, wholes

    values = held_out.measured(tiny.workload, tiny.space, "5")
    assert set(values) == {"additive", "quadratic", "refined", "uniform", "additive_stderr"}
    assert all(0 <= value < 10 for value in values.values())
    held = Held(tiny.workload, tiny.workload.evaluation)
    allocated = {
        tuple(int(p) for p in np.full(3, place)): held.kl(
            compressed(tiny.workload.model, next(wholes(tiny.plain, [np.full(3, place)])))
        ).value
        for place in range(7)
    }
    assert values["uniform"] in allocated.values()
    assert values["additive"] <= max(allocated.values())


def test_listings_show_what_is_there():
    head, rows = listing("a", "b")({"one": line(a=1.23456789), "two": line(b=2.0)})
    assert head == ("piece", "a", "b")
    assert rows == [("one", "1.2346", "-"), ("two", "-", "2")]


def test_pieces_have_names_of_their_own():
    for row in ROWS.values():
        names = [piece.name for piece in row.pieces]
        assert len(set(names)) == len(names)
        assert {piece.row for piece in row.pieces} == {row.name}
