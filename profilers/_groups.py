"""The row form of a problem: groups with costed choices, scores, offsets and provenance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch.nn import Module

from allocator.actions import Keep, Layer
from allocator.applier.inventory import outside_bytes
from allocator.applier.layers import uncovered
from allocator.workload import Part
from profilers._plan import Plan, Target
from profilers._score import Score

RESOURCES = {"weight_bytes": "byte", "macs": "1", "bops": "1"}
_TAG = {"conv1d": "conv", "conv2d": "conv"}


def costs(target_layer: Layer, action: Any) -> dict[str, int]:
    """Exact integers: bytes in the checkpoint, multiply-accumulates and bit operations per sample."""
    return {
        "weight_bytes": action.stored_bytes(target_layer),
        "macs": action.macs(target_layer),
        "bops": action.bops(target_layer),
    }


def offsets(plan: Plan) -> dict[str, int]:
    """Use outside the groups: everything else in the checkpoint, and the layers that were skipped."""
    left = [costs(layer, Keep()) for _, layer in plan.skipped]
    return {
        "weight_bytes": outside_bytes(plan.workload.model, [target.unit for target in plan.targets]),
        "macs": sum(cost["macs"] for cost in left),
        "bops": sum(cost["bops"] for cost in left),
    }


def tags(target: Target) -> list[str]:
    """``conv``, ``linear`` or ``embedding``, and the block: the name up to its first number (``model.layers.3``)."""
    block = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)", target.name)
    return [_TAG.get(target.layer.kind, target.layer.kind), *([block.group()] if block else [])]


def rows(
    plan: Plan, scores: Mapping[str, Score], made_by: Mapping[str, str], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """problem.json, version 1, in the row form; the loss is the first score. ``made_by``: score → profiler."""
    first = next(iter(scores))
    outside = offsets(plan)
    out: dict[str, Any] = {
        "format": "allocation-problem",
        "version": 1,
        "generator": {"name": "compression-allocator", "version": metadata.version("compression-allocator")},
        "scores": {name: _declared(score, made_by[name]) for name, score in scores.items()},
        "resources": {name: {"unit": unit, "offset": outside[name]} for name, unit in RESOURCES.items()},
        "groups": [_group(place, target, scores) for place, target in enumerate(plan.targets)],
        "loss": {"terms": {first: 1}},
        "provenance": dict(provenance),
    }
    if all(any(item.label == "keep" for item in target.menu) for target in plan.targets):
        out["reference"] = "keep"
    missed = uncovered(plan.workload.model)
    out["meta"] = {
        "workload": plan.workload.name,
        "skipped": [unit.name for unit, _ in plan.skipped],
        "uncovered": [{"name": u.name, "shape": list(u.shape), "reason": u.reason} for u in missed],
    }
    return out


def _declared(score: Score, profiler: str) -> dict[str, str]:
    per = {} if score.per is None else {"per": score.per}
    return {"unit": score.unit, "target": score.target, **per, "profiler": profiler}


def _group(place: int, target: Target, scores: Mapping[str, Score]) -> dict[str, Any]:
    choices = []
    for k, item in enumerate(target.menu):
        choice: dict[str, Any] = {
            "name": item.name,
            **({} if item.label == item.name else {"label": item.label}),
            "action": item.action.to_json(),
            "cost": costs(target.layer, item.action),
            "score": {name: float(score.value[place][k]) for name, score in scores.items()},
        }
        errors = {name: float(s.stderr[place][k]) for name, s in scores.items() if s.stderr is not None}
        if errors:
            choice["stderr"] = errors
        choices.append(choice)
    return {
        "name": target.name,
        "modules": list(target.unit.modules),
        "weights": target.layer.weights,
        "tags": tags(target),
        "choices": choices,
    }


def model_sha256(model: Module) -> str:
    """sha256 over the state dict: name, dtype, shape and bytes of every tensor, in order of names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue  # extra state of a module: its form is the module's own
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def provenance(digests: Mapping[Part, Sequence[str]], sha256: str, profilers: Sequence[object]) -> dict[str, Any]:
    """What was measured on what, with what."""
    return {
        "model_sha256": sha256,
        **{part: {"n": len(found), "sample_digests": list(found)} for part, found in digests.items()},
        "profiler": [repr(profiler) for profiler in profilers],
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that the numbers come from."""
    return {name: metadata.version(name) for name in ("compression-allocator", "torch", "numpy")}
