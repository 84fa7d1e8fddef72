"""How long each layer takes under each choice, on the machine at hand or in a table from another one."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import ModuleList

from allocator.applier.apply import apply_
from allocator.applier.plan import plan as applier_plan
from allocator.errors import UsageError
from allocator.progress import Progress
from allocator.tasks.batches import count, take
from allocator.tasks.protocol import Batch
from profilers._calls import LayerCall, calls_of
from profilers._findings import Cost, Findings
from profilers._latency_table import read_latency
from profilers._plan import Plan, Target
from profilers._run import Profiler
from profilers._shards import Piece, sharded
from profilers._workers import Workers

WHOLE = -1
"""Key of the shard that times the whole network."""
WARM_UP = 2
"""Untimed rounds: the first ones fill caches and choose kernels."""


@dataclass(frozen=True, kw_only=True)
class Latency(Profiler):
    """The resource ``latency_ms``: milliseconds per forward pass, of every layer under every choice. No score.

    A choice of a layer costs the median time of its module, as `apply_(model, solution, packed=True)` would have it,
    on the inputs that the layer gets in one forward pass; calls of a module, and of modules that share a weight, add
    up. The offset is the median time of the whole float network less the sum of the layers' in float, at least 0
    (timing overhead of small layers can exceed the difference). So the total of an allocation predicts a forward pass
    on this machine; it assumes that layers run one after the other.

    **Packed layers unpack their weight at each call and can be slower than float**: the table is what this code does
    on this machine, with torch's threads as they are, and not what a kernel for few bits would do elsewhere. For that,
    measure there and give ``table``.

    Times are not reproducible: another run gives other numbers, so problems with this resource are outside the promise
    that the same seed gives the same bytes. Layers are timed in this process whatever ``jobs`` says, since neighbours
    at work would show; choices take turns, so that a machine that slows down does so for all of them. In the problem's
    ``meta``: lower quartile, median and upper quartile of every choice, threads and samples.

    Cost: ``repeats`` forward passes, and as many calls of each layer per choice. It gives no score, so take it
    beside a profiler that does: ``--profiler ggn,latency``.

    Attributes:
        batch: samples in the timed forward pass, from the first calibration batch; 0: all of that batch.
        repeats: timed calls per choice.
        table: a CSV, Parquet or JSON file of module, choice (or action) and ms to read instead (`read_latency`); the
            offset is then 0.
    """

    name: ClassVar[str] = "latency"
    batch: int = 0
    repeats: int = 20
    table: str | None = None

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """The resource ``latency_ms``.

        Raises:
            UsageError: no repeat; more samples than the first calibration batch has; a table that does not fit.
            ActionError: a choice that the applier cannot do to a layer.
        """
        if self.table is not None:
            value, sha256 = read_latency(self.table, plan)
            return Findings(costs={"latency_ms": Cost(value, "ms")}, notes={"table": self.table, "sha256": sha256})
        if self.repeats < 1:
            raise UsageError(f"latency needs at least one repeat, and got repeats={self.repeats}")
        samples = count(self._batch(plan))
        _require_applicable(plan)
        here = replace(plan, workers=Workers(jobs=1))
        # Times belong to a machine and a number of threads: parts of another one must not be taken for them.
        keys = [(platform.node(), torch.get_num_threads(), place) for place in (WHOLE, *range(len(plan.targets)))]
        whole, *layers = sharded(here, "latency", self, keys, self._measured, progress)
        quartiles = [_quartiles(piece["choices"]) for piece in layers]
        floats = sum(_median(piece["float"]) for piece in layers)
        whole_ms = _median(whole["whole"])
        notes = {
            "samples": samples,
            "threads": torch.get_num_threads(),
            "repeats": self.repeats,
            "whole_ms": whole_ms,
            "quartiles_ms": {
                target.name: {item.name: row for item, row in zip(target.menu, rows, strict=True)}
                for target, rows in zip(plan.targets, quartiles, strict=True)
            },
        }
        value = [[median for _, median, _ in rows] for rows in quartiles]
        offset = max(0.0, whole_ms - floats)
        return Findings(costs={"latency_ms": Cost(value, "ms", offset=offset)}, notes=notes)

    def _batch(self, plan: Plan) -> Batch:
        first = next(iter(plan.workload.calibration))
        if not 0 <= self.batch <= count(first):
            raise UsageError(
                f"latency is to time {self.batch} samples, and the first calibration batch has {count(first)}: give "
                "batch=1 to that many, or 0 for all"
            )
        return take(first, 0, self.batch) if self.batch else first

    def _measured(self, plan: Plan, key: tuple[str, int, int]) -> Piece:
        """ms of every repeat: of the whole network, or of a layer in float and under each choice [C, repeats]."""
        task, model, batch = plan.workload.task, plan.workload.model, self._batch(plan)
        device = next(model.parameters()).device
        with torch.no_grad():
            if key[-1] == WHOLE:
                return {"whole": _times([lambda: task.logits(model, batch)], self.repeats, device)[0]}
            target = plan.targets[key[-1]]
            calls = calls_of(task, model, batch, target.modules)
            layers = [_layer(target, None), *(_layer(target, item.action.to_json()) for item in target.menu)]
            found = _times([_runner(layer, calls) for layer in layers], self.repeats, device)
            return {"float": found[0], "choices": found[1:]}


def _require_applicable(plan: Plan) -> None:
    """ActionError, by the network's own names, where the applier would refuse a choice; before anything is timed."""
    for place in range(max(len(target.menu) for target in plan.targets)):
        wanted = {
            target.name: {"action": target.menu[place].action.to_json(), "modules": list(target.unit.modules)}
            for target in plan.targets
            if place < len(target.menu)
        }
        applier_plan(plan.workload.model, wanted)


def _layer(target: Target, action: Mapping[str, Any] | None) -> ModuleList:
    """A copy of the target's modules, ties kept, with an action done to it."""
    copied = copy.deepcopy(ModuleList(target.modules))
    if action is None:
        return copied
    modules = [str(place) for place in range(len(target.modules))]
    return apply_(copied, {target.name: {"action": action, "modules": modules}}, packed=True)


def _runner(modules: ModuleList, calls: Sequence[LayerCall]) -> Callable[[], object]:
    """All calls of a forward pass, one after the other."""

    def run() -> None:
        for call in calls:
            modules[call.module](*call.args, **call.kwargs)

    return run


def _times(runs: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> Tensor:
    """ms [runs, repeats]; the runs take turns."""
    found = torch.zeros(len(runs), repeats, dtype=torch.float64)
    for turn in range(-WARM_UP, repeats):
        for place, run in enumerate(runs):
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            if turn >= 0:
                found[place, turn] = 1e3 * (time.perf_counter() - began)
    return found


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median(times: Tensor) -> float:
    return _quartiles(times.reshape(1, -1))[0][1]


def _quartiles(times: Tensor) -> list[list[float]]:
    """Lower quartile, median and upper quartile of each row."""
    found: list[list[float]] = torch.quantile(
        times, torch.tensor([0.25, 0.5, 0.75], dtype=times.dtype), dim=1
    ).T.tolist()
    return found
