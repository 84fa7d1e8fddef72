"""`allocator demo [NAME]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.demos.runner import Report


def demo_command(
    name: Annotated[
        str,
        typer.Argument(
            help="digits, minilm, efficientnet-lite0, smollm2, fashion-resnet20, fashion-resnet34, fashion-resnext or "
            "fashion-vit."
        ),
    ] = "digits",
    out: Annotated[Path, typer.Option(help="Folder for the problem, solutions and checkpoints.")] = Path("demo-out"),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run the main job end to end on a built-in network and print one table."""
    from allocator.demos import demo_named
    from allocator.demos.runner import run

    demo = demo_named(name)
    with progress() as tick:
        report = run(demo, out / demo.NAME, tick, say)
    if json:
        print_json(_document(report))
    else:
        _print(report, out / demo.NAME)


def _document(report: Report) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(report) | {"results": [r.to_json() for r in report.results]}


def _print(report: Report, out: Path) -> None:
    original = report.original[report.metric]
    print(
        f"{report.name}: original {report.original_bytes} bytes, {report.metric} "
        f"{original['value']:.4f} ± {original['stderr']:.4f}"
    )
    budgets = list(dict.fromkeys(r.row.budget for r in report.results))
    for budget in budgets:
        rows = [r for r in report.results if r.row.budget == budget]
        table(
            ("backend", "status", "claim", "loss", "bound", "gap", "seconds", "stored bytes", "KL", report.metric),
            [_cells(r, report.metric) for r in rows if r.row.error is None],
            title=f"budget {budget}",
        )
    for r in report.results:
        if r.row.error is not None and r.row.budget == budgets[0]:
            print(f"not run: {r.row.solver}: {r.row.error}")
    for r in report.results:
        for reason in r.row.wrong:
            print(f"WRONG: {r.row.solver} at {r.row.budget}: {reason}")
    print(f"problem, solutions and checkpoints: {out}")


def _cells(result: Any, metric: str) -> list[str]:
    row = result.row

    def measured(key: str) -> str:
        if result.measured is None:
            return ""
        value = result.measured[key]
        return f"{value['value']:.4f} ± {value['stderr']:.4f}"

    return [
        row.solver, row.status, row.claim or "", number(row.loss), number(row.proven_bound), number(row.gap),
        f"{row.seconds:.3f}", "" if result.stored_bytes is None else str(result.stored_bytes), measured("kl"),
        measured(metric),
    ]  # fmt: skip
