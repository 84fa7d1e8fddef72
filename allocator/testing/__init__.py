"""For those who write backends, profilers or importers: conformance, a dumb reference, random problems, strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allocator.testing.conformance import SolverConformance

__all__ = ["SolverConformance"]


def __getattr__(name: str) -> Any:
    if name != "SolverConformance":
        raise AttributeError(f"module 'allocator.testing' has no attribute {name!r}")
    from allocator.testing.conformance import SolverConformance  # pytest is loaded only here

    return SolverConformance
