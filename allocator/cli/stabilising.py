"""`allocator stability FILE`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.resampling import Stability


def stability_command(
    file: Annotated[str, typer.Argument(help="problem.json with stderr; - is stdin.")],
    solution: Annotated[str | None, typer.Argument(help="The stated allocation; default the optimum.")] = None,
    samples: Annotated[int, typer.Option(help="How many times the scores are redrawn.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    correlated: Annotated[bool, typer.Option("--correlated", help="One draw for all choices of a group.")] = False,
    solver: Annotated[str, typer.Option(help="Registry name, name[option=value], or auto.")] = "auto",
    budget: Annotated[list[str] | None, typer.Option(help="r=V, as in solve.")] = None,
    resource: Annotated[str | None, typer.Option(help="Resource of a budget without r=.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds for each solve.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Redraw the scores from their standard errors and solve again: which choices stay, and what being wrong costs."""
    from allocator.budgets import apply_budgets, qualified
    from allocator.comparison import solver_from_text
    from allocator.formats.problems import load_problem
    from allocator.resampling import stability

    problem = load_problem(file)
    problem = apply_budgets(problem, qualified(problem, budget or [], resource))
    backend: Any = solver_from_text(solver) if "[" in solver else solver
    with progress(not json) as tick:
        found = stability(
            problem, backend, samples=samples, seed=seed, correlated=correlated, solution=solution,
            time_limit=time_limit, progress=tick,
        )  # fmt: skip
    if json:
        print_json(found.to_json())
    else:
        describe(found)
    raise typer.Exit(130 if found.limit == "interrupt" else 0)


def describe(found: Stability) -> None:
    """What stays, what it costs, and the groups that flip."""
    told = found.to_json()
    print(f"{found.samples} samples, seed {found.seed}" + (", one draw a group" if found.correlated else ""))
    if found.proved < found.samples:
        say(f"warning: {found.samples - found.solved} samples without an allocation, {found.proved} optima proved")
    if found.clipped:
        say(f"warning: {found.clipped:.2%} of the redrawn scores fell below 0, which a p-norm forbids; they count 0")
    kept, groups = told["groups_always_kept"], told["groups"]
    print(
        f"  {kept} of {groups} groups always keep their choice; a choice is kept in {_share(told['mean_share_kept'])}"
    )
    if found.broken:
        print(f"  the stated allocation breaks a row in {found.broken} of {found.samples} samples")
    print(f"  objective as filed {number(found.objective_as_filed)}")
    columns = ("", "mean", "sd", "5 %", "50 %", "95 %")
    named = (("stated allocation", "objective"), ("optimum of the sample", "best"), ("regret", "regret"))
    table(columns, [(words, *(number(v) for v in told[key].values())) for words, key in named])
    if told["flips"]:
        lines = [
            (f["group"], f["stated"], _share(f["stays"]), ", ".join(f"{c} {_share(s)}" for c, s in f["taken"].items()))
            for f in told["flips"]
        ]
        table(("group", "stated", "stays", "taken"), lines)
        more = groups - kept - len(lines)
        if more > 0:
            print(f"and {more} more groups that flip")


def _share(share: float) -> str:
    """Per cent, never rounded up to all of them."""
    return f"{100 * share:.3g} %" if share == 1 or share < 0.9995 else ">99.9 %"
