"""Keep only some of the weights; the others are zero and not stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read, require_one_of, require_whole, statistics_of
from allocator.actions.factored import Plain, plain
from allocator.actions.layer import Layer
from allocator.actions.positions import cheapest_form
from allocator.actions.quantize import Quantize
from allocator.actions.weighting import NEEDS, require_weighting
from allocator.errors import ActionError

PATTERNS = ("unstructured", "n_m")
SIGNS = ("within", "apart")
LARGEST_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Sparsity: the most important weights are kept, the others become zero; the kept ones are stored by `values`.

    A weight w_ij is as important as it is large, |w_ij|, or with ``weighting`` `input` as what it moves on average,
    |w_ij|·√E[x_j²] (Wanda, Sun et al. 2023, arXiv 2306.11695; but compared with all weights of the layer, not of its
    row: that minimises Σ_ij E[x_j²]·(w_ij − ŵ_ij)²). Of equally important ones the first are kept.

    - `unstructured`: the k = max(1, round(density·weights)) most important of the layer. Their places are stored in the
      shortest of four forms, see `allocator.actions.positions.cheapest_form`, chosen by weights and k alone.
    - `n_m`: of every ``block`` consecutive weights of a row the ``keep`` most important ones; of a shorter last block
      of m weights ceil(keep·m/block). Their places within the block are stored row by row in ceil(log2 block) bits
      each, lowest bit first: with keep 2 and block 4 what the sparse matrix units of GPUs read (Mishra et al. 2021,
      arXiv 2104.08378), except that these count along input channels, which is along a row only for Linear and 1×1
      layers. Where a bit for each weight is shorter (4 of 8) that is stored.

    The kept values follow in the order of their places, as `values` stores a matrix of one row (`unstructured`) or of
    as many rows as the weight (`n_m`), with one exception: `quantize` with granularity channel has a scale per row of
    the weight in either case.

    No kept value lies near 0. With ``signs`` `apart` a bit for each tells whether it is ≥ 0, and `values` stores the
    magnitudes, so that asymmetric codes of b bits spend none of their 2^b levels on that gap: of 1 + b bits in all,
    ŵ = ±(m + s·code). At 2 bits in all that roughly halves the squared error of the kept values.

    With ``compensate`` the kept weights take over what the others did: each row of kept weights ŵ minimises
    (w − ŵ) H (w − ŵ)ᵀ, H = E[x xᵀ] of the layer's inputs + 1 % of its mean diagonal. They are chosen in rounds, from
    the values as fitted after the round before; and where they are quantised they are rounded one after the other, each
    error made good by those still to come (after OBC, Frantar & Alistarh 2022, arXiv 2208.11580, and SparseGPT, 2023,
    arXiv 2301.00774). ``weighting`` and ``compensate`` do not show in what is stored; they need statistics of the layer
    when they are applied.

    Only a runtime with sparse kernels gains by the multiply-accumulates that are saved; ours unpacks to a dense matrix.

    Attributes:
        pattern: unstructured or n_m.
        density: with unstructured: the share of weights that is kept, above 0 and at most 1.
        keep: with n_m: weights kept of a block, 1 ≤ keep < block.
        block: with n_m: 2 to 256.
        values: how kept weights are stored, `keep` or `quantize`.
        weighting: what makes a weight important, none or input.
        compensate: whether the kept weights are fitted again.
        signs: where the signs are, within the values or apart from them.

    >>> Prune(pattern="n_m", keep=2, block=4, values=Quantize(bits=4)).stored_bytes(Layer("linear", (64, 256)))
    6272
    """

    kind: ClassVar[str] = "prune"
    usage: ClassVar[str] = (
        "pattern: unstructured|n_m, density: 0…1 (with unstructured), keep, block: ≥ 1 (with n_m), "
        "values: action (keep or quantize), weighting: none|input, compensate: true|false, "
        "signs: within|apart"
    )

    pattern: str
    values: Plain
    density: float | None = None
    keep: int | None = None
    block: int | None = None
    weighting: str = "none"
    compensate: bool = False
    signs: str = "within"

    def __post_init__(self) -> None:
        require_one_of(self.kind, "pattern", self.pattern, PATTERNS)
        require_weighting(self.kind, self.weighting)
        require_one_of(self.kind, "signs", self.signs, SIGNS)
        if not isinstance(self.compensate, bool):
            raise ActionError(f"action prune: compensate must be true or false, got {self.compensate!r}")
        object.__setattr__(self, "values", plain(self.kind, "values", self.values))
        if statistics_of(self.values):
            raise ActionError(
                "action prune: values are numbers without inputs of their own, so that nothing can be measured of "
                "them; take a method that needs no statistics, and compensate, which rounds by those of the layer"
            )
        if self.compensate and isinstance(self.values, Quantize) and self.values.rounding != "nearest":
            raise ActionError(
                "action prune: compensate picks each code by the errors of the others, so that values cannot be "
                f"rounded in one direction, {self.values.rounding}; leave rounding out"
            )
        if self.pattern == "unstructured":
            self._refuse("keep", "block")
            number = isinstance(self.density, (int, float)) and not isinstance(self.density, bool)
            if self.density is None or not number or not 0 < self.density <= 1:
                raise ActionError(
                    f"action prune: density must be a number above 0 and at most 1, the share of weights that is kept, "
                    f"got {self.density!r}"
                )
            object.__setattr__(self, "density", float(self.density))
        else:
            self._refuse("density")
            require_whole(self.kind, "block", self.block, 2, LARGEST_BLOCK)
            require_whole(self.kind, "keep", self.keep, 1, (self.block or 0) - 1)

    def _refuse(self, *keys: str) -> None:
        for key in keys:
            if getattr(self, key) is not None:
                raise ActionError(f"action prune: {key} is not read with pattern {self.pattern}; leave it out")

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Prune:
        """Read {"kind": "prune", "pattern": …, "values": action, …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: weighting, compensate and signs only where they are not what they are by default."""
        out: dict[str, Any] = {"kind": self.kind, "pattern": self.pattern}
        out |= {"density": self.density} if self.pattern == "unstructured" else {"keep": self.keep, "block": self.block}
        out["values"] = self.values.to_json()
        if self.weighting != "none":
            out["weighting"] = self.weighting
        if self.compensate:
            out["compensate"] = True
        return out if self.signs == "within" else {**out, "signs": self.signs}

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS["input" if self.compensate else self.weighting]

    @property
    def scale_per_row(self) -> bool:
        """Whether values that do not lie in rows of equal length have a scale for each row of the weight."""
        return (
            self.pattern == "unstructured"
            and isinstance(self.values, Quantize)
            and self.values.granularity == "channel"
        )

    def check(self, layer: Layer) -> None:
        """Refuse what `values` refuses of the kept weights, and statistics of an embedding."""
        try:
            self.values.check(self.values_layer(layer))
        except ActionError as error:
            raise ActionError(f"action prune: values: {error}") from error
        if self.statistics and layer.kind == "embedding":
            raise ActionError(
                "action prune: an embedding looks rows up, so that no inputs weight its columns; leave weighting and "
                "compensate out"
            )

    def kept_of_row(self, layer: Layer) -> int:
        """Kept weights of each row; of pattern n_m only."""
        assert self.keep is not None, "the constructor asks for it"
        assert self.block is not None, "likewise"
        whole, rest = divmod(layer.columns, self.block)
        return whole * self.keep + -(-self.keep * rest // self.block)

    def kept(self, layer: Layer) -> int:
        """Weights that are stored."""
        if self.density is None:
            return layer.rows * self.kept_of_row(layer)
        return max(1, round(self.density * layer.weights))

    def values_layer(self, layer: Layer) -> Layer:
        """The kept weights as the matrix that `values` stores."""
        rows = 1 if self.pattern == "unstructured" else layer.rows
        positions = 0 if layer.kind == "embedding" else layer.positions
        return Layer("linear", (rows, self.kept(layer) // rows), positions=positions)

    @property
    def place_bits(self) -> int:
        """Bits of a place within a block; of pattern n_m only."""
        assert self.block is not None, "the constructor asks for it"
        return (self.block - 1).bit_length()

    def lists_places(self, layer: Layer) -> bool:
        """Whether places within blocks are stored, which is so for n_m unless a bit for each weight is shorter."""
        return self.pattern == "n_m" and self.kept(layer) * self.place_bits <= layer.weights

    def position_bytes(self, layer: Layer) -> int:
        """Bytes that say where the kept weights are."""
        if self.pattern == "unstructured":
            return cheapest_form(layer.weights, self.kept(layer))[1]
        bits = self.kept(layer) * self.place_bits if self.lists_places(layer) else layer.weights
        return -(-bits // 8)

    def sign_bytes(self, layer: Layer) -> int:
        """Bytes of signs that lie apart."""
        return -(-self.kept(layer) // 8) if self.signs == "apart" else 0

    def stored_bytes(self, layer: Layer) -> int:
        """Where the kept weights are, their signs if they lie apart, and what they are."""
        kept = self.values_layer(layer)
        values = self.values.stored_bytes(kept)
        if self.scale_per_row:
            assert isinstance(self.values, Quantize), "only it has scales"
            shared = math.prod(self.values.scale_shape(kept))
            each = (values - self.values.code_bytes(kept)) // shared
            values = self.values.code_bytes(kept) + each * layer.rows
        return self.position_bytes(layer) + self.sign_bytes(layer) + values

    def macs(self, layer: Layer) -> int:
        """Kept weights · positions, as a sparse runtime would do them; 0 for an embedding."""
        return self.values_layer(layer).macs

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Those of the kept weights, at the width of their values and of signs that lie apart."""
        signs = self.macs(layer) * activation_bits if self.signs == "apart" else 0
        return self.values.bops(self.values_layer(layer), activation_bits) + signs
