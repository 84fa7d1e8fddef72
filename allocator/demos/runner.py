"""The main job end to end: profile → problem.json → every backend at several budgets → apply → evaluate → one table."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from allocator.applier.apply import apply_
from allocator.applier.checkpoint import compress
from allocator.applier.loading import load_compressed
from allocator.applying import layer_statistics
from allocator.comparison import Row, compare
from allocator.demos import Demo
from allocator.errors import AllocatorError
from allocator.evaluation import resource_use
from allocator.formats.problems import save_problem
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.progress import Progress
from allocator.solution import Solution
from allocator.tasks.measurement import Measured, measure
from allocator.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Result:
    """One backend at one budget, solved, applied, stored and measured. measured: metric → value and standard error."""

    row: Row
    stored_bytes: int | None = None
    measured: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"stored_bytes": self.stored_bytes, "measured": self.measured, **self.row.to_json()}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a demo measured. original: metrics of the uncompressed network."""

    name: str
    metric: str
    original: dict[str, Any]
    original_bytes: int
    profile_seconds: float
    results: tuple[Result, ...]


def run(demo: Demo, out: Path, progress: Progress, say: Callable[[str], None]) -> Report:
    """Run a demo; problem.json, solutions and checkpoints are left in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    say(f"{demo.NAME}: making the network and its data ready")
    workload = demo.workload()
    original = measure(workload)
    say(f"{demo.NAME}: {demo.METRIC} of the original {_shown(original[demo.METRIC])}")
    started = time.perf_counter()
    problem = profile(workload, demo.space(), demo.PROFILERS, progress=progress)
    seconds = time.perf_counter() - started
    save_problem(problem, out / "problem.json")
    say(
        f"{demo.NAME}: profiled {problem.group_count} layers, {problem.choice_count} choices by "
        f"{', '.join(demo.PROFILERS)} in {seconds:.1f} s; {out / 'problem.json'}"
    )
    budgets = [budget_of(problem, b) for b in demo.BUDGETS]
    kept: dict[tuple[str, str], Solution] = {}
    rows = compare(
        {demo.NAME: problem},
        budgets=[f"weight_bytes={b}" for b in budgets],
        time_limit=30,
        progress=progress,
        keep=lambda row, solution: kept.__setitem__((row.budget, row.solver), solution),
    )
    return Report(
        name=demo.NAME,
        metric=demo.METRIC,
        original={name: asdict(m) for name, m in original.items()},
        original_bytes=sum(t.numel() * t.element_size() for t in _state(workload.model)),
        profile_seconds=seconds,
        results=tuple(_measure_all(workload, rows, kept, out, progress)),
    )


def budget_of(problem: Problem, wanted: str | tuple[str, str]) -> int:
    """weight_bytes of the uniform allocation of a label, or the middle between two labels'.

    A layer that lacks the label takes its cheapest choice that is no cheaper than the label's bits would be: its
    dearest one.
    """
    if isinstance(wanted, tuple):
        return (budget_of(problem, wanted[0]) + budget_of(problem, wanted[1])) // 2
    codes = problem.label_codes
    rows = np.empty(problem.group_count, np.int64)
    for g in range(problem.group_count):
        own = np.arange(*problem.indptr[g : g + 2].tolist())
        hit = [r for r in own.tolist() if codes.table[codes.code[r]] == wanted]
        rows[g] = hit[0] if hit else own[np.argmax(problem.cost("weight_bytes")[own])]
    return int(resource_use(problem, rows, "weight_bytes", None))


def _measure_all(
    workload: Workload, rows: list[Row], kept: dict[tuple[str, str], Solution], out: Path, progress: Progress
) -> list[Result]:
    """Apply, store, reload and measure each distinct allocation once."""
    done: dict[bytes, tuple[int, dict[str, Any]]] = {}
    results = []
    for i, row in enumerate(rows):
        progress(f"evaluating {row.solver}", i, len(rows))
        solution = kept.get((row.budget, row.solver))
        if solution is None or solution.allocation is None:
            results.append(Result(row=row))
            continue
        key = solution.allocation.choice.tobytes()
        if key not in done:
            done[key] = _measure(workload, solution, out / f"allocation-{len(done)}", progress)
        results.append(Result(row=row, stored_bytes=done[key][0], measured=done[key][1]))
    progress("evaluated", len(rows), len(rows))
    return results


def _measure(workload: Workload, solution: Solution, folder: Path, progress: Progress) -> tuple[int, dict[str, Any]]:
    """Bytes on disk but for those in which the file describes itself, and metrics of the network that comes back.

    Raises:
        AllocatorError: the reloaded network's outputs differ from those of the one compressed in memory.
    """
    statistics = layer_statistics(workload, solution, progress)
    info = compress(workload.model, solution, folder, statistics, progress=progress)
    reloaded = load_compressed(copy.deepcopy(workload.model), folder)
    applied = apply_(copy.deepcopy(workload.model), solution, statistics=statistics, progress=progress)
    batch = next(iter(workload.calibration))
    with torch.no_grad():
        if not torch.equal(workload.task.logits(reloaded, batch), workload.task.logits(applied, batch)):
            raise AllocatorError(f"{folder}: the stored network does not compute what the applied one does")
    measured = measure(workload, applied, workload.model, progress=progress)
    return info.bytes - info.described, {name: asdict(m) for name, m in measured.items()}


def _state(model: torch.nn.Module) -> list[torch.Tensor]:
    """Tensors of the state dict, those that share storage once."""
    return list({t.data_ptr(): t for t in model.state_dict().values()}.values())


def _shown(m: Measured) -> str:
    return f"{m.value:.4f} ± {m.stderr:.4f}"
