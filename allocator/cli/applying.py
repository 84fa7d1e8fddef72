"""`allocator apply` and `allocator evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.choices import Model
from allocator.cli.console import number, print_json, progress, say, size_of, table

if TYPE_CHECKING:
    from allocator.applier.program import ProgramInfo
    from allocator.formats.types import SolutionFile
    from allocator.workload import Workload


def apply_command(
    model: Model,
    solution: Annotated[str, typer.Argument(help="solution.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    bare: Annotated[
        bool, typer.Option("--bare", help="Leave out the header's description: a limit that holds to the byte.")
    ] = False,
    program: Annotated[
        bool,
        typer.Option("--program", help="Write model.pt2 too, which runs without the model's class."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write the compressed model: packed weights in a safetensors file, beside its solution."""
    from allocator.applier.checkpoint import compress
    from allocator.applying import layer_statistics
    from allocator.cli.models import load_workload

    chosen = _applicable(solution)
    workload = load_workload(model)
    with progress(not json) as tick:
        info = compress(
            workload.model,
            chosen,
            out,
            layer_statistics(workload, chosen, tick),
            describe_itself=not bare,
            provenance={"command": f"allocator apply {model} {Path(solution).name}", "workload": workload.name},
            progress=tick,
        )
    if not json:
        print(f"{info.path}: {size_of(info)}, {len(chosen.actions)} groups")
    written = _write_program(workload, info.path) if program else None
    if json:
        document: dict[str, Any] = {"path": str(info.path), "bytes": info.bytes, "described": info.described}
        if written is not None:
            document["program"] = {"path": str(written.path), "bytes": written.bytes, "samples": written.samples}
        print_json(document)
    elif written is not None:
        takes = "any number of samples" if written.samples is None else f"{written.samples} samples at a time, no other"
        print(f"{written.path}: {written.bytes} bytes, takes {takes}")


def _write_program(workload: Workload, folder: Path) -> ProgramInfo:
    """model.pt2 of the checkpoint in a folder, traced as the task calls the model on the first calibration batch."""
    import copy

    from allocator.applier.loading import load_compressed
    from allocator.applier.program import export_program, recorded_call
    from allocator.errors import AllocatorError
    from allocator.tasks.batches import count, twice

    try:
        batch = next(iter(workload.calibration), None)
        if batch is None:
            raise AllocatorError("there is no calibration batch to trace the model on")
        if count(batch) == 1:  # which would fix the number of samples to one
            batch = twice(batch)
        model = load_compressed(copy.deepcopy(workload.model), folder)
        call = recorded_call(model, lambda: workload.task.logits(model, batch))
        return export_program(model, call, folder / "model.pt2")
    except AllocatorError as error:
        raise AllocatorError(f"{folder}: the checkpoint is written, model.pt2 is not: {error}") from error


def evaluate_command(
    model: Model,
    solution: Annotated[str | None, typer.Option(help="Apply this solution first (in memory).")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Load this checkpoint first.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure the model on its evaluation data; a compressed one also against the original."""
    import copy

    from allocator.cli.models import load_workload
    from allocator.errors import UsageError
    from allocator.tasks.measurement import evaluate

    if solution is not None and checkpoint is not None:
        raise UsageError("--solution stands beside --checkpoint; give one of them")
    chosen = None if solution is None else _applicable(solution)
    workload = load_workload(model)
    judged: Any = None
    with progress(not json) as tick:
        if chosen is not None:
            from allocator.applying import applied

            judged = applied(workload, chosen, progress=tick)
        if checkpoint is not None:
            from allocator.applier.loading import load_compressed

            judged = load_compressed(copy.deepcopy(workload.model), checkpoint)
        if judged is not None:
            say("measuring the compressed model against the original on the evaluation data")
        measured = evaluate(workload, judged, workload.model if judged is not None else None, progress=tick)
    if json:
        print_json(measured)
        return
    rows = [[name, number(m["value"]), number(m["stderr"])] for name, m in measured.items()]
    table(["metric", "value", "standard error"], rows)


def _applicable(path: str) -> SolutionFile:
    """A solution file that holds an allocation with actions."""
    from allocator.errors import UsageError
    from allocator.formats.solutions import load_solution

    if path.endswith(".npz"):
        raise UsageError(f"{path}: the compact form has no actions; write the solution with --out FILE.json")
    file = load_solution(path)
    if not file.actions:
        why = f"its status is {file.status}" if file.choices is None else "its choices carry no action"
        raise UsageError(f"{path}: there is nothing to apply: {why}")
    return file
