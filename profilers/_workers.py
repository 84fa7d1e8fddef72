"""Where the shards of a measurement run: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from allocator.errors import AllocatorError, UnavailableError, UsageError
from profilers._travel import Ticket, new_token, packed, shard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from profilers._plan import Plan

ROUND = 4
"""Shards per worker between two savings, where a joblib backend hands results over only all together."""


class Workers:
    """So many workers; they get the plan once and keep it, with a model of their own.

    joblib does the work, so inside ``joblib.parallel_config("dask")`` or ``("ray")`` the shards go to that cluster.

    Args:
        jobs: 1: a plain loop in this process. N > 1: N processes; -1: as many as there are cores. None: what the
            ``joblib.parallel_config`` around the call says, and a plain loop without one.

    Raises:
        UsageError: another number of jobs.
    """

    def __init__(self, jobs: int | None = 1) -> None:
        if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or (jobs < 1 and jobs != -1)):
            raise UsageError(f"jobs={jobs!r}: give 1 or more processes, or -1 for as many as there are cores")
        self.jobs = jobs
        self._token = new_token()
        self._content: NDArray[np.uint8] | None = None

    def forget(self) -> None:
        """The plan has changed: send it again."""
        self._token, self._content = new_token(), None

    def run(
        self, plan: Plan, work: Callable[[Plan, Any], dict[str, Tensor]], keys: Sequence[tuple[int, Any]]
    ) -> Generator[tuple[int, dict[str, Tensor]]]:
        """(place, piece) of every (place, key), as they arrive; in order where they run in this process.

        Raises:
            UsageError: plan or work cannot be sent to another process.
            AllocatorError: a worker process was ended from outside.
        """
        if not keys or not self._away():
            for place, key in keys:
                yield place, {name: tensor.detach().cpu() for name, tensor in work(plan, key).items()}
            return
        if self._content is None:
            self._content = packed(plan)
        ticket = Ticket.now(plan, self._token)
        for place, arrays in self._arriving([(self._content, ticket, work, place, key) for place, key in keys]):
            yield place, {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _away(self) -> bool:
        """Whether other workers than this process are asked for."""
        if self.jobs is None and "joblib" not in sys.modules:
            return False  # nobody can stand inside parallel_config
        if self.jobs == 1:
            return False
        return int(_joblib().Parallel(n_jobs=self.jobs).n_jobs) != 1  # resolves None by the parallel_config around

    def _arriving(self, calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        import pickle
        from concurrent.futures.process import BrokenProcessPool

        joblib = _joblib()
        delayed = [joblib.delayed(shard)(*call) for call in calls]
        backend, _ = joblib.parallel.get_active_backend()
        try:
            if getattr(backend, "supports_return_generator", False):
                yield from joblib.Parallel(n_jobs=self.jobs, batch_size=1, return_as="generator_unordered")(delayed)
                return
            size = ROUND * joblib.effective_n_jobs(self.jobs)
            for start in range(0, len(delayed), size):
                yield from joblib.Parallel(n_jobs=self.jobs, batch_size=1)(delayed[start : start + size])
        except BrokenProcessPool as error:
            reason = str(error).partition(".")[0]
            raise AllocatorError(
                f"a worker process ended before its shard was done ({reason}): it may have run out of memory, of which "
                "each needs a copy of the model, or could not import what the workload is made of. Finished parts are "
                "kept where there is a folder for them; resume with fewer jobs"
            ) from error
        except pickle.PicklingError as error:
            raise UsageError(f"a shard cannot be sent to another process ({error}): profile with jobs=1") from error


def _joblib() -> Any:
    try:
        import cloudpickle  # noqa: F401 - `packed` needs it; said here, before any work
        import joblib
    except ImportError:
        raise UnavailableError(
            "several jobs need joblib and cloudpickle: pip install 'compression-allocator[torch]', or take jobs=1"
        ) from None
    return joblib


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many torch threads inside; None leaves them as they are.

    Raises:
        UsageError: fewer than one.
    """
    if count is None:
        yield
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"threads={count!r}: give 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
