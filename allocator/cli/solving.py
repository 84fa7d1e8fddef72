"""`allocator solve FILE`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import number, print_json, progress, say

if TYPE_CHECKING:
    from allocator.problem import Problem
    from allocator.solution import Solution

INFEASIBLE = 3
CONFLICT_SECONDS = 10.0  # for what excludes each other, after an infeasible solve


def solve_command(
    file: Annotated[str, typer.Argument(help="problem.json; - is stdin.")],
    solver: Annotated[str, typer.Option(help="Registry name, name[option=value], or auto.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of the solver, k=v.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="r=V; V like 12MB, 4.25bits, 25%, min:V.")] = None,
    resource: Annotated[str | None, typer.Option(help="Resource of a budget without r=.")] = None,
    objective: Annotated[str | None, typer.Option(help="Score to minimise instead of the file's loss.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    gap: Annotated[float, typer.Option(help="Relative gap at which a backend may stop.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    threads: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    out: Annotated[str | None, typer.Option(help="Where to write the solution (.json or .npz; - is stdout).")] = None,
    json: Annotated[bool, typer.Option("--json", help="The solution as one JSON document on stdout.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be solved, and by what.")] = False,
) -> None:
    """Choose one choice per group: exit 0, 3 if infeasible, 4 if nothing was found."""
    from allocator.budgets import apply_budgets, qualified
    from allocator.comparison import solver_from_text
    from allocator.errors import UsageError
    from allocator.formats.files import require_writable
    from allocator.formats.problems import load_problem
    from allocator.formats.solutions import solution_to_json
    from allocator.hygiene import doubts
    from allocator.pipeline import Interrupted, solve

    if out is not None:
        require_writable(out)
    original = problem = load_problem(file)
    if objective is not None:
        if objective not in problem.scores:
            raise UsageError(f"--objective {objective}: there is no such score; known: {', '.join(problem.scores)}")
        problem = problem.with_loss(objective)
    budgets = qualified(problem, budget or [], resource)
    stated = apply_budgets(problem, budgets)
    for row in stated.budgets:
        if row not in problem.budgets:
            say(f"budget: {_limit(row)}")
    for warning in (*problem.warnings, *doubts(stated)):
        say(f"warning: {warning}")
    options = _options(set_ or [])
    if "[" in solver and options:
        raise UsageError(f"--set stands beside options in {solver!r}; give one of them")
    backend: Any = solver_from_text(solver) if "[" in solver else solver
    if dry_run:
        _dry_run(stated, backend, json)
        return
    code = 0
    with progress(not json) as tick:
        try:
            solution = solve(
                problem, backend, budgets=budgets or None, time_limit=time_limit, gap=gap, seed=seed, threads=threads,
                report=lambda choice: tick("better allocation found", 0, 1), **options,
            )  # fmt: skip
        except Interrupted as stop:
            solution, code = stop.solution, 130
    if objective is not None:
        solution = _with_objective(solution, original, objective)
    if out is not None:
        solution.save(out)
    if json:
        print_json(solution_to_json(solution))
    elif out != "-":
        _describe(stated, solution)
    code = code or exit_code(solution)
    if code == INFEASIBLE:
        _say_conflict(stated, time_limit)
    raise typer.Exit(code)


def _with_objective(solution: Solution, original: Problem, objective: str) -> Solution:
    """The solution of the file as it stands, with the other objective among its overrides."""
    from dataclasses import replace

    from allocator.formats.digest import content_sha256

    identity = dict(solution.problem) | {"sha256": content_sha256(original)}
    identity["overrides"] = {**solution.problem["overrides"], "objective": objective}
    return replace(solution, problem=identity)


def exit_code(solution: Solution) -> int:
    """0 with an allocation, 3 infeasible (proved or claimed), 4 nothing found."""
    if solution.allocation is not None:
        return 0
    if solution.status == "infeasible":
        say("infeasible: proved")
        return INFEASIBLE
    if solution.claim == "infeasible":
        say("infeasible: the backend claims it, the core has no proof")
        return INFEASIBLE
    say("no allocation found; raise the time limit, loosen a budget, or use another solver")
    return 4


def _say_conflict(problem: Problem, time_limit: float | None) -> None:
    """Which constraints exclude each other, in short, on stderr."""
    from allocator.conflicts import conflict

    seconds = CONFLICT_SECONDS if time_limit is None else min(CONFLICT_SECONDS, time_limit)
    found = conflict(problem, time_limit=seconds, whole=False)
    if found.status == "infeasible":
        for line in (found.headline, *(f"  {line}" for line in found.lines)):
            say(line)


def _limit(row: Any) -> str:
    return f"{row.name} " + " ".join(f"{s} {v!r}" for s, v in (("max", row.max), ("min", row.min)) if v is not None)


def _options(pairs: list[str]) -> dict[str, Any]:
    from allocator.errors import UsageError

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write option=value")
        options[key.replace("-", "_")] = value
    return options


def _dry_run(problem: Problem, backend: Any, json: bool) -> None:
    from allocator.choosing import choose_solver
    from allocator.reduce import reduce

    reduced = reduce(problem).problem
    name, why = choose_solver(reduced) if backend == "auto" else (getattr(backend, "name", backend), "asked for")
    document = {
        "solver": name,
        "because": why,
        "groups": problem.group_count,
        "groups_after_reduction": None if reduced is None else reduced.group_count,
        "choices_after_reduction": None if reduced is None else reduced.choice_count,
        "features": sorted(problem.features),
        "budgets": [_limit(b) for b in problem.budgets],
    }
    if json:
        print_json(document)
        return
    for key, value in document.items():
        print(f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")


def _describe(problem: Problem, solution: Solution) -> None:
    s = solution
    print(f"{s.status}" + (f" (the backend claims {s.claim})" if s.claim else ""), end="")
    print(f" by {s.solver['name']} in {s.run['wall_s']:.3g} s" + (f", stopped by {s.limit}" if s.limit else ""))
    for reason in s.reasons:
        print(f"  {reason}")
    if s.allocation is None:
        return
    if "chosen_because" in s.solver:
        print(f"  chosen because: {s.solver['chosen_because']}")
    proof = f"proved by {s.certificate['kind']}" if s.certificate else "no proof"
    print(f"  objective {s.objective!r}, bound {number(s.proven_bound)}, gap {number(s.gap)} ({proof})")
    used = problem.evaluate(s.allocation.choice).used
    for row, use, price in zip(problem.budgets, used, s.multipliers, strict=True):
        paid = "" if price is None else f", multiplier {number(price)}"
        print(f"  {_limit(row)}: used {use}{paid}")
    if len(s.choices) <= 40:
        width = max(len(g) for g in s.choices)
        for group, choice in s.choices.items():
            print(f"    {group:<{width}}  {choice}")
    else:
        from collections import Counter

        for choice, count in Counter(s.choices.values()).most_common(20):
            print(f"    {choice}: {count} groups")
