"""The two trained networks: their problems, kept as files, and more draws of calibration data.

`python -m benchmarks.interactions.networks NAME FILE` profiles one; torch stays in that process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from allocator import Problem, load_problem
from allocator.errors import AllocatorError, UnavailableError
from benchmarks.store import digest

if TYPE_CHECKING:
    from allocator.workload import Workload

NETWORKS = ("fashion-resnet20", "fashion-vit")
BITS = ("2.5", "3", "3.5", "4", "5")
DRAWS = 3


def profiled(network: str, folder: Path) -> Problem:
    """The problem that ``ggn`` makes of a network on its own calibration data, from a file, which is made if need be.

    Raises:
        UnavailableError: the data are not here.
    """
    path = folder / "problems" / f"{network}-{digest('allocator', 'profilers')}.json"
    if not path.exists():
        command = [sys.executable, "-m", "benchmarks.interactions.networks", network, str(path)]
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            raise UnavailableError(ended.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return load_problem(path)


def drawn(network: str, draw: int) -> Workload:
    """A network with the draw-th 256 of the pictures that it was trained on as calibration data; 0: its own ones."""
    from allocator.demos import demo_named, fashion_mnist
    from allocator.tasks.batches import take
    from allocator.workload import Workload

    made = demo_named(network).workload()
    if not draw:
        return made
    start = draw * fashion_mnist.CALIBRATION
    batch = fashion_mnist.BATCH
    training = fashion_mnist.training()
    starts = range(start, start + fashion_mnist.CALIBRATION, batch)
    calibration = [take(training, first, first + batch) for first in starts]
    return Workload(made.model, calibration, made.evaluation, made.task, f"{network} draw {draw}")


def main(network: str, path: Path) -> int:
    """Profile and save."""
    import torch

    from allocator import profile, save_problem
    from allocator.demos import demo_named

    torch.set_num_threads(1)
    try:
        demo = demo_named(network)
        problem = profile(demo.workload(), demo.space(), "ggn")
    except AllocatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.json")
    save_problem(problem, unfinished)
    unfinished.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
