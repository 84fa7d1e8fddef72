"""What the tensor formats of a convolution have in common: three steps, their ranks' limits, where each step runs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from allocator.actions.action import read
from allocator.actions.factored import Factored, Part, Plain, plain
from allocator.actions.layer import Layer
from allocator.actions.weighting import NEEDS, require_weighting
from allocator.errors import ActionError

STEPS = ("first", "core", "last")


@dataclass(frozen=True, kw_only=True)
class TensorFormat(Factored):
    """A convolution as a 1×1 one to a few channels, one or several along the kernel, and a 1×1 one out of them.

    `last` is taken after the other parts have been rounded: the least squares for what is then left to it.

    Attributes:
        first: how the 1×1 convolution at the inputs is stored, `keep` or `quantize`.
        core: how each convolution along the kernel is stored.
        last: how the 1×1 convolution at the outputs is stored.
        weighting: `none`: least squared error of the weight; `input`: of the outputs. The decomposition is then that of
            the weight times the root of E[x xᵀ] over the input channels x, averaged over the places of the kernel, and
            `last` has the least squares for E[x xᵀ] over channels and places (derived from SVD-LLM, Wang et al. 2024,
            arXiv 2403.07378). Needs statistics of the layer when it is applied; does not show in what is stored.
    """

    usage: ClassVar[str]
    stored: ClassVar[str] = (
        "parts: action, or first: action, core: action, last: action (keep or quantize), weighting: none|input"
    )

    first: Plain
    core: Plain
    last: Plain
    weighting: str = "none"

    def __post_init__(self) -> None:
        for key in STEPS:
            object.__setattr__(self, key, plain(self.kind, key, getattr(self, key)))
        require_weighting(self.kind, self.weighting)

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Self:
        """Read the ranks, and `parts` (all stored alike) or `first`, `core` and `last`."""
        given = dict(action)
        if "parts" in given:
            named = [key for key in STEPS if key in given]
            if named:
                raise ActionError(f"action {cls.kind}: parts says how all are stored; leave out {', '.join(named)}")
            given |= dict.fromkeys(STEPS, given.pop("parts"))
        return read(cls, given)

    @abstractmethod
    def ranks_json(self) -> dict[str, Any]:
        """The keys of the ranks."""

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: parts where all are stored alike, weighting where there is one."""
        out: dict[str, Any] = {"kind": self.kind, **self.ranks_json()}
        if self.first == self.core == self.last:
            out["parts"] = self.first.to_json()
        else:
            out |= {key: getattr(self, key).to_json() for key in STEPS}
        if self.weighting != "none":
            out["weighting"] = self.weighting
        return out

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS[self.weighting]

    def check(self, layer: Layer) -> None:
        """Refuse matrices, groups, ranks that the shape does not give, and what a part's own action refuses."""
        refuse_matrices(self.kind, layer)
        self.check_ranks(layer)
        self.check_parts(layer)

    @abstractmethod
    def check_ranks(self, layer: Layer) -> None:
        """Raise ActionError for ranks beyond those that are of use."""

    def laid_out(self, layer: Layer, first: int, cores: Sequence[tuple[int, int]], last: int) -> tuple[Part, ...]:
        """The parts in the order in which they run.

        Args:
            layer: the convolution.
            first: rows of the first part, rank × input channels.
            cores: rows and columns of each convolution along the kernel.
            last: columns of the last part, output channels × rank.
        """
        inputs = layer.positions if layer.input_positions is None else layer.input_positions
        count = len(cores)
        names = ["core"] if count == 1 else [f"core{j}" for j in range(count)]
        out = [Part("first", Layer("linear", (first, layer.weight_shape[1]), positions=inputs), self.first)]
        for j, (name, shape) in enumerate(zip(names, cores, strict=True), 1):
            out.append(Part(name, Layer("linear", shape, positions=between(layer, j, count)), self.core))
        return (*out, Part("last", Layer("linear", (layer.rows, last), positions=layer.positions), self.last))


def refuse_matrices(kind: str, layer: Layer) -> None:
    """Raise ActionError unless the layer is a convolution without groups whose kernel is more than 1×1."""
    if layer.groups > 1:
        raise ActionError(
            f"action {kind}: a convolution of {layer.groups} groups has no weight from every input channel to every "
            "output; use low_rank, which factors group by group, or quantize"
        )
    if math.prod(layer.weight_shape[2:]) == 1:
        raise ActionError(
            f"action {kind}: the weight of the {layer.kind} is a matrix, for which this is low_rank; use that"
        )


def kernel_order(layer: Layer) -> tuple[int, ...]:
    """The dimensions of the kernel, numbered from 0, that are longer than 1, in the order in which they are run."""
    sizes = layer.weight_shape[2:]
    return tuple(d for d in reversed(range(len(sizes))) if sizes[d] > 1)


def between(layer: Layer, step: int, steps: int) -> int:
    """Positions after `step` of `steps` convolutions that each do one dimension of the stride and the padding.

    Only totals P_in and P_out are known of a layer: P_in^(1−t)·P_out^t, t = step/steps, rounded, is exact where every
    dimension is divided by the same number. Otherwise the true number lies between P_in and P_out too, if no dimension
    grows while another shrinks.
    """
    inputs = layer.positions if layer.input_positions is None else layer.input_positions
    if step == steps or inputs == layer.positions:
        return layer.positions
    part = step / steps
    return round(math.pow(inputs, 1 - part) * math.pow(layer.positions, part))
