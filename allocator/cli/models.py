"""MODEL on the command line: a built-in name, or package.module:function that returns a Workload."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allocator.space import Space
    from allocator.workload import Workload


def load_workload(model: str) -> Workload:
    """The workload that a MODEL argument names.

    Raises:
        UsageError: no such built-in, module or function, or it returns something else.
        UnavailableError: a package that it needs is missing.
    """
    from allocator.errors import UnavailableError, UsageError
    from allocator.workload import Workload

    module, colon, function = model.partition(":")
    from allocator.demos import demo_named

    if not colon:
        return demo_named(model).workload()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise UsageError(f"MODEL {model!r}: there is no module {error.name!r} here or installed") from None
        raise UnavailableError(f"MODEL {model!r}: needs the module {error.name!r}; install it") from None
    except AttributeError:
        raise UsageError(f"MODEL {model!r}: {module} has no {function!r}") from None
    made = make()
    if not isinstance(made, Workload):
        raise UsageError(f"MODEL {model!r}: returned a {type(made).__name__}, not an allocator.Workload")
    return made


def default_space(model: str) -> Space:
    """The choices that suit a built-in model; `Space.simple()` for others."""
    from allocator.space import Space

    if ":" in model:
        return Space.simple()
    from allocator.demos import demo_named

    return demo_named(model).space()
