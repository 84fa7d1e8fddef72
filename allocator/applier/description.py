"""What a checkpoint says about itself in the header of its tensor file: the action of every weight, its origin.

`allocation` is the base64 form of zlib-compressed JSON, `{"actions": [action…], "weights": {key: [group, action's
number, [module…], kind, shape, groups]}}`: as plain JSON it would take more room than the weights of a small network.
`provenance` is JSON: versions, hashes, command.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import allocator
from allocator.actions import Action, Layer, parse
from allocator.applier.inventory import weight_key
from allocator.applier.plan import Step
from allocator.applier.tensor_file import Header
from allocator.errors import ActionError, AllocatorError

LARGEST = 1 << 28
"""Bytes of unpacked JSON beyond which a description is refused: nothing that is read may fill the memory."""


@dataclass(frozen=True)
class Stored:
    """One stored weight of a checkpoint: its key in the file, its group, the modules that use it, how it is stored."""

    key: str
    group: str
    modules: tuple[str, ...]
    action: Action
    layer: Layer


def description(steps: Sequence[Step], provenance: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Entries of the header: equal allocations of equal networks give equal text."""
    actions: dict[str, int] = {}
    weights: dict[str, list[Any]] = {}
    for step in steps:
        layer = step.unit.layer
        number = actions.setdefault(_text(step.action.to_json()), len(actions))
        modules = list(step.unit.modules)
        weights[weight_key(modules[0])] = [
            step.group, number, modules, layer.kind, list(layer.weight_shape), layer.groups,
        ]  # fmt: skip
    packed = zlib.compress(_text({"actions": [json.loads(a) for a in actions], "weights": weights}).encode(), 9)
    where = {"versions": {"compression-allocator": allocator.__version__, "torch": str(torch.__version__)}}
    return {
        "format": "allocation-checkpoint",
        "version": "1",
        "allocation": base64.b64encode(packed).decode(),
        "provenance": _text({**where, **(provenance or {})}),
    }


def stored(header: Header, path: Path) -> tuple[Stored, ...] | None:
    """The weights that a header describes; None if it describes none.

    Raises:
        AllocatorError: a description that cannot be read.
    """
    if "allocation" not in header.metadata:
        return None
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(header.metadata["allocation"], validate=True), LARGEST)
        if unpacker.unconsumed_tail:
            raise ValueError("it is too long")
        document = json.loads(raw)
        actions = [parse(action) for action in document["actions"]]
        return tuple(
            Stored(str(key), str(group), tuple(map(str, modules)), actions[number], _layer(kind, shape, groups))
            for key, (group, number, modules, kind, shape, groups) in document["weights"].items()
        )
    except ActionError as error:
        raise AllocatorError(f"{path}: an action of its header cannot be done here: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, zlib.error) as error:
        raise AllocatorError(f"{path}: the allocation in its header cannot be read ({error}); it is damaged") from error


def provenance(header: Header, path: Path) -> dict[str, Any]:
    """Where a checkpoint is from, as its header says; empty where it says nothing."""
    try:
        found = json.loads(header.metadata.get("provenance", "{}"))
    except (ValueError, RecursionError) as error:
        raise AllocatorError(f"{path}: the provenance in its header is no valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise AllocatorError(f"{path}: the provenance in its header is no object")
    return found


def _layer(kind: Any, shape: Any, groups: Any) -> Layer:
    if not isinstance(shape, list) or not all(type(n) is int for n in (*shape, groups)):
        raise ValueError(f"{shape!r} is no shape")
    return Layer(kind, tuple(shape), groups=groups)


def _text(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)
