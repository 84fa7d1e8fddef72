"""Plug-ins by name: broken, missing and strange ones are told apart and never take the host down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import allocator
from allocator import registry
from allocator.errors import UnavailableError, UnsupportedError, UsageError
from allocator.registry import Entry
from allocator.testing.random_problems import random_rows

STRANGE = {
    "gone": "no_such_package.solver:Solver",
    "raises": "plugin_that_raises:Solver",
    "unwritten": "plugin_that_works:NoSuchClass",
    "bare": "plugin_that_works:Bare",
    "fine": "plugin_that_works:Fine",
}


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Third-party solvers, one good and four bad, beside ours."""
    (tmp_path / "plugin_that_raises.py").write_text("raise RuntimeError('built for another machine')\n")
    (tmp_path / "plugin_that_works.py").write_text(
        "from dataclasses import dataclass\n"
        "from solvers.uniform import Uniform\n"
        "class Bare: pass\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Fine(Uniform):\n"
        "    turns: int = 3\n"
        "    share: float = 0.5\n"
        "    loud: bool = False\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = tuple(Entry("solvers", name, target, "stranger") for name, target in STRANGE.items())
    monkeypatch.setattr(
        registry, "_others", lambda: (*entries, Entry("solvers", "uniform", "evil:Uniform", "stranger"))
    )
    yield
    for name in ("plugin_that_raises", "plugin_that_works"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "solver 'gone' is unavailable: no module 'no_such_package'; install 'no_such_package'"),
        ("raises", "solver 'raises' of stranger is unavailable: RuntimeError: built for another machine"),
        ("unwritten", "solver 'unwritten' of stranger is unavailable: AttributeError"),
        ("bare", "solver 'bare' is unavailable: it is not a dataclass"),
    ],
)
def test_a_broken_plugin_is_unavailable_because(name: str, message: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        allocator.solve(random_rows(0), solver=name)
    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("strangers")
def test_a_good_plugin_solves_and_ours_wins_over_a_namesake() -> None:
    rows = random_rows(0, frozenset())
    solution = allocator.solve(rows, solver="fine", turns=5)
    assert solution.solver["options"] == {"turns": 5, "share": 0.5, "loud": False}
    assert registry.find("solvers", "uniform").distribution == "compression-allocator"
    assert registry.entries("solvers")["uniform"].distribution == "compression-allocator"
    assert allocator.solve(rows, solver="uniform").solver["name"] == "uniform"


@pytest.mark.usefixtures("strangers")
def test_broken_plugins_do_not_hinder_advice() -> None:
    with pytest.raises(UnsupportedError, match=r"use .*brute_force"):
        allocator.solve(random_rows(0, frozenset({"pairs"})) | {"interactions": [_pair()]}, solver="greedy")
    listed = {entry.name: entry.reason for entry in allocator.solvers()}
    assert set(listed) >= set(STRANGE)
    assert listed["raises"] is not None
    assert listed["fine"] is None


def _pair() -> dict[str, Any]:
    rows = random_rows(0, frozenset({"pairs"}))
    places = [[g["name"], g["choices"][0]["name"]] for g in rows["groups"][:2]]
    return {"score": "s", "pairs": [{"a": places[0], "b": places[1], "value": 1.0}]}


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    ("options", "turns", "share", "loud"),
    [
        ({"turns": "7", "share": "0.25", "loud": "yes"}, 7, 0.25, True),
        ({"turns": 7, "share": 1, "loud": True}, 7, 1, True),
        ({"loud": "0"}, 3, 0.5, False),
    ],
)
def test_options_are_read_as_their_types(options: dict[str, Any], turns: int, share: float, loud: bool) -> None:
    made = registry.make("solvers", "fine", options)
    assert (made.turns, made.share, made.loud) == (turns, share, loud)


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    "options",
    [
        {"turns": "x"},
        {"turns": 1.5},
        {"turns": None},
        {"turns": True},
        {"share": "much"},
        {"share": [1]},
        {"loud": "maybe"},
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"fine: option {name}=.* must be like"):
        registry.make("solvers", "fine", options)


def test_our_own_names_need_no_scan_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class NeverError(Exception):
        pass

    def scan() -> None:
        raise NeverError

    monkeypatch.setattr(registry, "_others", scan)
    assert registry.find("solvers", "brute_force").name == "brute_force"
