"""The bar that every solver passes."""

from typing import ClassVar

import pytest
from half_greedy import HalfGreedy

from allocator.testing import SolverConformance


class TestHalfGreedy(SolverConformance):
    """All of it."""

    @pytest.fixture
    def solver(self):
        """The instance under test, or its registry name."""
        return HalfGreedy()


class TestNoUpgrades(SolverConformance):
    """With other options; one test is let off, and every run says so."""

    problems = 30  # random problems; 150 unless said otherwise
    exempt: ClassVar = {"test_the_unit_of_costs_does_not_matter": "shown in the documentation"}

    @pytest.fixture
    def solver(self):
        """A solver is its options."""
        return HalfGreedy(upgrades=0)
