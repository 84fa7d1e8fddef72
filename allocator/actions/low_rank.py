"""Replace a weight by the product of two thin factors, each stored by an action of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import read, require_whole
from allocator.actions.factored import Factored, Part, Plain, plain
from allocator.actions.layer import Kind, Layer
from allocator.actions.weighting import NEEDS, refuse_lookup, require_weighting
from allocator.errors import ActionError


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
class LowRank(Factored):
    """Truncated SVD of the weight matrix (rows × columns): W ≈ left · right, left rows × rank, right rank × columns.

    With W = U S Vᵀ, left = U_r √S_r and right = √S_r V_rᵀ, r the largest singular values or those named; then `left`
    and `right` tell how each factor is stored.

    With `weighting` the error is least where it counts, not entry by entry: for weighting matrices P, Q the SVD is that
    of P W Q, and left = P⁻¹ U_r √S_r, right = √S_r V_rᵀ Q⁻¹ minimise ‖P (W − left·right) Q‖.
    `input`: P = 1, Q Qᵀ = E[x xᵀ] of the layer's inputs, so that the squared error of the outputs is least (the
    whitening of SVD-LLM, Wang et al. 2024, arXiv 2403.07378). `fisher`: the same Q, and P² = diag E[(∂L/∂y)²] of its
    outputs (derived: Kronecker-factored curvature with a diagonal for the outputs; row weights alone are FWSVD,
    Hsu et al. 2022, arXiv 2207.00112). Both need statistics of the layer when they are applied.

    A convolution of g groups is factored group by group: rank r means r channels between in each group, right is
    g·r × columns, left rows × r.

    The layer runs as two: a Linear into `rank` features and one out of them; a convolution to `rank` channels with
    the same kernel, stride, padding and dilation, then a 1×1 one; an embedding of width `rank`, then a projection.

    Attributes:
        rank: 1 to min(rows/groups, columns).
        left: how the rows × rank factor is stored, `keep`, `quantize` or `number_format`.
        right: how the rank × columns factor is stored.
        components: which singular values are kept, numbered from 0 by falling size, rising and as many as the rank;
            None: the largest ones. Which ones they are does not show in what is stored. Of an unweighted SVD of a
            layer that has no groups only.
        weighting: what makes an error small, none, input or fisher; it does not show in what is stored.

    >>> LowRank(rank=16, left=Keep(dtype="float16"), right=Keep(dtype="float16")).stored_bytes(
    ...     Layer("conv2d", (64, 64, 3, 3)))
    20480
    """

    kind: ClassVar[str] = "low_rank"
    usage: ClassVar[str] = (
        "rank: ≥ 1, left: action, right: action (keep, quantize or number_format), components: [rank numbers] (the "
        "largest), weighting: none|input|fisher"
    )

    rank: int
    left: Plain
    right: Plain
    components: tuple[int, ...] | None = None
    weighting: str = "none"

    def __post_init__(self) -> None:
        require_whole(self.kind, "rank", self.rank, 1)
        object.__setattr__(self, "left", plain(self.kind, "left", self.left))
        object.__setattr__(self, "right", plain(self.kind, "right", self.right))
        object.__setattr__(self, "components", _components(self.components, self.rank))
        require_weighting(self.kind, self.weighting, tuple(NEEDS))
        if self.weighting != "none" and self.components is not None:
            raise ActionError("action low_rank: components are those of the unweighted SVD; leave weighting out")

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> LowRank:
        """Read {"kind": "low_rank", "rank": …, "left": action, "right": action, …}."""
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: components only where they are not the largest, weighting where there is one."""
        out: dict[str, Any] = {"kind": self.kind, "rank": self.rank}
        out |= {"left": self.left.to_json(), "right": self.right.to_json()}
        if self.components is not None:
            out["components"] = list(self.components)
        if self.weighting != "none":
            out["weighting"] = self.weighting
        return out

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS[self.weighting]

    def check(self, layer: Layer) -> None:
        """Refuse ranks above min(rows/groups, columns), and what a factor's own action refuses."""
        top = min(layer.rows // layer.groups, layer.columns)
        if self.rank > top:
            rows = "rows" if layer.groups == 1 else "rows/groups"
            raise ActionError(
                f"action low_rank: rank {self.rank} is more than min({rows}, columns) = {top} of shape "
                f"{layer.weight_shape}; use at most {top}"
            )
        if self.components is not None and layer.groups > 1:
            raise ActionError(
                f"action low_rank: a convolution of {layer.groups} groups has components of its own in each; leave "
                "components out"
            )
        if self.components is not None and self.components[-1] >= top:
            raise ActionError(
                f"action low_rank: shape {layer.weight_shape} has no component {self.components[-1]}; its last is "
                f"{top - 1}"
            )
        refuse_lookup(self.kind, self.weighting, layer)
        self.check_parts(layer)

    def parts(self, layer: Layer) -> tuple[Part, ...]:
        """left (looked up, if the layer was an embedding), rows × rank, and right, groups·rank × columns."""
        left_kind: Kind = "embedding" if layer.kind == "embedding" else "linear"
        left = Layer(left_kind, (layer.rows, self.rank), positions=layer.positions)
        right = Layer("linear", (layer.groups * self.rank, layer.columns), positions=layer.positions)
        return Part("left", left, self.left), Part("right", right, self.right)
