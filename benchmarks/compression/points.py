"""One allocation of one network: compressed, written to disk, read back, judged on data that nothing else has seen."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from allocator import (
    Problem,
    Solution,
    apply_,
    compress,
    layer_statistics,
    load_compressed,
    profile,
    recover,
    refine,
    save_compressed,
    solve,
)
from allocator.actions import parse
from allocator.apart import menu_of
from allocator.cli.console import progress
from allocator.kinds import EIGHT, without_inputs
from allocator.methods.judging import Judged, compared
from allocator.progress import Progress
from allocator.space import Space
from allocator.statement import FloatArray
from allocator.tasks.protocol import Batch
from allocator.workload import Workload
from benchmarks.compression.correlation import similarities
from benchmarks.compression.menus import JOINT, RECOVERED, WHOLE, WHOLE_RECOVERED, Menu, menu, rounded, space_of
from benchmarks.compression.subjects import Subject, parameters

PASSES = 1e6
"""Of `refine`: every choice is measured on all samples."""
STEPS = 600
"""Of recovery."""
ROOM = 2048
"""Bytes left free for what the file says of itself."""
MOST = 120.0
"""Seconds for the optimum of a quadratic model; small ones end long before."""
NEAREST, COMPENSATED = "uniform, nearest", "uniform, compensated"
"""All layers at one width: rounded to nearest, or as the menus do it."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Point:
    """What one allocation came to.

    Attributes:
        bytes: of the file.
        whole: 4 · parameters of the float network.
        judged: on the evaluation data, sample by sample.
        choices: how many layers have each kind of action.
        pairs: see `correlation`; None but for tasks with pairs.
    """

    bytes: int
    whole: int
    judged: Judged
    choices: Mapping[str, int]
    pairs: FloatArray | None = None

    def save(self, path: Path) -> None:
        """Columns of the compressed and of the float network, beside the counts."""
        columns: dict[str, FloatArray] = {}
        for who, one in (("it", self.judged), ("float", self.judged.original)):
            assert one is not None, "judged against the float network"
            columns |= {f"{who}/sum/{name}": column for name, column in one.sums.items()}
            columns |= {f"{who}/count/{name}": column for name, column in one.counts.items()}
        columns |= {f"choice/{name}": np.array(float(count)) for name, count in self.choices.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside.npz")
        columns |= {"bytes": np.array(float(self.bytes)), "whole": np.array(float(self.whole))}
        if self.pairs is not None:
            columns["pairs"] = self.pairs
        np.savez(aside, **columns)  # type: ignore[arg-type]  # numpy takes any names
        aside.replace(path)

    @property
    def times_fewer(self) -> float:
        """Bytes of the float parameters over those of the file."""
        return self.whole / self.bytes

    @staticmethod
    def load(path: Path) -> Point:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as held:
            parts = {name: held[name] for name in held.files}
        it, original = ((_under(parts, f"{who}/sum/"), _under(parts, f"{who}/count/")) for who in ("it", "float"))
        choices = {name: int(value) for name, value in _under(parts, "choice/").items()}
        judged = Judged(it[0], it[1], original=Judged(original[0], original[1]))
        return Point(int(parts["bytes"]), int(parts["whole"]), judged, choices, parts.get("pairs"))


def _under(parts: Mapping[str, FloatArray], prefix: str) -> dict[str, FloatArray]:
    return {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}


def uniform(subject: Subject, workload: Workload, bits: int, way: str) -> Point:
    """All layers rounded alike."""
    choice = {"kind": "quantize", "bits": bits} if way == NEAREST else rounded(bits)
    alike = {layers: own[:1] for layers, own in subject.apart.items()}
    problem = profile(workload, _space(subject, (choice,), alike), "weight_error")
    return written(workload, solve(problem, "uniform"))


def best(
    subject: Subject,
    workload: Workload,
    kind: str,
    ratio: float,
    folder: Path,
    say: Say,
    training: Callable[[], list[Batch]] | None = None,
) -> Point | None:
    """The allocation of a kind's menu, or of all together, at so many times fewer bytes; None if none is that small.

    ``folder`` keeps what was measured, for the other ratios too. ``training``: what it is recovered on.
    """
    budget = {"weight_bytes": int(4 * parameters(workload) / ratio) - ROOM}
    with progress() as tell:
        problem = _profiled(subject, workload, kind, folder, tell)
    say(f"{problem.group_count} layers, {int(problem.free.sum())} choices")
    if least_bytes(problem) > budget["weight_bytes"]:
        return None
    if subject.way == "refined":
        with progress() as tell:
            found = refine(
                workload, problem, budgets=budget, passes=PASSES, resume=folder / "refined", progress=tell
            ).solution
    else:
        found = solve(problem, budgets=budget, time_limit=MOST, seed=0)
    if found.allocation is None:
        return None
    return written(workload, found) if training is None else recovered(workload, found, training())


def recovered(workload: Workload, solution: Solution, training: list[Batch]) -> Point:
    """Distilled on training data, written, read back and judged; as many bytes as without."""
    known = layer_statistics(workload, solution)
    packed = apply_(copy.deepcopy(workload.model), solution, packed=True, statistics=known)
    found = recover(workload, packed, training, steps=STEPS)
    with tempfile.TemporaryDirectory() as name:
        info = save_compressed(found.model, name, solution, provenance={"recovery": found.provenance})
        network = load_compressed(copy.deepcopy(workload.model), name)
        judged, pairs = compared(workload, network), similarities(workload, network)
    return Point(info.bytes, 4 * parameters(workload), judged, _counts(solution), pairs)


def least_bytes(problem: Problem) -> int:
    """Of all allocations."""
    cost = np.where(problem.free, problem.cost("weight_bytes"), np.iinfo(np.int64).max)
    return int(problem.resources["weight_bytes"].offset) + int(np.minimum.reduceat(cost, problem.indptr[:-1]).sum())


def written(workload: Workload, solution: Solution) -> Point:
    """Compress, write, read back and judge; the network that is judged is the one that was read."""
    with tempfile.TemporaryDirectory() as name, progress() as tell:
        known = layer_statistics(workload, solution, tell)
        info = compress(workload.model, solution, name, known, progress=tell)
        network = load_compressed(copy.deepcopy(workload.model), name)
        judged, pairs = compared(workload, network, tell), similarities(workload, network)
    return Point(info.bytes, 4 * parameters(workload), judged, _counts(solution), pairs)


def _counts(solution: Solution) -> dict[str, int]:
    """How many layers have each kind of action."""
    counts: dict[str, int] = {}
    for action in solution.actions.values():
        inner = action.get("action", action)
        label = f"{inner['kind']} {inner['bits']}" if inner["kind"] == "quantize" else str(inner["kind"])
        counts[label] = counts.get(label, 0) + 1
    return counts


def _profiled(subject: Subject, workload: Workload, kind: str, folder: Path, tell: Progress) -> Problem:
    """The problem of a kind's menu: that of all of them, profiled once, with the other kinds' choices forbidden."""
    torch.set_num_threads(1)
    if kind in (WHOLE, WHOLE_RECOVERED):
        return profile(workload, _space(subject, menu(kind), subject.apart), "ggn", tell, resume=folder / "profile")
    whole = folder.with_name(f"{subject.name}-{JOINT}")
    space = _space(subject, menu(JOINT, fast=subject.fast), subject.apart)
    problem = profile(workload, space, "ggn", tell, resume=whole / "profile")
    if kind in (JOINT, RECOVERED):
        return problem
    assert problem.action_code is not None, "profiled"
    everywhere = [parse(one) for one in (EIGHT, without_inputs(EIGHT)) if one is not None]
    own = [menu_of(one) == kind or parse(one) in everywhere for one in problem.action_table]
    return problem.replace(allowed=problem.free & np.array(own)[problem.action_code])


def _space(subject: Subject, choices: Menu, apart: Mapping[str, Menu]) -> Space:
    from allocator.demos import demo_named

    return space_of(demo_named(subject.name).space().rules, choices, apart)
