"""A plan on its way to another process: packed once, unpacked once per worker and kept there."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.tasks.guard import untouched
from allocator.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from profilers._plan import Plan


@dataclass(frozen=True)
class Ticket:
    """The state in which the driver stands when it sends a shard, so that a worker computes the same bits.

    Attributes:
        token: which packed plan.
        threads: of torch; sums of floats depend on their number.
        gradients: whether autograd records.
        trained: requires_grad of every parameter.
        driver: process number.
    """

    token: str
    threads: int
    gradients: bool
    trained: tuple[bool, ...]
    driver: int

    @staticmethod
    def now(plan: Plan, token: str) -> Ticket:
        """As things are."""
        trained = tuple(parameter.requires_grad for parameter in plan.workload.model.parameters())
        return Ticket(token, torch.get_num_threads(), torch.is_grad_enabled(), trained, os.getpid())


class Local(threading.local):
    """The plan that this thread works on: two threads cannot switch the weights of one model at a time."""

    token: str = ""
    plan: Plan | None = None


_local = Local()


def new_token() -> str:
    """A name for a packed plan that no other run of this or another driver has."""
    return uuid.uuid4().hex


def packed(plan: Plan) -> NDArray[np.uint8]:
    """The plan as bytes: model, calibration data, task, targets. Finished parts, memory and evaluation data stay home.

    torch's own archive holds a storage once, however many weights look into it, and keeps ties; cloudpickle takes
    classes of a notebook along. An array, because joblib puts those in shared memory or scatters them once.

    Raises:
        UsageError: something in it cannot be pickled.
    """
    import cloudpickle

    from profilers._parts import Parts
    from profilers._workers import Workers

    own = plan.workload
    light = replace(
        plan,
        workload=Workload(own.model, own.calibration, (), own.task, own.name),
        targets=tuple(replace(target, _approximator=None) for target in plan.targets),
        parts=Parts(),
        memory={},
        workers=Workers(),
    )
    stream = io.BytesIO()
    try:
        torch.save(light, stream, pickle_module=cloudpickle, pickle_protocol=5)
    except Exception as error:  # pickling runs code of the model, the data and the task, which may raise anything
        raise UsageError(
            f"the workload {own.name} cannot be sent to another process ({type(error).__name__}: {error}): profile it "
            "with jobs=1, or make model, calibration data and task such that cloudpickle takes them"
        ) from error
    return np.frombuffer(stream.getbuffer(), dtype=np.uint8)


def unpacked(content: NDArray[np.uint8], token: str) -> Plan:
    """The plan, a copy of the thread's own; unpacked at its first shard."""
    if _local.plan is None or _local.token != token:
        _local.plan = None  # free the one before
        _local.plan = torch.load(io.BytesIO(content.tobytes()), weights_only=False)
        _local.token = token
    assert _local.plan is not None
    return _local.plan


def shard(
    content: NDArray[np.uint8], ticket: Ticket, work: Callable[[Plan, Any], dict[str, Tensor]], place: int, key: Any
) -> tuple[int, dict[str, NDArray[Any]]]:
    """(place, piece) of one key, computed in a worker.

    Arrays travel, not tensors, whose pickles may share memory that ends with the worker.
    """
    _end_with(ticket.driver)
    torch.set_num_threads(ticket.threads)
    plan = unpacked(content, ticket.token)
    model = plan.workload.model
    with untouched(model), torch.set_grad_enabled(ticket.gradients):
        for parameter, trained in zip(model.parameters(), ticket.trained, strict=True):
            parameter.requires_grad_(trained)
        return place, {name: tensor.detach().cpu().numpy() for name, tensor in work(plan, key).items()}


_watched: set[int] = set()


def _end_with(driver: int) -> None:
    """Let this process end when the driver that started it was killed; else it would hold its memory for minutes."""
    # Not os.getppid(), which is another's when the driver was killed before this worker's first shard.
    started_by = getattr(multiprocessing.current_process(), "_parent_pid", None)
    if started_by != driver or driver in _watched:
        return
    _watched.add(driver)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="ends with its driver", daemon=True).start()
