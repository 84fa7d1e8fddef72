"""Store each weight as a code of a number format made for few bits: NF4, FP8, MXFP4, ternary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_one_of, require_whole
from allocator.actions.layer import Layer
from allocator.actions.quantize import GRANULARITIES, SCALE_BYTES
from allocator.actions.weighting import NEEDS, refuse_lookup, require_weighting
from allocator.errors import ActionError

FORMAT_BITS: Mapping[str, int] = {"nf4": 4, "fp8_e4m3": 8, "fp8_e5m2": 8, "mxfp4": 4, "ternary": 2}
"""Bits that tell the values of a format apart: what `bops` counts. A stored trit takes 8/5 of a bit, five to a byte."""
MX_BLOCK = 32
_TRITS = 5
_METHODS: Mapping[str, tuple[str, ...]] = {"ternary": ("mse", "twn")}
_OTHER_METHODS = ("absmax", "mse")


@dataclass(frozen=True, kw_only=True)
class NumberFormat:
    """Round the weight matrix (rows × columns, see `Layer`) to the values of a format, times scales: ŵ = s · value.

    - `nf4`: 16 values between −1 and 1, quantiles of the normal distribution with an exact zero; s = max|w| (QLoRA,
      Dettmers et al. 2023, arXiv 2305.14314, appendix E).
    - `fp8_e4m3`, `fp8_e5m2`: floating point of 8 bits, to nearest even, saturating at ±448 and ±57344; s = max|w| over
      that number (Micikevicius et al. 2022, arXiv 2209.05433; E4M3 without infinities).
    - `mxfp4`: E2M1, that is 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives, to nearest even, saturating; s = 2^(e−127) of
      each block of 32 weights along a row, e the byte E8M0 of floor(log2 max|w|) − 2 (OCP Microscaling 1.0, Rouhani
      et al. 2023, arXiv 2310.10537). The last block of a row may be shorter.
    - `ternary`: −1, 0, 1. `twn`: 0 where |w| ≤ Δ = 0.7 mean|w|, s = mean of the other |w| (Li et al. 2016, arXiv
      1605.04711). `mse`: the pair of threshold and scale whose squared error is least, exactly: among all k, the k
      largest |w| with s = their mean, k maximising (Σ|w|)²/k; then s is rounded and each weight goes to the nearest.

    `mse` takes the scale of least squared error among: for nf4 ± max|w| · 2^(k/8), k = 3 … −24 (a negative scale turns
    the values round, which are not symmetric); for fp8 max|w|/448 (/57344) · 2^(k/16), k = 0 … 15; for both then
    Σ w·value / Σ value² of the values that this gives, if that is better, and once more; for mxfp4 e and e + 1.

    Scales are rounded to `scale_dtype` first and the codes taken with the rounded ones. s = 0 means ŵ = 0 exactly.

    Stored: the codes of the whole tensor, then the scales (mxfp4: one byte each). Codes are one bit stream of 4 bits
    each, one byte each (fp8), or five trits to a byte as Σ t_i 3^i, t = 0, 1, 2 for −1, 0, 1 (spare ones 0). The code
    of an nf4 value is its place among the 16, counted upwards from 0; that of an E2M1 value has the sign as its highest
    bit, exponent and mantissa below. Halfway between two values the even code is taken, with ternary the 0.

    Attributes:
        format: see above.
        granularity: which weights share a scale, as in `Quantize`: group for nf4, channel for fp8 and ternary unless
            said; mxfp4 has its own blocks and takes none.
        group_size: with granularity group only; 64 for nf4 unless said.
        scale_dtype: float16 or float32 (not for mxfp4).
        method: how scales are found: absmax or mse; twn or mse for ternary (mse).
        weighting: `input` makes mse weigh each squared error by E[x²] of the input that the weight multiplies, which
            needs statistics of the layer when it is applied; it does not show in what is stored.

    >>> [NumberFormat(format=f).stored_bytes(Layer("linear", (10, 64))) for f in FORMAT_BITS]
    [340, 660, 660, 340, 148]
    """

    kind: ClassVar[str] = "number_format"
    usage: ClassVar[str] = (
        "format: nf4|fp8_e4m3|fp8_e5m2|mxfp4|ternary, granularity: tensor|channel|group, group_size: ≥ 1 (with "
        "granularity group only), scale_dtype: float16|float32 (none of the three with mxfp4), method: absmax|mse "
        "(ternary: twn|mse), weighting: none|input"
    )

    format: str
    granularity: str | None = None
    group_size: int | None = None
    scale_dtype: str | None = None
    method: str | None = None
    weighting: str = "none"

    def __post_init__(self) -> None:
        require_one_of(self.kind, "format", self.format, FORMAT_BITS)
        methods = _METHODS.get(self.format, _OTHER_METHODS)
        self._default("method", methods[0])
        require_one_of(self.kind, f"method of {self.format}", self.method, methods)
        require_weighting(self.kind, self.weighting)
        if self.weighting != "none" and self.method != "mse":
            raise ActionError(f"action number_format: method {self.method} weighs no errors; use method mse")
        if self.format == "mxfp4":
            if (self.granularity, self.group_size, self.scale_dtype) != (None, None, None):
                raise ActionError(
                    "action number_format: mxfp4 has blocks of 32 with a power of two each; leave granularity, "
                    "group_size and scale_dtype out"
                )
            return
        self._default("granularity", "group" if self.format == "nf4" else "channel")
        self._default("scale_dtype", "float16")
        require_one_of(self.kind, "granularity", self.granularity, GRANULARITIES)
        require_one_of(self.kind, "scale_dtype", self.scale_dtype, SCALE_BYTES)
        if self.granularity == "group":
            self._default("group_size", 64 if self.format == "nf4" else None)
            require_whole(self.kind, "group_size", self.group_size, 1)
        elif self.group_size is not None:
            raise ActionError("action number_format: group_size goes only with granularity group")

    def _default(self, key: str, value: object) -> None:
        if getattr(self, key) is None:
            object.__setattr__(self, key, value)

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> NumberFormat:
        """Read {"kind": "number_format", "format": …, …}; all keys but format have defaults."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: every key that means something, weighting where there is one."""
        out = {"kind": self.kind, "format": self.format}
        keys = ("granularity", "group_size", "scale_dtype", "method")
        out |= {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        return out if self.weighting == "none" else out | {"weighting": self.weighting}

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS[self.weighting]

    @property
    def block(self) -> int | None:
        """Weights of a row that share a scale; None for a whole row, or the whole matrix with granularity tensor."""
        return MX_BLOCK if self.format == "mxfp4" else self.group_size

    def check(self, layer: Layer) -> None:
        """Refuse a group longer than a row, and weighting where a layer has no inputs that it multiplies."""
        if self.group_size is not None and self.group_size > layer.columns:
            raise ActionError(
                f"action number_format: group_size {self.group_size} is more than the {layer.columns} weights of a row "
                f"of shape {layer.weight_shape}; use granularity channel, which is one group per row"
            )
        refuse_lookup(self.kind, self.weighting, layer)

    def scale_shape(self, layer: Layer) -> tuple[int, int]:
        """Shape of the scales, rows × blocks within a row: (1, 1), (rows, 1) or (rows, ceil(columns/block))."""
        if self.granularity == "tensor":
            return 1, 1
        return layer.rows, 1 if self.block is None else -(-layer.columns // self.block)

    def code_bytes(self, layer: Layer) -> int:
        """Length of the codes."""
        if self.format == "ternary":
            return -(-layer.weights // _TRITS)
        return -(-layer.weights * FORMAT_BITS[self.format] // 8)

    def stored_bytes(self, layer: Layer) -> int:
        """Codes and scales."""
        rows, blocks = self.scale_shape(layer)
        each = 1 if self.scale_dtype is None else SCALE_BYTES[self.scale_dtype]
        return self.code_bytes(layer) + rows * blocks * each

    def macs(self, layer: Layer) -> int:
        """Those of the layer: codes are widened before they multiply."""
        return layer.macs

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Macs · bits · activation bits, with 4 (nf4, mxfp4), 8 (fp8) and 2 bits (ternary)."""
        return layer.macs * FORMAT_BITS[self.format] * activation_bits
