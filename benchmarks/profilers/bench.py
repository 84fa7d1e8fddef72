"""What a row is given: the network, what was measured of it already, and a place to keep more."""

from __future__ import annotations

from collections.abc import Callable

import torch

from allocator import __version__
from allocator.errors import UsageError
from benchmarks.profilers import draws, truth
from benchmarks.profilers.predictors import MAKERS, Predictor
from benchmarks.profilers.subject import Subject
from benchmarks.store import Line, Store, digest

SOURCES = ("allocator", "profilers", "solvers", "benchmarks/profilers")
OF_TRUTH = ("allocator/actions", "allocator/applier", "allocator/tasks", "allocator/demos")
"""Measured divergences do not depend on statistics: a change of these alone makes them stale."""


class Bench:
    """One network under measurement; what takes long is done once and kept.

    Args:
        network: a name, for the store.
        load: makes the subject, when it is first needed.
        store: of finished rows and facts.
        each: random allocations per range of widths.
    """

    def __init__(self, network: str, load: Callable[[], Subject], store: Store, each: int = draws.EACH) -> None:
        self.network = network
        self.store = store
        self.each = each
        self._load = load
        self._subject: Subject | None = None
        self._predictors: dict[str, Predictor] = {}

    @property
    def subject(self) -> Subject:
        """The network with its data."""
        if self._subject is None:
            self._subject = self._load()
        return self._subject

    def predictor(self, name: str) -> Predictor:
        """One of `predictors.MAKERS`, made once."""
        if name not in self._predictors:
            self._predictors[name] = maker(name)(self.subject)
        return self._predictors[name]

    def single_kl(self) -> list[float]:
        """Held-out divergence of every choice alone, in the order of the problem's rows."""
        return self._fact("single_kl", lambda held, s: truth.kls(held, truth.singles(s.plain)))

    def whole_kl(self) -> list[float]:
        """Held-out divergence of the random allocations."""
        return self._fact(
            "whole_kl", lambda held, s: truth.kls(held, truth.wholes(s.plain, draws.allocations(s, self.each)))
        )

    def _fact(self, name: str, measured: Callable[[truth.Held, Subject], list[float]]) -> list[float]:
        version = f"{digest(*OF_TRUTH)} {self.subject.samples} {self.each} {torch.__version__}"
        kept = self.store.get(name, self.network, version)
        if kept is None:
            held = truth.Held(self.subject.workload, self.subject.held_out)
            facts = measured(held, self.subject)
            kept = Line(name=name, network=self.network, version=version, facts=facts)
            self.store.add(kept)
        return kept.facts


def maker(name: str) -> Callable[[Subject], Predictor]:
    """What makes a predictor.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in MAKERS:
        raise UsageError(f"no predictor is called {name!r}, only {', '.join(MAKERS)}")
    return MAKERS[name]


def version() -> str:
    """What the result of a row depends on."""
    return f"{__version__}+{digest(*SOURCES)}, torch {torch.__version__}"
