"""What a method takes: seconds, and processor time in units of one forward and backward pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from allocator.errors import UsageError
from allocator.tasks.guard import untouched
from allocator.workload import Workload

REPEATS = 3


@dataclass
class Meter:
    """Adds up what it is switched on for.

    Attributes:
        seconds: on the clock.
        cpu: of this process, all threads; other processes (``jobs``) are not in it.
    """

    seconds: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


def one_pass(workload: Workload) -> float:
    """CPU seconds of one forward and one backward pass over the calibration data, the least of `REPEATS`.

    Raises:
        UsageError: the task's loss carries no gradient.
    """
    task, model = workload.task, workload.model
    parameters = list(model.parameters())
    found = []
    with untouched(model):
        model.requires_grad_(True)
        for _ in range(REPEATS):
            started = time.process_time()
            for batch in workload.calibration:
                with torch.enable_grad():
                    loss = task.loss(task.logits(model, batch), batch)
                if not loss.requires_grad:
                    raise UsageError(f"the loss of task {task.name} carries no gradient, so that no pass can be timed")
                torch.autograd.grad(loss, parameters, allow_unused=True)
            found.append(time.process_time() - started)
    return max(min(found), 1e-9)
