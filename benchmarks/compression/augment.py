"""Training pictures as they might have been taken as well: shifted a little, and seen in a mirror."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

SHIFT = 2


def augment(images: Tensor, background: float, generator: torch.Generator) -> Tensor:
    """Each picture [N, C, H, W] shifted by up to ±2 pixels in both directions, and every second one mirrored.

    background: the value of the pixels that come in from outside.
    """
    count, channels, height, width = images.shape

    def drawn(below: int) -> Tensor:
        return torch.randint(below, (count, 1), generator=generator)

    rows = drawn(2 * SHIFT + 1) + torch.arange(height)
    columns = torch.arange(width).expand(count, width)
    columns = drawn(2 * SHIFT + 1) + torch.where(drawn(2) == 1, columns.flip(1), columns)
    padded = pad(images, (SHIFT,) * 4, value=background)
    which = torch.arange(count)[:, None, None, None]
    return padded[which, torch.arange(channels)[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
