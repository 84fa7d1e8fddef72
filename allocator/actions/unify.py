"""Let short blocks of weights share one magnitude each where that costs least; another action stores the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_whole
from allocator.actions.factored import Plain, plain
from allocator.actions.layer import Layer
from allocator.actions.weighting import NEEDS, refuse_lookup, require_weighting
from allocator.errors import ActionError

MAGNITUDE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Unify:
    """Micro-structured unification (arXiv 2106.08301): in a block, ŵ = m · sign w, m the mean of |w|, 0 or more.

    Blocks are `block` consecutive weights of a row; what is left over at the end of a row belongs to no block. Of all
    blocks of the matrix those round(share · blocks) are unified whose error Σ (|w| − m)² is least, of equal ones the
    first; all other weights, row by row, are one matrix of a single row, stored as `values` says. With `weighting`
    input errors and means are weighted by E[x²] of the input that each weight multiplies.

    A unified weight takes 1 bit and its part of the magnitude, 1 + 16/block bits, beside 1/block of a bit for the map.
    It is for hardware that adds and subtracts inputs and multiplies once per block, which is what `bops` counts, and
    for matrices many of whose blocks are near zero or alike in size. At equal bytes plain rounding in groups has less
    error on weights without such structure: two values ±m are a coarse code.

    Stored: a map of the blocks, 1 bit each (1: unified), then m of the unified ones as float16, their signs (1: w ≥ 0),
    and the rest; each stream of bits fills bytes from the lowest bit on.

    Attributes:
        block: weights of a block, 2 or more, within a row.
        share: of the blocks that are unified, above 0 and at most 1; the count rounds to nearest, half to even.
        values: `keep`, `quantize` or `number_format`, for the other weights. They are a single row, so that granularity
            channel is one scale for all of them and group is mostly the better one.
        weighting: none, or input, which needs statistics of the layer when it is applied and does not show in what is
            stored.

    >>> from allocator.actions import Quantize
    >>> Unify(block=8, share=0.5, values=Quantize(bits=4)).stored_bytes(Layer("linear", (16, 64)))
    466
    """

    kind: ClassVar[str] = "unify"
    usage: ClassVar[str] = (
        "block: ≥ 2, share: above 0, at most 1, values: action (keep, quantize or number_format), weighting: none|input"
    )

    block: int
    share: float
    values: Plain
    weighting: str = "none"

    def __post_init__(self) -> None:
        require_whole(self.kind, "block", self.block, 2)
        share = self.share
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1:
            raise ActionError(f"action unify: share must be a number above 0 and at most 1, got {share!r}")
        object.__setattr__(self, "share", float(share))
        object.__setattr__(self, "values", plain(self.kind, "values", self.values))
        require_weighting(self.kind, self.weighting)

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Unify:
        """Read {"kind": "unify", "block": …, "share": …, "values": action, …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: weighting where there is one."""
        out = {"kind": self.kind, "block": self.block, "share": self.share, "values": self.values.to_json()}
        return out if self.weighting == "none" else out | {"weighting": self.weighting}

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS[self.weighting]

    def check(self, layer: Layer) -> None:
        """Refuse blocks longer than a row, weighting without inputs, and what the action of the rest refuses."""
        if self.block > layer.columns:
            raise ActionError(
                f"action unify: a row of shape {layer.weight_shape} has {layer.columns} weights and so no block of "
                f"{self.block}; use at most {layer.columns}"
            )
        refuse_lookup(self.kind, self.weighting, layer)
        rest = self.rest(layer)
        if rest is not None:
            try:
                self.values.check(rest)
            except ActionError as error:
                raise ActionError(f"action unify: values: {error}") from error

    def blocks(self, layer: Layer) -> int:
        """Whole blocks of the matrix."""
        return layer.rows * (layer.columns // self.block)

    def unified(self, layer: Layer) -> int:
        """Blocks that are unified."""
        return round(self.share * self.blocks(layer))

    def rest(self, layer: Layer) -> Layer | None:
        """The other weights as a matrix of one row; None where there are none."""
        count = layer.weights - self.unified(layer) * self.block
        return Layer("linear", (1, count), positions=layer.positions) if count else None

    def stored_bytes(self, layer: Layer) -> int:
        """Map, magnitudes, signs, and the rest."""
        unified, rest = self.unified(layer), self.rest(layer)
        own = -(-self.blocks(layer) // 8) + unified * MAGNITUDE_BITS // 8 + -(-unified * self.block // 8)
        return own if rest is None else own + self.values.stored_bytes(rest)

    def macs(self, layer: Layer) -> int:
        """Those of the layer; an addition counts as one."""
        return layer.macs

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """One bit for each unified weight, 16 for each magnitude, those of `values` for the rest; · activation bits."""
        if layer.kind == "embedding":
            return 0
        rest = self.rest(layer)
        own = self.unified(layer) * (self.block + MAGNITUDE_BITS) * layer.positions * activation_bits
        return own if rest is None else own + self.values.bops(rest, activation_bits)
