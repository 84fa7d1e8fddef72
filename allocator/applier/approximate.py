"""What a weight becomes under an action, in its own shape and dtype: the Δ behind every score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from allocator.actions import Action, Keep, Layer, LowRank, Quantize
from allocator.applier.quantizer import decode, encode
from allocator.errors import ActionError

KEEP_DTYPE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

LARGEST = 2.0**126
"""Largest weight taken: within it max − min, and hence every step of the arithmetic, stays in float32."""


def approximate(weight: Tensor, action: Action, layer: Layer) -> Tensor:
    """The weight that the stored form of `action` stands for: a new tensor, detached, of weight's shape and dtype.

    Deterministic and free of side effects. Arithmetic is float32 (a float64 weight is rounded first); the SVD is
    float64. `unpack(pack(weight, action, layer), …)` gives the same bits.

    Raises:
        ActionError: the action cannot be done to this layer, the weight's shape is not the layer's, the weight is
            not finite, or the action's kind has no arithmetic here.
    """
    return Approximator(weight, layer).approximate(action)


def to_matrix(weight: Tensor, layer: Layer) -> Tensor:
    """The weight as a contiguous, finite float32 matrix [rows, columns]; not always a copy."""
    if tuple(weight.shape) != layer.weight_shape:
        raise ActionError(f"the weight has shape {tuple(weight.shape)} but its layer says {layer.weight_shape}")
    if not weight.is_floating_point():
        raise ActionError(f"a weight of dtype {weight.dtype} is not compressed; only floating-point ones are")
    if weight.is_meta:
        raise ActionError("the weight is on the meta device and has no values; load the model first")
    matrix = weight.detach().to(torch.float32).reshape(layer.rows, layer.columns).contiguous()
    low, high = torch.aminmax(matrix)
    if not (low >= -LARGEST and high <= LARGEST):  # so written that NaN fails
        raise ActionError("the weight holds NaN, infinity or numbers beyond 2^126, which no code stands for; repair it")
    return matrix


def keep_values(matrix: Tensor, action: Keep) -> Tensor:
    """The matrix in the dtype that is kept, saturated at its range."""
    dtype = KEEP_DTYPE[action.dtype]
    if dtype == torch.float32:
        return matrix
    limit = torch.finfo(dtype).max
    return matrix.clamp(-limit, limit).to(dtype)


class Approximator:
    """One weight under many actions; its SVD is taken once, however many ranks are asked for.

    The weight is read when it is first needed and must not change in between.

    Args:
        weight: of the layer's shape, floating point; never written to.
        layer: what it belongs to.
    """

    def __init__(self, weight: Tensor, layer: Layer) -> None:
        self.layer = layer
        self._shape, self._dtype = weight.shape, weight.dtype
        self._matrix = to_matrix(weight, layer)
        self._svd: tuple[Tensor, Tensor] | None = None

    def approximate(self, action: Action) -> Tensor:
        """See `allocator.applier.approximate`."""
        action.check(self.layer)
        if isinstance(action, LowRank):
            left, right = self.factors(action)
            matrix = left @ right
        else:
            matrix = approximate_matrix(self._matrix, action)
        if matrix.data_ptr() == self._matrix.data_ptr():
            matrix = matrix.clone()
        return matrix.reshape(self._shape).to(self._dtype)

    def factors(self, action: LowRank) -> tuple[Tensor, Tensor]:
        """left [rows, rank] and right [rank, columns] in float32, each as its own action stores it."""
        left, right = self.exact_factors(action.rank, action.components)
        return approximate_matrix(left, action.left), approximate_matrix(right, action.right)

    def exact_factors(self, rank: int, components: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """U_r √S_r and √S_r V_rᵀ of these components, or of the largest, in float32, before their own actions.

        Each column of U has its largest entry positive, so that LAPACK's choice of sign does not show.
        """
        if self._svd is None:
            u, s, vt = torch.linalg.svd(self._matrix.double(), full_matrices=False)
            largest = u.gather(0, u.abs().argmax(0, keepdim=True))
            root = s.sqrt() * torch.where(largest < 0, -1.0, 1.0).squeeze(0)
            self._svd = (u * root).to(torch.float32), (root.unsqueeze(1) * vt).to(torch.float32)
        left, right = self._svd
        if components is None:
            return left[:, :rank].contiguous(), right[:rank].contiguous()
        kept = list(components)
        return left[:, kept].contiguous(), right[kept].contiguous()


def approximate_matrix(matrix: Tensor, action: Action) -> Tensor:
    """A float32 matrix under `keep` or `quantize`, in float32; `keep float32` returns the matrix itself."""
    match action:
        case Keep():
            return keep_values(matrix, action).to(torch.float32)
        case Quantize():
            return decode(encode(matrix, action), action)
        case _:
            raise ActionError(
                f"action kind {action.kind!r} has no arithmetic in the applier; known: keep, low_rank, quantize"
            )
