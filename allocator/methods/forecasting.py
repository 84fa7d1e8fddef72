"""What a method will cost, said before it begins: forward and backward passes over the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allocator import registry
from allocator.actions import Keep
from allocator.errors import AllocatorError
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched

if TYPE_CHECKING:
    from allocator.methods.method import Method, Spec
    from allocator.space import Space
    from allocator.workload import Workload

FORWARD = 1 / 3
"""A forward pass in units of a forward and a backward one, about."""
LONG = 1000
"""Passes from which on a method is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much there is to measure.

    Attributes:
        choices: of each layer, those that change its weight.
        samples: rows of calibration data.
    """

    choices: tuple[int, ...]
    samples: int

    @property
    def layers(self) -> int:
        """L."""
        return len(self.choices)

    @property
    def pairs(self) -> int:
        """Pairs of choices of different layers."""
        return (sum(self.choices) ** 2 - sum(k * k for k in self.choices)) // 2

    def share(self, samples: int | None) -> float:
        """The part of the calibration data that so many rows are; all for 0 and None."""
        return min(1.0, samples / self.samples) if samples else 1.0


def _remainder(options: Mapping[str, Any], extent: Extent) -> float:
    own, part = (
        PASSES.get(options.get("of", "first_order"), _unknown)({}, extent),
        extent.share(options.get("samples", 64)),
    )
    return own * (1 + part) + sum(extent.choices) * FORWARD * part


def _unknown(options: Mapping[str, Any], extent: Extent) -> float:
    return 0.0


def _pairs(options: Mapping[str, Any], extent: Extent) -> float:
    return (extent.pairs + sum(extent.choices)) * FORWARD * extent.share(options.get("samples", 128))


def _lanczos(options: Mapping[str, Any], extent: Extent) -> float:
    trace = TRACE * extent.layers if options.get("probes") else 0.0
    return 4.6 * int(options.get("steps", 32)) + 3.0 * int(options.get("count", 8)) + trace


def _fixed(passes: float) -> Callable[[Mapping[str, Any], Extent], float]:
    return lambda options, extent: passes


TRACE = 17.0
"""Passes that the trace of one layer's block takes, at most."""

PASSES: Mapping[str, Callable[[Mapping[str, Any], Extent], float]] = {
    "ggn": _fixed(3),
    "ggn_diag": _fixed(3),
    "fisher": _fixed(3),
    "first_order": _fixed(3),
    "rate_distortion": _fixed(3),
    "kfac": _fixed(3),
    "output_error": _fixed(2.6),
    "component_slopes": _fixed(2),
    "block_influence": _fixed(0.9),
    "orthogonality": _fixed(0.5),
    "weight_error": _fixed(0),
    "singular_spectrum": lambda options, extent: 5.0 if options.get("whitened") else 0.0,
    "output_fisher": lambda options, extent: 1 + max(extent.choices, default=0) * FORWARD,
    "kl": lambda options, extent: sum(extent.choices) / 5,
    "hessian": lambda options, extent: 1.6 + 0.7 * sum(extent.choices),
    "hessian_trace": lambda options, extent: TRACE * extent.layers,
    "lanczos": _lanczos,
    "remainder": _remainder,
    "measured_pairs": _pairs,
}
"""Statistic → passes for these options, after the table in docs/profilers.md; upper ends where it has ranges."""


def passes_of(spec: Spec, extent: Extent) -> float:
    """Passes that a statistic takes: what it says itself by ``passes(extent)``, or `PASSES`; 0 where nobody knows."""
    if spec.name in PASSES:
        return PASSES[spec.name](spec.options, extent)
    own = getattr(registry.make("profilers", spec.name, spec.options), "passes", None)
    return float(own(extent)) if callable(own) else 0.0


def extent_of(workload: Workload, space: Space) -> Extent:
    """Layers and choices of a space on the network; runs one calibration sample, and measures nothing."""
    from profilers._fast_path import opened
    from profilers._plan import plan

    with untouched(workload.model), opened(workload):
        targets = plan(workload, space).targets
    changing = tuple(sum(item.action != Keep() for item in target.menu) for target in targets)
    return Extent(choices=changing, samples=sum(map(count, workload.calibration)))


def forecasts(workload: Workload, methods: Sequence[Method], space: Space) -> list[float | None]:
    """Passes that each method will take, about; None for one that cannot take the space, and will say why."""
    extents: dict[str, Extent] = {}
    found: list[float | None] = []
    for method in methods:
        try:
            own = method.space(space)
            key = repr(own.to_json())
            if key not in extents:
                extents[key] = extent_of(workload, own)
            found.append(method.forecast(extents[key]))
        except AllocatorError:
            found.append(None)
    return found
