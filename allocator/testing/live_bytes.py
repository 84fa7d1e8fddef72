"""How many bytes of tensors are alive while something runs, as torch's own operations make and drop them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A context that counts the storages made within it; what was there before is not counted.

    Looked at after every operation, so the room that one takes for itself alone (a convolution's copy of its input in
    another order) does not show.

    Attributes:
        peak: most bytes that were alive at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types, and mypy's exclusion misses super()
        self.peak = 0
        self._before: dict[int, StorageWeakRef] = {}  # the references keep an address from being used again
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        """Run the operation, then count."""
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and _id(tensor) not in self._alive:
                self._before[_id(tensor)] = _weakly(tensor)
        made = func(*args, **kwargs)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _id(tensor) not in self._before:
                self._alive[_id(tensor)] = _weakly(tensor), tensor.untyped_storage().nbytes()
        self._alive = {key: kept for key, kept in self._alive.items() if not _gone(kept[0])}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return made


def _id(tensor: Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


def _weakly(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _gone(storage: StorageWeakRef) -> bool:
    found: bool = storage.expired()
    return found
