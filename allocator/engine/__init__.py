"""The exact engine for grouped (multiple-choice) knapsacks: one algorithm, in numpy and in C.

The C extension is optional: where it could not be built, numpy does the same work.
"""

from __future__ import annotations

import os
from typing import Any


def native() -> Any | None:
    """The C kernels, or None where the extension is missing or ALLOCATOR_ENGINE=numpy asks to do without."""
    return _native if os.environ.get("ALLOCATOR_ENGINE") != "numpy" else None


try:
    from allocator.engine import _native  # type: ignore[attr-defined]  # compiled; absent where there was no compiler
except ImportError:
    _native = None
