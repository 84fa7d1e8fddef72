"""Batches as trees of tensors: their samples counted, cut out and digested."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.protocol import Batch


def leaves(batch: Batch, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of every tensor in the batch, in a fixed order.

    Raises:
        UsageError: the batch holds something that is neither a tensor nor a tuple, list or mapping of them.
    """
    if isinstance(batch, Tensor):
        yield path, batch
    elif hasattr(batch, "keys"):  # also the mapping-like batches of tokenizers, which are no Mapping
        for key in batch:
            yield from leaves(batch[key], f"{path}/{key}")
    elif isinstance(batch, (tuple, list)):
        for i, part in enumerate(batch):
            yield from leaves(part, f"{path}/{i}")
    else:
        raise UsageError(
            f"a batch holds a {type(batch).__name__} at {path or '/'}: "
            "batches are tensors, or tuples, lists and mappings of tensors"
        )


def count(batch: Batch) -> int:
    """Rows of a batch: the common first dimension of its tensors."""
    sizes = {path: tensor.shape[0] if tensor.dim() else 0 for path, tensor in leaves(batch)}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise UsageError(
            f"the tensors of a batch have {sizes} rows: each needs the same number of samples, at least one, "
            "along its first dimension"
        )
    return next(iter(sizes.values()))


def take(batch: Batch, start: int, stop: int) -> Batch:
    """Rows start to stop of every tensor, in the same structure."""
    return _each(batch, lambda tensor: tensor[start:stop])


def twice(batch: Batch) -> Batch:
    """All rows of every tensor, and all of them again, in the same structure."""
    return _each(batch, lambda tensor: torch.cat([tensor, tensor]))


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        return {key: _each(batch[key], change) for key in batch}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_each(part, change) for part in batch))
    return type(batch)(_each(part, change) for part in batch)


def first(batches: Iterable[Batch], samples: int | None) -> Iterator[Batch]:
    """The first so many rows, in the batches in which they come; None for all."""
    left = samples
    for batch in batches:
        size = count(batch) if left is None else min(left, count(batch))
        if size <= 0:
            return
        yield batch if size == count(batch) else take(batch, 0, size)
        left = None if left is None else left - size


def digests(batch: Batch) -> list[str]:
    """sha256 of each row over the type, shape and bytes of all its tensors, targets and padding included."""
    rows = [hashlib.sha256() for _ in range(count(batch))]
    for path, tensor in leaves(batch):
        head = f"{path}:{tensor.dtype}:{tuple(tensor.shape[1:])};".encode()
        raw = tensor.detach().cpu().reshape(len(rows), -1).contiguous().view(torch.uint8).numpy()
        for row, sha in zip(raw, rows, strict=True):
            sha.update(head)
            sha.update(row.tobytes())
    return [sha.hexdigest() for sha in rows]
