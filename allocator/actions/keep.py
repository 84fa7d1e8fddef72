"""Keep the weights as floating-point numbers of a given width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_one_of
from allocator.actions.layer import Layer

DTYPE_BITS: Mapping[str, int] = {"float32": 32, "float16": 16, "bfloat16": 16}


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Store the weight in `dtype`, rounded to nearest; values beyond its range saturate at its largest number.

    >>> Keep(dtype="float32").stored_bytes(Layer("conv2d", (64, 3, 3, 3)))
    6912
    """

    kind: ClassVar[str] = "keep"
    usage: ClassVar[str] = "dtype: float32|float16|bfloat16"

    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_one_of(self.kind, "dtype", self.dtype, DTYPE_BITS)

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Keep:
        """Read {"kind": "keep", "dtype": …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"kind": self.kind, "dtype": self.dtype}

    def check(self, layer: Layer) -> None:
        """Any layer can be kept."""

    def stored_bytes(self, layer: Layer) -> int:
        """Weights · bytes per number."""
        return layer.weights * DTYPE_BITS[self.dtype] // 8

    def macs(self, layer: Layer) -> int:
        """Those of the layer."""
        return layer.macs

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Macs · bits of the dtype · activation bits."""
        return layer.macs * DTYPE_BITS[self.dtype] * activation_bits
