"""`allocator recover MODEL CHECKPOINT`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.choices import Model
from allocator.cli.console import number, print_json, progress, size_of, table

if TYPE_CHECKING:
    from allocator.recovery.distilling import Recovered


def recover_command(
    model: Model,
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the compressed model.")],
    out: Annotated[Path, typer.Option(help="Folder of the recovered one.")],
    steps: Annotated[int, typer.Option(help="Of training, a batch each; 0: only the statistics of batch norms.")] = 200,
    lr: Annotated[float | None, typer.Option(help="Rate of the first step; default 0.005.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the batches.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train norms, biases and row scales of a checkpoint to say what the float model says; no byte is added."""
    from allocator.cli.models import load_workload
    from allocator.recovery.checkpoints import recover_checkpoint
    from allocator.recovery.distilling import RATE

    workload = load_workload(model)
    rate = RATE if lr is None else lr
    with _beside(out, resume) as parts, progress(not json) as tick:
        found, info = recover_checkpoint(
            workload, checkpoint, out, steps=steps, lr=rate, seed=seed, resume=parts, progress=tick
        )
        shutil.rmtree(parts)
    if json:
        print_json({**found.to_json(), "path": str(info.path), "bytes": info.bytes, "described": info.described})
        return
    _describe(found)
    print(f"{info.path}: {size_of(info)}")


@contextmanager
def _beside(out: Path, resume: bool) -> Iterator[Path]:
    """The folder for the state of a run; an empty one is removed. Refuses a place that cannot be written beforehand."""
    from allocator.errors import UsageError

    parts = out.with_name(f"{out.name}.parts")
    try:
        if parts.exists() and not resume:
            shutil.rmtree(parts)
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written there ({error.strerror})") from error
    try:
        yield parts
    finally:
        with suppress(OSError):
            parts.rmdir()


def _describe(found: Recovered) -> None:
    rows = [
        ("as it was given", found.before),
        ("statistics of its norms anew", found.norms),
        ("recovered", found.after),
    ]
    table(
        ["network", "KL held back", "stderr"],
        [[name, number(float(f"{kl.value:.4g}")), f"± {kl.stderr:.2g}"] for name, kl in rows if kl is not None],
    )
    print(
        f"{found.parameters} numbers trained on {found.samples} samples, {found.steps} of {found.asked} steps, "
        f"measured on {found.held_back} held back; kept: {found.kept}"
    )
