"""Finished pieces of a measurement on disk, so that a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from allocator.errors import ProblemError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.files import replacing


class Parts:
    """One npz per piece, named by the sha256 of all that it depends on; written aside and renamed.

    A piece that cannot be read is measured again. Without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        self.folder = folder
        self.identity = identity
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, *key: object) -> dict[str, Tensor] | None:
        """The piece of that key, if it was kept."""
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            arrays = read_arrays(path.read_bytes(), path.name, "part")
        except (ProblemError, OSError):
            return None
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def has(self, *key: object) -> bool:
        """Whether that piece was kept whole, as far as the archive's directory, which stands at its end, can tell."""
        path = self._path(key)
        return path is not None and path.exists() and zipfile.is_zipfile(path)

    def keep(self, piece: dict[str, Tensor], *key: object) -> None:
        """Write a piece."""
        path = self._path(key)
        if path is not None:
            with replacing(path) as stream:
                stream.write(write_arrays({name: tensor.detach().cpu().numpy() for name, tensor in piece.items()}))

    def _path(self, key: tuple[object, ...]) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256("\0".join([self.identity, *map(repr, key)]).encode()).hexdigest()
        return self.folder / f"{name}.npz"


def batch_seed(seed: int, batch: int) -> int:
    """A seed for each batch, so that a batch draws the same numbers whether or not the ones before it were drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {batch}".encode()).digest()[:7], "big")
