"""From a checkpoint to one that says nearly the same in as many bytes, but better."""

from __future__ import annotations

import copy
import shutil
from os import PathLike
from pathlib import Path
from typing import Any

from allocator.applier.checkpoint import SOLUTION_FILE, CheckpointInfo
from allocator.applier.loading import load_allocation, load_compressed, load_provenance
from allocator.applier.saving import save_compressed
from allocator.recovery.distilling import Recovered, recover
from allocator.workload import Workload


def recover_checkpoint(
    workload: Workload, checkpoint: str | PathLike[str], out: str | PathLike[str], **options: Any
) -> tuple[Recovered, CheckpointInfo]:
    """`recover` what a checkpoint holds, and write it to another folder (or the same one) with the same solution.json.

    The header says what it said, and under `recovery` in its provenance how it was recovered; a checkpoint that does
    not describe itself gives one that does not either, and only that one has the same length to the byte.

    Args:
        workload: whose float network was compressed.
        checkpoint: folder that `compress` wrote.
        out: folder of the new one.
        options: of `recover`.

    Raises:
        AllocatorError: see `load_compressed`.
        UsageError: see `recover`.
    """
    before = load_provenance(checkpoint)
    model = load_compressed(copy.deepcopy(workload.model), checkpoint)
    found = recover(workload, model, **options)
    info = save_compressed(
        found.model,
        out,
        load_allocation(checkpoint),
        describe_itself=bool(before),
        provenance={**{key: value for key, value in before.items() if key != "versions"}, "recovery": found.provenance},
    )
    solution = Path(checkpoint) / SOLUTION_FILE
    if solution.exists() and Path(out).resolve() != Path(checkpoint).resolve():
        shutil.copyfile(solution, Path(out) / SOLUTION_FILE)
    return found, info
