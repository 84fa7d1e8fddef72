"""The exact engine for grouped (multiple-choice) knapsacks: one algorithm, in numpy and in C.

The C extension is optional: where it could not be built, numpy does the same work.
"""

from __future__ import annotations

import os
from typing import Any

WITHOUT = "ALLOCATOR_ENGINE"

try:
    from allocator.engine import _native  # type: ignore[attr-defined]  # compiled; absent where there was no compiler
except ImportError as error:
    _native = None
    _reason = f"the C extension was not built ({error}); install again with a C compiler to have it"
else:
    _reason = ""


def native() -> Any | None:
    """The C kernels, or None where the extension is missing or ALLOCATOR_ENGINE=numpy asks to do without."""
    return None if os.environ.get(WITHOUT) == "numpy" else _native


def running() -> str:
    """Which engine runs, and why it is not the other one, in words."""
    if native() is not None:
        return "C extension"
    return f"numpy: {_reason or f'{WITHOUT}=numpy asks for it'}"
