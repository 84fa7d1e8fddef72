"""Hypothesis strategies: problems in the row form and as `Problem`, complete documents, allocations."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from allocator.problem import Problem
from allocator.testing.random_problems import PARTS, random_rows

ODD_NAMES = (
    "conv.0",
    "a/b",
    "m~n",
    "",
    "ä ö",
    "層",
    "x" * 80,
    "g1",
    "g0",
    "c0",
    "-1",
    '"quoted"',
    "tab\t",
    "‮rtl",
    "🙂",
)


def problem_rows(parts: Collection[str] = PARTS, **limits: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Problems in the row form; `parts` and `limits` as for `random_rows`. They shrink."""
    return st.randoms(use_true_random=False).map(lambda rng: random_rows(rng, parts, **limits))


def problems(parts: Collection[str] = PARTS, **limits: Any) -> st.SearchStrategy[Problem]:
    """Problems; `parts` and `limits` as for `random_rows`."""
    return problem_rows(parts, **limits).map(Problem.from_rows)


def documents(parts: Collection[str] = PARTS, **limits: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Problems in the row form that carry, in part, every optional key as well, under names that are hard to write."""
    return st.randoms(use_true_random=False).map(lambda rng: dress(random_rows(rng, parts, **limits), rng))


def allocations(problem: Problem) -> st.SearchStrategy[NDArray[np.int64]]:
    """Allocations of a problem, feasible or not: indices [G]."""
    places = st.tuples(*(st.integers(0, size - 1) for size in problem.sizes.tolist()))
    return places.map(lambda choice: np.array(choice, np.int64))


def dress(rows: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Give a problem what no solver needs: actions, modules, weights, stats, a reference, notes, odd names."""
    groups = rows["groups"]
    if rng.random() < 0.5:
        rows = _renamed(rows, rng)
        groups = rows["groups"]
    everywhere = rng.random() < 0.5  # a stat for all groups or for some
    for group in groups:
        group.pop("stats", None)
        if rng.random() < 0.5:
            group["modules"] = rng.sample(["a.weight", "b/c", "層.0"], rng.randint(0, 2))
        if rng.random() < 0.7:
            group["weights"] = rng.choice([0, 7, 2**40, 2**63 - 1])
        if everywhere or rng.random() < 0.3:
            group["stats"] = {"alpha": rng.choice([0, 1.5, -0.0, 1e-300])}
        for choice in group["choices"]:
            if rng.random() < 0.3:
                bits = rng.choice([2, 4])
                choice["action"] = rng.choice(
                    [{"kind": "keep"}, {"kind": "quantize", "bits": bits}, {"bits": bits, "kind": "x"}]
                )
    for key, value in {
        "generator": {"name": "hand", "version": "1"},
        "provenance": {"calibration": {"n": 8}, "deep": [[{"a": None}]]},
        "meta": [1, "two", {"three": 3.5}],
        "x-mine": {"free": True},
        "x-null": None,
        "requires": ["pairs"],
        "scores": {
            s: {"unit": "nat", "target": rng.choice(["kl", "ce"]), "own": 1} for s in groups[0]["choices"][0]["score"]
        },
    }.items():
        if rng.random() < 0.4:
            rows[key] = value
    if rng.random() < 0.3:
        rows["reference"] = rng.choice(["a", {g["name"]: rng.choice(g["choices"])["name"] for g in groups}])
    return rows


def _renamed(rows: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The same problem under odd group names (never empty, each once)."""
    odd = [name for name in ODD_NAMES if name]
    new = dict(zip((g["name"] for g in rows["groups"]), rng.sample(odd, len(rows["groups"])), strict=True))

    def place(pair: list[str]) -> list[str]:
        return [new[pair[0]], pair[1]]

    out = dict(rows)
    out["groups"] = [{**g, "name": new[g["name"]]} for g in rows["groups"]]
    out["pins"] = {new[g]: c for g, c in rows.get("pins", {}).items()}
    out["couplings"] = [
        {
            key: [new[g] for g in value]
            if key == "groups"
            else [place(p) for p in value]
            if key == "choices"
            else place(value)
            if key in ("if", "then")
            else value
            for key, value in coupling.items()
        }
        for coupling in rows["couplings"]
    ]
    out["interactions"] = []
    for part in rows["interactions"]:
        part = dict(part)
        if "pairs" in part:
            part["pairs"] = [{**q, "a": place(q["a"]), "b": place(q["b"])} for q in part["pairs"]]
        if "basis" in part:
            part["basis"] = {**part["basis"], "vectors": {new[g]: v for g, v in part["basis"]["vectors"].items()}}
        out["interactions"].append(part)
    return out
