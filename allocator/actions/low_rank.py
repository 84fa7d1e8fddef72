"""Replace a weight by the product of two thin factors, each stored by an action of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_whole
from allocator.actions.keep import Keep
from allocator.actions.layer import Kind, Layer
from allocator.actions.quantize import Quantize
from allocator.errors import ActionError

Factor = Keep | Quantize
_FACTORS: Mapping[str, type[Keep] | type[Quantize]] = {"keep": Keep, "quantize": Quantize}


def _factor(key: str, action: object) -> Factor:
    if isinstance(action, Factor):
        return action
    kind = action.get("kind") if isinstance(action, Mapping) else None
    if not isinstance(action, Mapping) or not isinstance(kind, str) or kind not in _FACTORS:
        raise ActionError(f"action low_rank: {key} must be an action of kind {' or '.join(_FACTORS)}, got {action!r}")
    return _FACTORS[kind].from_json(action)


def _components(given: object, rank: int) -> tuple[int, ...] | None:
    """Rising numbers, as many as the rank; None for the largest ones, however they are said."""
    if given is None:
        return None
    whole = isinstance(given, Sequence) and all(isinstance(k, int) and not isinstance(k, bool) for k in given)
    found = tuple(given) if whole and isinstance(given, Sequence) else ()
    rising = all(a < b for a, b in itertools.pairwise((-1, *found)))
    if not whole or not rising or len(found) != rank:
        raise ActionError(
            f"action low_rank: components must be {rank} rising numbers from 0, as many as the rank, got {given!r}"
        )
    return None if found == tuple(range(rank)) else found


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Truncated SVD of the weight matrix (rows × columns): W ≈ left · right, left rows × rank, right rank × columns.

    With W = U S Vᵀ, left = U_r √S_r and right = √S_r V_rᵀ, r the largest singular values or those named; then `left`
    and `right` tell how each factor is stored.
    The layer runs as two: a Linear into `rank` features and one out of them; a convolution to `rank` channels with
    the same kernel, stride, padding and dilation, then a 1×1 one; an embedding of width `rank`, then a projection.

    Attributes:
        rank: 1 to min(rows, columns).
        left: how the rows × rank factor is stored, `keep` or `quantize`.
        right: how the rank × columns factor is stored.
        components: which singular values are kept, numbered from 0 by falling size, rising and as many as the rank;
            None: the largest ones. Which ones they are does not show in what is stored.

    >>> LowRank(rank=16, left=Keep(dtype="float16"), right=Keep(dtype="float16")).stored_bytes(
    ...     Layer("conv2d", (64, 64, 3, 3)))
    20480
    """

    kind: ClassVar[str] = "low_rank"
    usage: ClassVar[str] = (
        "rank: ≥ 1, left: action, right: action (keep or quantize), components: [rank numbers] (the largest)"
    )

    rank: int
    left: Factor
    right: Factor
    components: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_whole(self.kind, "rank", self.rank, 1)
        object.__setattr__(self, "left", _factor("left", self.left))
        object.__setattr__(self, "right", _factor("right", self.right))
        object.__setattr__(self, "components", _components(self.components, self.rank))

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> LowRank:
        """Read {"kind": "low_rank", "rank": …, "left": action, "right": action, …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: components only where they are not the largest."""
        picked = {} if self.components is None else {"components": list(self.components)}
        factors = {"left": self.left.to_json(), "right": self.right.to_json()}
        return {"kind": self.kind, "rank": self.rank, **factors, **picked}

    def check(self, layer: Layer) -> None:
        """Refuse grouped convolutions, ranks above min(rows, columns), and what a factor's own action refuses."""
        if layer.groups != 1:
            raise ActionError(
                f"action low_rank: a convolution of {layer.groups} groups is not factored; keep or quantize it"
            )
        top = min(layer.rows, layer.columns)
        if self.rank > top:
            raise ActionError(
                f"action low_rank: rank {self.rank} is more than min(rows, columns) = {top} of shape "
                f"{layer.weight_shape}; use at most {top}"
            )
        if self.components is not None and self.components[-1] >= top:
            raise ActionError(
                f"action low_rank: shape {layer.weight_shape} has no component {self.components[-1]}; its last is "
                f"{top - 1}"
            )
        for key, action, factor in zip(
            ("left", "right"), (self.left, self.right), self.factor_layers(layer), strict=True
        ):
            try:
                action.check(factor)
            except ActionError as error:
                raise ActionError(f"action low_rank: {key}: {error}") from error

    def factor_layers(self, layer: Layer) -> tuple[Layer, Layer]:
        """The two layers that replace it: left (looked up, if the layer was an embedding) and right."""
        left_kind: Kind = "embedding" if layer.kind == "embedding" else "linear"
        return (
            Layer(left_kind, (layer.rows, self.rank), positions=layer.positions),
            Layer("linear", (self.rank, layer.columns), positions=layer.positions),
        )

    def stored_bytes(self, layer: Layer) -> int:
        """Both factors."""
        left, right = self.factor_layers(layer)
        return self.left.stored_bytes(left) + self.right.stored_bytes(right)

    def macs(self, layer: Layer) -> int:
        """Both layers: positions · rank · (rows + columns), without the rows for an embedding."""
        left, right = self.factor_layers(layer)
        return self.left.macs(left) + self.right.macs(right)

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Both layers, each with its own weight bits."""
        left, right = self.factor_layers(layer)
        return self.left.bops(left, activation_bits) + self.right.bops(right, activation_bits)
