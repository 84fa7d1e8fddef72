"""`allocator compare FILE…`."""

from __future__ import annotations

from typing import Annotated

import typer

from allocator.cli.console import number, print_json, progress, table


def compare_command(
    files: Annotated[list[str], typer.Argument(help="Problem files.")],
    solvers: Annotated[str, typer.Option(help="a,b[k=v],… or all.")] = "all",
    budgets: Annotated[str | None, typer.Option(help="V,V,… each in turn; default the files' own.")] = None,
    resource: Annotated[str | None, typer.Option(help="What the budgets limit.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds per run.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    threads: Annotated[int | None, typer.Option(help="At most so many per run.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Rows as one JSON document on stdout.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any answer is wrong or infeasible.")] = False,
) -> None:
    """Run several backends on the same problems and budgets; every answer is verified."""
    from allocator.comparison import compare

    wanted = None if budgets is None else [b for b in budgets.split(",") if b]
    with progress(not json) as tick:
        rows = compare(
            files, solvers, budgets=wanted, resource=resource, time_limit=time_limit, seed=seed, threads=threads,
            progress=tick,
        )  # fmt: skip
    if json:
        print_json({"rows": [row.to_json() for row in rows]})
    else:
        columns = ("problem", "budget", "solver", "status", "claim", "objective", "bound", "gap", "regret", "seconds")
        table(
            columns,
            [
                (
                    r.problem, r.budget, r.solver, "WRONG" if r.wrong else r.status, r.claim or "", number(r.objective),
                    number(r.proven_bound), number(r.gap), number(r.regret), f"{r.seconds:.3f}",
                )
                for r in rows
            ],
        )  # fmt: skip
        for r in rows:
            for reason in (*r.wrong, *([r.error] if r.error else [])):
                print(f"{r.problem} {r.solver}: {reason}")
    if strict and any(r.wrong for r in rows):
        raise typer.Exit(1)
