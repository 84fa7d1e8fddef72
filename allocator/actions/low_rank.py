"""Replace a weight by the product of two thin factors, each stored by an action of its own."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Truncated SVD of the weight matrix (rows × columns): W ≈ left · right, left rows × rank, right rank × columns.

    With W = U S Vᵀ, left = U_r √S_r and right = √S_r V_rᵀ; then `left` and `right` tell how each factor is stored.
    The layer runs as two: a Linear into `rank` features and one out of them; a convolution to `rank` channels with
    the same kernel, stride, padding and dilation, then a 1×1 one; an embedding of width `rank`, then a projection.

    Attributes:
        rank: 1 to min(rows, columns).
        left: how the rows × rank factor is stored, `keep` or `quantize`.
        right: how the rank × columns factor is stored.

    >>> LowRank(rank=16, left=Keep(dtype="float16"), right=Keep(dtype="float16")).stored_bytes(
    ...     Layer("conv2d", (64, 64, 3, 3)))
    20480
    """

    kind: ClassVar[str] = "low_rank"
    usage: ClassVar[str] = "rank: ≥ 1, left: action, right: action (keep or quantize)"

    rank: int
    left: Factor
    right: Factor

    def __post_init__(self) -> None:
        require_whole(self.kind, "rank", self.rank, 1)
        object.__setattr__(self, "left", _factor("left", self.left))
        object.__setattr__(self, "right", _factor("right", self.right))

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> LowRank:
        """Read {"kind": "low_rank", "rank": …, "left": action, "right": action}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"kind": self.kind, "rank": self.rank, "left": self.left.to_json(), "right": self.right.to_json()}

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
