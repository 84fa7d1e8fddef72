"""What solving with interactions is meant to reach, as data; the report states what was measured, and the distance."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.goal import Goal
from benchmarks.interactions.networks import NETWORKS


def _real(network: str) -> Iterator[Goal]:
    row = f"real {network}"
    yield Goal(
        row=row, network=network, value="found", most=0.05, unit=" s", what="search alone: CPU until it has the optimum"
    )
    yield Goal(row=row, network=network, value="hit", least=5, what="search alone: optima of five budgets")
    yield Goal(row=row, network=network, value="proof", most=1.5, unit=" s", what="whole solve: CPU, slowest budget")
    yield Goal(row=row, network=network, value="proved", least=5, what="whole solve: proved of five budgets")


def _proved(groups: int, most: float) -> Iterator[Goal]:
    row, network = f"synthetic {groups}", f"{groups} groups"
    yield Goal(row=row, network=network, value="proof", most=most, unit=" s", what="whole solve: CPU, slower seed")
    yield Goal(row=row, network=network, value="proved", least=2, what="whole solve: proved of two seeds")
    yield Goal(
        row=row, network=network, value="search", most=0.1, unit=" s", what="search alone: CPU until .1 % above it"
    )


def _near(groups: int) -> Iterator[Goal]:
    row, network = f"synthetic {groups}", f"{groups} groups"
    yield Goal(
        row=row, network=network, value="near", most=5, unit=" s", what="CPU until 1 % above the best of a long run"
    )
    yield Goal(row=row, network=network, value="bound", most=0.3, unit=" s", what="first bound: CPU of the backend")
    yield Goal(row=row, network=network, value="valid", least=2, what="first bound: valid of two seeds")


def _large(groups: int) -> Iterator[Goal]:
    row, network = f"synthetic {groups}", f"{groups} groups"
    yield Goal(row=row, network=network, value="whole", most=20, unit=" s", what="whole solve: CPU")
    yield Goal(row=row, network=network, value="GiB", most=1.86, unit=" GiB", what="most resident memory (2 GB)")
    yield Goal(row=row, network=network, value="separable", most=1, what="objective over the separable optimum's")
    yield Goal(row=row, network=network, value="greedy", most=1, what="objective over pair-aware greedy's")
    yield Goal(row=row, network=network, value="honest", least=1, what="bound useful, or called useless (1 = yes)")


def _chain(groups: int) -> Iterator[Goal]:
    row, network = f"chain {groups}", f"{groups} groups"
    yield Goal(row=row, network=network, value="ratio", least=50, unit="×", what="chain: correct peer over our backend")
    yield Goal(row=row, network=network, value="whole_ratio", least=50, unit="×", what="the same over our whole solve")


def _toy(solver: str) -> Iterator[Goal]:
    yield Goal(row="toy", network="toy", value=f"{solver}_hits", least=30, what=f"{solver}: optima of 30")
    yield Goal(row="toy", network="toy", value=f"{solver}_valid", least=30, what=f"{solver}: valid bounds of 30")


def _held_out(kind: str) -> Iterator[Goal]:
    above = f"held-out KL, {kind}: above additive"
    for value, least, most, unit, what in (
        ("cells", 8, None, "", f"held-out KL, {kind}: cells of ten ≤ additive"),
        ("median", None, -25, " %", f"{above}, median of 3 to 4 bits"),
        ("worst", None, 5, " %", f"{above}, worst cell"),
    ):
        yield Goal(
            row="held-out", network="both", value=f"{kind}_{value}", least=least, most=most, unit=unit, what=what
        )


GOALS: tuple[Goal, ...] = (
    *(goal for network in NETWORKS for goal in _real(network)),
    *_toy("quadratic"),
    *_toy("cvxpy_subspace"),
    *_proved(40, 10),
    *_proved(60, 40),
    *_near(226),
    *_large(1500),
    *_chain(54),
    *_chain(226),
    *_held_out("refined"),
    *_held_out("quadratic"),
)
