"""`allocator recover MODEL CHECKPOINT`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.console import number, print_json, progress, table

if TYPE_CHECKING:
    from allocator.recovery.distilling import Recovered


def recover_command(
    model: Annotated[str, typer.Argument(help="Built-in name, or package.module:function returning a Workload.")],
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
    from allocator.formats.files import require_writable
    from allocator.recovery.checkpoints import recover_checkpoint
    from allocator.recovery.distilling import RATE

    parts = out.with_name(f"{out.name}.parts")
    require_writable(parts / "state")
    if parts.exists() and not resume:
        shutil.rmtree(parts)
    workload = load_workload(model)
    with progress(not json) as tick:
        found, info = recover_checkpoint(
            workload, checkpoint, out, steps=steps, lr=RATE if lr is None else lr, seed=seed, resume=parts,
            progress=tick,
        )  # fmt: skip
    shutil.rmtree(parts, ignore_errors=True)
    if json:
        print_json({**found.to_json(), "path": str(info.path), "bytes": info.bytes, "described": info.described})
        return
    _describe(found)
    print(f"{info.path}: {info.bytes} bytes")


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
