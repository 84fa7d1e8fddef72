"""Objects of classes that were made while the program ran, pickled by what their class was made of."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Sequence
from typing import Any


def reduced(found: Any, made_of: Sequence[type], make: Callable[..., type]) -> Any:
    """What `__reduce_ex__(2)` of such an object says, with make(*made_of) in the place of its class.

    An object that says something of its own about how it is pickled is left to that.
    """
    rebuild, arguments, *rest = found
    return (_rebuilt, (make, tuple(made_of), tuple(arguments[1:])), *rest) if rebuild is _PLAIN else found


_PLAIN: Any = copyreg.__newobj__  # type: ignore[attr-defined]  # typeshed leaves it out


def _rebuilt(make: Callable[..., type], made_of: tuple[type, ...], args: tuple[Any, ...]) -> Any:
    cls: Any = make(*made_of)
    return cls.__new__(cls, *args)
