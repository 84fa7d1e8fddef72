"""What a folder of logit deltas is of: the page that decides whether they may be used, or added to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from allocator.errors import UsageError
from allocator.formats.files import read_bytes

MANIFEST = "manifest.json"
ANEW = "name another folder, or remove this one to measure anew"
_FILE = re.compile(r"(positions|[0-9]{5})-[0-9]{5,}\.npz")


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
    dtype: Literal["float16", "float32", "float64"]
    versions: dict[str, str]
    format: Literal["logit-deltas"] = "logit-deltas"
    version: Literal[1] = 1
    files: dict[str, str] = {}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        UsageError: there is none, or it is none that this version reads.
    """
    path = folder / MANIFEST
    data = read_bytes(path)
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is no manifest of logit deltas ({error}); {ANEW}") from None
    if not all(map(_FILE.fullmatch, found.files)):
        raise UsageError(f"{path}: names a file that no store of logit deltas has; {ANEW}")
    for group in found.groups:
        if len(group.choices) != len(group.actions):
            raise UsageError(f"{path}: group {group.name!r} has not one action for each choice; {ANEW}")
    return found


def require_same(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    """Refuse a folder that belongs to another measurement.

    Raises:
        UsageError: naming what differs.
    """
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
