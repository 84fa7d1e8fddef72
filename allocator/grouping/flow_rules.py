"""Operations that leave every channel in its place and by itself, and where it then lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Side: TypeAlias = tuple[nn.Module, str]
"""The output channels (``out``) of a layer, or its input channels (``in``)."""


@dataclass(frozen=True)
class Layout:
    """Where channels lie in a tensor: channel c at the places c·inner … c·inner + inner − 1 of dimension ``dim``.

    Attributes:
        source: whose channels they are.
        count: channels.
        dim: from the left.
        inner: places of a channel.
    """

    source: Side
    count: int
    dim: int
    inner: int = 1


_Read: TypeAlias = tuple[Tensor, Layout]
_Rule: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any], Sequence[_Read], Tensor], Layout | None]


def followed(
    name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor
) -> Layout | None:
    """Where the channels lie in the result of an operation; None if it mixes them or is not known."""
    rule = _RULES.get(name)
    if rule is None and torch.Tag.pointwise in func.tags:
        rule = _pointwise
    return None if rule is None else rule(args, kwargs, read, result)


def _pointwise(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor
) -> Layout | None:
    """Shapes are aligned at their right ends."""
    found = {
        (result.dim() - one.dim() + layout.dim, layout.count, layout.inner, one.shape[layout.dim])
        for one, layout in read
    }
    if len(found) > 1:
        return None
    return replace(read[0][1], dim=next(iter(found))[0])


def _alone(read: Sequence[_Read]) -> _Read | None:
    """The tensor that an operation works on, if its other operands are no channels."""
    return read[0] if len(read) == 1 else None


def _view(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    """The same numbers in the same order under another shape."""
    one, layout = read[0]
    behind = layout.inner * math.prod(one.shape[layout.dim + 1 :])  # places of a channel, were all laid out in a row
    for dim in range(result.dim()):
        after = math.prod(result.shape[dim + 1 :])
        if after and behind % after == 0 and result.shape[dim] == layout.count * (behind // after):
            return replace(layout, dim=dim, inner=behind // after)
    return None


def _restride(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    """What global pooling does to its means of channels-last images: other strides for dimensions of one place."""
    one, layout = read[0]
    wide = [stride for size, stride in zip(result.shape, result.stride(), strict=True) if size > 1]
    laid_out = wide == sorted(wide, reverse=True) and result.untyped_storage().nbytes() == result.nbytes
    return layout if one is result and laid_out else None


def _permute(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    one, layout = read[0]
    return replace(layout, dim=[dim % one.dim() for dim in args[1]].index(layout.dim))


def _transpose(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor
) -> Layout | None:
    one, layout = read[0]
    a, b = (dim % one.dim() for dim in args[1:3])
    return replace(layout, dim={a: b, b: a}.get(layout.dim, layout.dim))


def _expand(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    return replace(read[0][1], dim=result.dim() - read[0][0].dim() + read[0][1].dim)


def _reduce(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    """Over other dimensions than the channels'."""
    one, layout = read[0]
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    over = {dim % one.dim() for dim in ([dims] if isinstance(dims, int) else dims or range(one.dim()))}
    if layout.dim in over:
        return None
    gone = sum(dim < layout.dim for dim in over) if result.dim() < one.dim() else 0
    return replace(layout, dim=layout.dim - gone)


def _join(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    """Along another dimension than the channels', whose places are then equal in all."""
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
    layouts = {(layout.dim, layout.count, layout.inner) for _, layout in read}
    return None if len(layouts) > 1 or read[0][1].dim == along else read[0][1]


def _cut(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    one, layout = read[0]
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % one.dim()
    if along == layout.dim:
        return None
    return replace(layout, dim=layout.dim - (result.dim() < one.dim() and along < layout.dim))


def _norm(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    """Normalisation of each place of dimension 1 by itself."""
    one = _alone(read)
    return one[1] if one is not None and one[0] is args[0] and one[1].dim == 1 else None


def _over_places(dims: int) -> _Rule:
    """Operations on the last so many dimensions."""

    def rule(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
        one = _alone(read)
        return one[1] if one is not None and one[1].dim < one[0].dim() - dims else None

    return rule


def _pad(args: tuple[Any, ...], kwargs: Mapping[str, Any], read: Sequence[_Read], result: Tensor) -> Layout | None:
    return _over_places(len(args[1]) // 2)(args, kwargs, read, result)


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("clone", "alias", "detach", "_to_copy", "native_dropout", "copy_"), _pointwise),
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias"), _view),
    **dict.fromkeys(("squeeze", "squeeze_", "unsqueeze", "unsqueeze_"), _view),
    **dict.fromkeys(["native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"], _norm),
    **dict.fromkeys(["_native_batch_norm_legit", "_native_batch_norm_legit_no_training"], _norm),
    **dict.fromkeys(["mean", "sum", "amax", "amin"], _reduce),
    **dict.fromkeys(["slice", "select"], _cut),
    **dict.fromkeys(["softplus", "leaky_relu", "gelu", "hardswish"], _pointwise),
    "as_strided_": _restride,
    "permute": _permute,
    "transpose": _transpose,
    "transpose_": _transpose,
    "expand": _expand,
    "cat": _join,
    "constant_pad_nd": _pad,
    **{
        f"{kind}{dims}d{end}": _over_places(dims)
        for dims in (1, 2, 3)
        for kind, end in (
            ("max_pool", ""), ("max_pool", "_with_indices"), ("avg_pool", ""), ("_adaptive_avg_pool", ""),
            ("adaptive_max_pool", ""), ("reflection_pad", ""), ("replication_pad", ""), ("upsample_nearest", ""),
        )
    },
    "upsample_bilinear2d": _over_places(2),
    "upsample_bicubic2d": _over_places(2),
    "upsample_linear1d": _over_places(1),
}  # fmt: skip
