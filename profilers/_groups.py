"""The row form of a problem: groups with costed choices, scores, offsets and provenance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

import torch
from torch.nn import Module

from allocator.actions import Keep, Layer
from allocator.applier.inventory import outside_bytes
from allocator.applier.layers import uncovered
from allocator.grouping.rules import Coupled
from allocator.workload import Part
from profilers._channels import channel_couplings
from profilers._couplings import coupling_rows
from profilers._findings import Basis, Gathered
from profilers._plan import Plan, Target
from profilers._score import Score

RESOURCES = {"weight_bytes": "byte", "macs": "1", "bops": "1"}
_TAG = {"conv1d": "conv", "conv2d": "conv", "conv3d": "conv"}


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


def rows(plan: Plan, found: Gathered, provenance: Mapping[str, Any], sets: Sequence[Coupled] = ()) -> dict[str, Any]:
    """problem.json, version 1, in the row form; the loss is the first score, with its interactions."""
    first = next(iter(found.scores))
    outside = offsets(plan)
    joined = coupling_rows(sets)
    agreed, channels = channel_couplings(plan.targets, plan.channels)
    out: dict[str, Any] = {
        "format": "allocation-problem",
        "version": 1,
        "generator": {"name": "compression-allocator", "version": _version("compression-allocator")},
        "scores": {name: _declared(score, found.made_by[name]) for name, score in found.scores.items()},
        "resources": {name: {"unit": unit, "offset": outside[name]} for name, unit in RESOURCES.items()},
        "groups": [_group(place, target, found) for place, target in enumerate(plan.targets)],
        "loss": {"terms": {first: 1}},
        "couplings": [*joined["couplings"], *agreed],
        "interactions": [_interaction(plan, basis) for basis in found.bases],
        "provenance": dict(provenance),
    }
    for name, cost in found.costs.items():
        out["resources"][name] = {"unit": cost.unit, "aggregate": cost.aggregate, "offset": cost.offset}
    if all(any(item.label == "keep" for item in target.menu) for target in plan.targets):
        out["reference"] = "keep"
    missed = uncovered(plan.workload.model)
    out["meta"] = {
        "workload": plan.workload.name,
        "skipped": [unit.name for unit, _ in plan.skipped],
        "uncovered": [{"name": u.name, "shape": list(u.shape), "reason": u.reason} for u in missed],
        "profilers": found.notes,
        **({"couplings": joined["meta"]} if sets else {}),
        **({"channels": channels} if channels else {}),
    }
    return out


def _interaction(plan: Plan, basis: Basis) -> dict[str, Any]:
    vectors = {
        target.name: {item.name: vector.tolist() for item, vector in zip(target.menu, own, strict=True) if vector.any()}
        for target, own in zip(plan.targets, basis.vectors, strict=True)
    }
    return {"score": basis.score, "basis": {"eigenvalues": basis.eigenvalues.tolist(), "vectors": vectors}}


def _declared(score: Score, profiler: str) -> dict[str, str]:
    per = {} if score.per is None else {"per": score.per}
    return {"unit": score.unit, "target": score.target, **per, "profiler": profiler}


def _group(place: int, target: Target, found: Gathered) -> dict[str, Any]:
    choices = []
    for k, item in enumerate(target.menu):
        extra = {name: cost.value[place][k] for name, cost in found.costs.items()}
        choice: dict[str, Any] = {
            "name": item.name,
            **({} if item.label == item.name else {"label": item.label}),
            "action": item.action.to_json(),
            "cost": {**costs(target.layer, item.action), **extra},
            "score": {name: float(score.value[place][k]) for name, score in found.scores.items()},
        }
        errors = {name: float(s.stderr[place][k]) for name, s in found.scores.items() if s.stderr is not None}
        gaps = {name: float(s.remainder[place][k]) for name, s in found.scores.items() if s.remainder is not None}
        choices.append({**choice, **({"stderr": errors} if errors else {}), **({"remainder": gaps} if gaps else {})})
    group = {
        "name": target.name,
        "modules": list(target.unit.modules),
        "weights": target.layer.weights,
        "tags": tags(target),
        "choices": choices,
    }
    stats = {name: float(values[place]) for name, values in found.stats.items()}
    return {**group, "stats": stats} if stats else group


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
    return {name: _version(name) for name in ("compression-allocator", "torch", "numpy")}


@cache
def _version(package: str) -> str:
    return metadata.version(package)  # parses the package's whole metadata
