"""A folder of logit deltas: a manifest that says of what, and one npz per group and run of batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from allocator.errors import ProblemError, UsageError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.files import read_bytes, write_bytes
from allocator.logit_sum.positions import Positions

MANIFEST = "manifest.json"
ANEW = "name another folder, or remove this one to measure anew"


class StoredGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One group: its name, its choices in order, and the action of each."""

    name: str
    choices: list[str]
    actions: list[dict[str, Any]]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the deltas in a folder depend on, and (once all are written) the sha256 of each file.

    Attributes:
        model_sha256: of the float network's state.
        calibration: sha256 of every sample that was run, in order.
        groups: whose deltas are kept, in order.
        classes: of a position.
        top: classes followed one by one at each position.
        sketches: random sums of the rest; 0 where there is no rest.
        seed: of their signs.
        dtype: of the stored numbers.
        versions: of the packages that they come from.
        files: name → sha256; empty while the measurement is not finished.
    """

    model_sha256: str
    calibration: list[str]
    groups: list[StoredGroup]
    classes: int
    top: int
    sketches: int
    seed: int
    dtype: str
    versions: dict[str, str]
    format: str = "logit-deltas"
    version: int = 1
    files: dict[str, str] = {}


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
            _require_same(folder, read_manifest(folder), manifest)
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

    Raises:
        UsageError: no store, an unfinished one, or one whose files were changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        if not self.manifest.files:
            raise UsageError(f"{folder}: its measurement was not finished; run it again with the same options")
        self._starts = sorted(int(n[10:-4]) for n in self.manifest.files if n.startswith("positions-"))

    def positions(self) -> Positions:
        """All positions."""
        parts = [self._arrays(f"positions-{start:05d}.npz") for start in self._starts]
        return Positions.joined(
            [Positions(p["top"], p.get("tail"), self.manifest.sketches, p["counts"]) for p in parts]
        )

    def deltas(self, group: int) -> NDArray[Any]:
        """Of the group's choices at all positions [C, P, F]."""
        parts = [self._arrays(f"{group:05d}-{start:05d}.npz")["delta"] for start in self._starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        data = read_bytes(self.folder / name)
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise UsageError(f"{self.folder / name}: is not the file that {MANIFEST} speaks of; {ANEW}")
        return read_arrays(data, name, "file of logit deltas")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        UsageError: there is none, or it is none that this version reads.
    """
    path = folder / MANIFEST
    data = read_bytes(path)
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ProblemError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is no manifest of logit deltas ({error}); {ANEW}") from None
    if (found.format, found.version) != ("logit-deltas", 1):
        raise UsageError(f"{path}: is {found.format!r}, version {found.version}, not 'logit-deltas', version 1; {ANEW}")
    return found


def _require_same(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    words = {
        "model_sha256": "another model",
        "calibration": "other calibration samples",
        "groups": "other groups or choices",
        "versions": "other package versions",
    }
    for key in wanted.__struct_fields__:
        if key != "files" and getattr(earlier, key) != getattr(wanted, key):
            what = words.get(key, f"{key}={getattr(earlier, key)!r}, not {getattr(wanted, key)!r}")
            raise UsageError(
                f"{folder}: holds logit deltas of {what}, and deltas of two measurements do not mix; {ANEW}"
            )
