"""Store each weight as a code of a few bits, with a scale per tensor, channel or group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_one_of, require_whole
from allocator.actions.layer import Layer
from allocator.errors import ActionError

SCHEMES = ("symmetric", "asymmetric")
GRANULARITIES = ("tensor", "channel", "group")
METHODS = ("rtn", "mse", "aciq", "gptq")
ROUNDINGS = ("nearest", "floor", "ceil")
SCALE_BYTES: Mapping[str, int] = {"float16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Uniform quantisation of the weight matrix (rows × columns, see `Layer`).

    Let q = 2^(bits−1) − 1 and L = 2^bits − 1. Within the weights w that share a scale,

    - symmetric:        s = max|w| / q,         code = clip(round(w/s), −q, q),      ŵ = s·code;
    - symmetric, 1 bit: s = mean|w|,            code = 1 if w ≥ 0 else −1,           ŵ = s·code
      (this s minimises the squared error: XNOR-Net, Rastegari et al. 2016);
    - asymmetric:       m = min w, s = (max w − min w) / L, code = clip(round((w−m)/s), 0, L), ŵ = m + s·code.

    s and m are first rounded to `scale_dtype`, and the codes are taken with the rounded ones; ties round to even.
    s = 0 means ŵ = m exactly (0 when symmetric). With `rounding` floor or ceil the whole number below or above takes
    the place of the nearest one: every error of an unclipped weight then has one sign, and up to twice the size.
    Quotients are rounded to float32 first, so that a weight on the grid may move by a whole step.

    Stored: one bit stream of ceil(weights·bits/8) bytes for the whole tensor, then the scales, then (asymmetric)
    the minima.

    Attributes:
        bits: width of a code, 1 to 8.
        scheme: symmetric or asymmetric.
        granularity: which weights share a scale: all, those of a row, or `group_size` consecutive ones of a row.
        group_size: only with granularity group; the last group of a row may be shorter.
        axis: dimension whose slices are the rows; only 0 is done.
        scale_dtype: float16 or float32.
        method: how scales and codes are found; the stored form is the same. `rtn`: as above. `aciq`: the range of
            each scale is clipped to the closed form for Gaussian or Laplace weights, whichever are likelier (Banner et
            al. 2018, arXiv 1810.05723). `mse`: scales (and minima) of the least squared error of the weights, by search
            and least-squares fit in turn; never worse than rtn. `gptq`: the squared error of the outputs is made small:
            each column makes up for the errors of those before it (Frantar et al. 2022, arXiv 2210.17323), then codes
            and scales are improved in turn; needs the layer's input moment. For symmetric codes of 1 bit rtn has the
            least error of the weights already, and aciq and mse are the same.
        rounding: `nearest`, or one direction for all codes, `floor` (downwards) or `ceil` (upwards): how integers are
            picked, not how they are stored. A symmetric 1-bit code is a sign and has no direction.

    >>> conv = Layer("conv2d", (64, 3, 3, 3))
    >>> [Quantize(bits=b).stored_bytes(conv) for b in (2, 4, 8)]
    [560, 992, 1856]
    """

    kind: ClassVar[str] = "quantize"
    usage: ClassVar[str] = (
        "bits: 1..8, scheme: symmetric|asymmetric, granularity: tensor|channel|group, "
        "group_size: ≥ 1 (with granularity group only), axis: 0, scale_dtype: float16|float32, "
        "method: rtn|mse|aciq|gptq, rounding: nearest|floor|ceil"
    )

    bits: int
    scheme: str = "symmetric"
    granularity: str = "channel"
    group_size: int | None = None
    axis: int = 0
    scale_dtype: str = "float16"
    method: str = "rtn"
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        require_whole(self.kind, "bits", self.bits, 1, 8)
        require_one_of(self.kind, "scheme", self.scheme, SCHEMES)
        require_one_of(self.kind, "granularity", self.granularity, GRANULARITIES)
        require_whole(self.kind, "axis", self.axis, 0, 0)
        require_one_of(self.kind, "scale_dtype", self.scale_dtype, SCALE_BYTES)
        require_one_of(self.kind, "method", self.method, METHODS)
        require_one_of(self.kind, "rounding", self.rounding, ROUNDINGS)
        if self.rounding != "nearest" and not self.directed:
            raise ActionError(
                f"action quantize: symmetric codes of 1 bit are signs, which rounding={self.rounding} cannot move; "
                "leave rounding out, or take scheme asymmetric"
            )
        if self.rounding != "nearest" and self.method == "gptq":
            raise ActionError(
                f"action quantize: gptq finds the direction of each code itself, which rounding={self.rounding} would "
                "take from it; leave rounding out, or take method mse"
            )
        if self.granularity == "group":
            require_whole(self.kind, "group_size", self.group_size, 1)
        elif self.group_size is not None:
            raise ActionError(
                f"action quantize: group_size is read only with granularity group, not {self.granularity}; leave it out"
            )

    @property
    def directed(self) -> bool:
        """Whether codes can be rounded in a direction."""
        return self.bits > 1 or self.scheme == "asymmetric"

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Quantize:
        """Read {"kind": "quantize", "bits": …, …}; all keys but bits have defaults."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: group_size and axis only where they mean something, rounding where it is not nearest."""
        sharing: dict[str, Any] = {"granularity": self.granularity}
        if self.granularity == "group":
            sharing["group_size"] = self.group_size
        if self.granularity != "tensor":
            sharing["axis"] = self.axis
        last = {"scale_dtype": self.scale_dtype, "method": self.method}
        if self.rounding != "nearest":
            last["rounding"] = self.rounding
        return {"kind": self.kind, "bits": self.bits, "scheme": self.scheme} | sharing | last

    def check(self, layer: Layer) -> None:
        """Refuse gptq of an embedding, and a group longer than a row."""
        if self.method == "gptq" and layer.kind == "embedding":
            raise ActionError(
                "action quantize: an embedding looks rows up, so that there are no inputs by which gptq could weigh "
                "errors; use method mse"
            )
        if self.group_size is not None and self.group_size > layer.columns:
            raise ActionError(
                f"action quantize: group_size {self.group_size} is more than the {layer.columns} weights of a row of "
                f"shape {layer.weight_shape}; use granularity channel, which is one group per row"
            )

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return frozenset({"input_moment"}) if self.method == "gptq" else frozenset()

    def scale_shape(self, layer: Layer) -> tuple[int, int]:
        """Shape of the scales, rows × groups within a row: (1, 1), (rows, 1) or (rows, ceil(columns/group_size))."""
        if self.granularity == "tensor":
            return 1, 1
        return layer.rows, 1 if self.group_size is None else -(-layer.columns // self.group_size)

    def code_bytes(self, layer: Layer) -> int:
        """Length of the bit stream of codes."""
        return -(-layer.weights * self.bits // 8)

    def stored_bytes(self, layer: Layer) -> int:
        """Codes, scales and, when asymmetric, minima."""
        rows, groups = self.scale_shape(layer)
        numbers = rows * groups * (2 if self.scheme == "asymmetric" else 1)
        return self.code_bytes(layer) + numbers * SCALE_BYTES[self.scale_dtype]

    def macs(self, layer: Layer) -> int:
        """Those of the layer: codes are widened before they multiply."""
        return layer.macs

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Macs · bits · activation bits."""
        return layer.macs * self.bits * activation_bits
