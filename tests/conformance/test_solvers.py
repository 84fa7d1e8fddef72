"""Every registered solver, a third party's as well as ours, passes the suite that outsiders run.

A solver that cannot be had fails its tests, unless its reason names an extra of ours: an extra may be missing.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import pytest

from allocator import registry
from allocator.listing import solvers
from allocator.testing import SolverConformance
from allocator.testing.reference import Reference

STEPS = 2.0**-40  # ortools_cpsat rounds a group's objective to steps of this share of its range


def extra_in(reason: str | None) -> str | None:
    """The extra that would make a solver available, if its reason names one."""
    extras = metadata.metadata(registry.DISTRIBUTION).get_all("Provides-Extra") or []
    named = re.findall(rf"{re.escape(registry.DISTRIBUTION)}\[([\w-]+)\]", reason or "")
    return next((name for name in named if name in extras), None)


class Registered(SolverConformance):
    """The suite for one name of the registry."""

    registered: str

    @pytest.fixture
    def solver(self) -> str:
        reason = REASONS[self.registered]
        if extra := extra_in(reason):
            pytest.skip(f"without the extra {extra!r}: {reason}")
        return self.registered


class Cpsat(Registered):
    def allowance(self, reference: Reference) -> float:
        return super().allowance(reference) + len(reference.groups) * reference.scale * STEPS


OWN: dict[str, type[Registered]] = {"ortools_cpsat": Cpsat}
REASONS = {listed.name: listed.reason for listed in solvers()}


def suite(name: str) -> Any:
    title = "Test" + "".join(part.title() for part in name.split("_"))
    return type(title, (OWN.get(name, Registered),), {"registered": name, "__module__": __name__})


for _name in sorted(REASONS):
    _suite = suite(_name)
    globals()[_suite.__name__] = _suite
del _suite


def test_all_registered_solvers_are_here() -> None:
    held = {kind.registered for kind in globals().values() if isinstance(kind, type) and hasattr(kind, "registered")}
    assert held == set(registry.entries("solvers"))
    assert held >= {"uniform", "greedy", "lagrangian", "brute_force", "exact", "scipy_milp", "ortools_mip"}


@pytest.mark.parametrize(
    ("reason", "extra"),
    [
        (None, None),
        ("no module 'highspy'; install it", None),
        ("solver 'x' is unavailable: no module 'torch'; pip install 'compression-allocator[torch]'", "torch"),
        ("no module 'y'; pip install 'another-package[torch]'", None),
        ("no module 'y'; pip install 'compression-allocator[no-such-extra]'", None),
    ],
)
def test_only_an_extra_of_ours_may_be_missing(reason: str | None, extra: str | None) -> None:
    assert extra_in(reason) == extra
