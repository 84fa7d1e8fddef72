"""A weight replaced for a moment, and put back bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def switched(weight: Tensor, other: Tensor) -> Iterator[None]:
    """Write ``other`` into the weight's own memory, so that all modules that share it see it; restore on leaving."""
    saved = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(other)
        yield
    finally:
        with torch.no_grad():
            weight.copy_(saved)
