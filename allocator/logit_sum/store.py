"""A folder of logit deltas: a manifest that says of what, and one npz per group and run of batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.files import read_bytes, write_bytes
from allocator.logit_sum.manifest import ANEW, MANIFEST, Manifest, read_manifest, require_same
from allocator.logit_sum.positions import Positions


class Writer:
    """Fills a folder; a store of something else is never touched, and none is whole before `finish`.

    Raises:
        UsageError: the folder holds another measurement, or files that are no store; it cannot be made.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._files: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: no folder for logit deltas can be made there: {error.strerror}") from None
        if (folder / MANIFEST).exists():
            require_same(folder, read_manifest(folder), manifest)
        elif any(folder.iterdir()):
            raise UsageError(f"{folder}: holds files but no {MANIFEST} of logit deltas; name an empty or a new folder")
        self._write()

    def positions(self, start: int, found: Positions) -> None:
        """Keep the float network's side of the batches from number `start` on."""
        tail = {} if found.tail is None else {"tail": found.tail}
        self._add(f"positions-{start:05d}.npz", {"top": found.top, "counts": found.counts, **tail})

    def deltas(self, group: int, start: int, delta: NDArray[Any]) -> None:
        """Keep the deltas [C, P, F] of a group's choices over the batches from number `start` on."""
        self._add(f"{group:05d}-{start:05d}.npz", {"delta": delta})

    def finish(self) -> None:
        """Declare the store whole."""
        self._write()

    def _add(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        data = write_arrays(arrays)
        write_bytes(self.folder / name, data)
        self._files[name] = hashlib.sha256(data).hexdigest()

    def _write(self) -> None:
        manifest = msgspec.structs.replace(self.manifest, files=self._files)
        write_bytes(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


class Reader:
    """A whole store, whose files are checked against the manifest as they are read.

    positions: the float network's side, all batches.

    Raises:
        UsageError: no store, an unfinished one, or one whose files were changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        if not self.manifest.files:
            raise UsageError(f"{folder}: its measurement was not finished; run it again with the same options")
        self._starts = sorted(int(n[10:-4]) for n in self.manifest.files if n.startswith("positions-"))
        if not self._starts:
            raise UsageError(f"{folder / MANIFEST}: names no file of positions; {ANEW}")
        parts = [self._positions(start) for start in self._starts]
        self._lengths = [len(part.top) for part in parts]
        self.positions = Positions.joined(parts)

    def deltas(self, group: int) -> NDArray[Any]:
        """Of the group's choices at all positions [C, P, F].

        Raises:
            UsageError: a file that is missing, changed, or of another shape than the manifest says.
        """
        choices = len(self.manifest.groups[group].choices)
        parts: list[NDArray[Any]] = []
        for start, length in zip(self._starts, self._lengths, strict=True):
            shapes = {"delta": (choices, length, self.positions.width)}
            parts.append(self._arrays(f"{group:05d}-{start:05d}.npz", shapes)["delta"])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _positions(self, start: int) -> Positions:
        manifest, name = self.manifest, f"positions-{start:05d}.npz"
        shapes: dict[str, tuple[int, ...]] = {"top": (-1, manifest.top), "counts": (-1,)}
        if manifest.classes > manifest.top:
            shapes["tail"] = (-1,)
        found = self._arrays(name, shapes)
        tail = found.get("tail")
        lengths = {len(found["top"]), int(found["counts"].sum()), len(found["top"] if tail is None else tail)}
        if len(lengths) > 1:
            raise UsageError(f"{self.folder / name}: holds numbers of positions that do not agree, {lengths}; {ANEW}")
        return Positions(found["top"], tail, 0 if tail is None else manifest.sketches, found["counts"])

    def _arrays(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        """The arrays of a file, if it is the one that was written and has these shapes; −1 is any length."""
        data = read_bytes(self.folder / name)
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise UsageError(f"{self.folder / name}: is not the file that {MANIFEST} speaks of; {ANEW}")
        found = read_arrays(data, name, "file of logit deltas")
        for key, wanted in shapes.items():
            shape = found[key].shape if key in found else ()
            if len(shape) != len(wanted) or any(n not in (-1, m) for n, m in zip(wanted, shape, strict=True)):
                raise UsageError(f"{self.folder / name}: holds {key} in shape {shape}, not {wanted}; {ANEW}")
        return found
