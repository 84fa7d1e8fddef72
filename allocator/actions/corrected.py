"""Another action, after which the mean (and the variance) of every output is put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, Action, read, statistics_of
from allocator.actions.keep import Keep
from allocator.actions.layer import Layer
from allocator.errors import ActionError

NUMBER_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """y = gain ⊙ (Ŵ x) + shift, Ŵ what another action makes of the weight W: outputs that are right on average.

    shift = (W − gain ⊙ Ŵ) E[x], so that each output of the layer has the mean that it had on the calibration data
    (bias correction: Nagel et al. 2019, arXiv 1906.04721, section 4.2; Finkelstein et al. 2019, arXiv 1906.03193). With
    `variance`, gain = √(w C wᵀ / ŵ C ŵᵀ) for each row w, C = E[x xᵀ] − E[x] E[x]ᵀ, so that each output also has its
    variance: what re-estimating a batch norm behind the layer does, in closed form. A gain is 1 without it, and where
    an output does not vary. Both are float16, one number per row; the weight is gain ⊙ Ŵ, rounded to float32.

    Needs statistics of the layer when it is applied. The shift is added to the layer's bias, and becomes it where there
    is none; a layer class with a forward of its own must add `self.bias`, as torch's do. It takes the place of whatever
    the other action itself would add to the outputs.

    Attributes:
        action: what is done to the weight, any kind but `corrected` and `keep` in float32, which leaves no error.
        variance: whether the variances are put right too, for 2 more bytes per row.

    >>> from allocator.actions import Quantize
    >>> layer = Layer("conv2d", (64, 3, 3, 3))
    >>> [Corrected(action=Quantize(bits=2), variance=v).stored_bytes(layer) for v in (False, True)]
    [688, 816]
    """

    kind: ClassVar[str] = "corrected"
    usage: ClassVar[str] = "action: any but corrected and keep float32, variance: true|false"

    action: Action
    variance: bool = False

    def __post_init__(self) -> None:
        from allocator.actions import parse

        inner = parse(self.action)
        if inner.kind == self.kind:
            raise ActionError("action corrected: its action is corrected already; say it once")
        if inner.kind == "slim":
            raise ActionError(
                "action corrected: a slim action leaves channels out together with other layers, which a correction of "
                "one would hide; give it by itself, with weighting input"
            )
        if inner == Keep(dtype="float32"):
            raise ActionError("action corrected: keep in float32 leaves no error to correct; give it by itself")
        if not isinstance(self.variance, bool):
            raise ActionError(f"action corrected: variance must be true or false, got {self.variance!r}")
        object.__setattr__(self, "action", inner)

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Corrected:
        """Read {"kind": "corrected", "action": action, "variance": …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"kind": self.kind, "action": self.action.to_json(), "variance": self.variance}

    @property
    def statistics(self) -> frozenset[str]:
        """E[x], with variance E[x xᵀ] too, and what the other action needs."""
        own = {"input_mean", "input_moment"} if self.variance else {"input_mean"}
        return statistics_of(self.action) | own

    def check(self, layer: Layer) -> None:
        """Refuse embeddings, and what the other action refuses."""
        if layer.kind == "embedding":
            raise ActionError(
                "action corrected: an embedding looks rows up, and its outputs have no bias to correct; use its action "
                f"by itself: {self.action.to_json()}"
            )
        try:
            self.action.check(layer)
        except ActionError as error:
            raise ActionError(f"action corrected: {error}") from error

    def numbers(self, layer: Layer) -> int:
        """Stored beside the other action's bytes: a shift per row, and with variance a gain per row."""
        return layer.rows * (2 if self.variance else 1)

    def stored_bytes(self, layer: Layer) -> int:
        """Those of the other action, then 2 for each number."""
        return self.action.stored_bytes(layer) + NUMBER_BYTES * self.numbers(layer)

    def macs(self, layer: Layer) -> int:
        """Those of the other action: a gain and a bias are no products with weights."""
        return self.action.macs(layer)

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Those of the other action."""
        return self.action.bops(layer, activation_bits)
