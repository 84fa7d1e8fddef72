"""`allocator explain FILE [SOLUTION]`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.console import print_json, progress, say, table
from allocator.wording import unit_of, worth

if TYPE_CHECKING:
    from allocator.conflicts import Conflict
    from allocator.explanation import Explanation
    from allocator.problem import Problem
    from allocator.reasons import Alternative, GroupReason

MOST_ROWS = 3  # budget rows whose prices the table shows


def explain_command(
    file: Annotated[str, typer.Argument(help="problem.json; - is stdin.")],
    solution: Annotated[
        str | None, typer.Argument(help="solution.json or .npz; without it the problem is solved first.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Only this group, in full.")] = None,
    most: Annotated[int, typer.Option(help="How many groups, those with the worst runner-up first.")] = 20,
    time_limit: Annotated[float | None, typer.Option(help="Seconds, where something has to be solved.")] = 60.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Why each choice was taken; of an infeasible problem, what excludes each other: exit 0, 3, 4 nothing found."""
    from allocator.explanation import explain
    from allocator.formats.problems import load_problem
    from allocator.hygiene import doubts
    from allocator.pipeline import solve

    problem = load_problem(file)
    if solution is not None:
        explained = explain(problem, solution)
    else:
        solved = solve(problem, time_limit=time_limit)
        if solved.allocation is None:
            raise typer.Exit(_without_allocation(problem, solved.status, time_limit, json))
        explained = explain(problem, solved)
    if json:
        print_json(explained.to_json(most, group))
        return
    for warning in (*explained.warnings, *doubts(problem)):
        say(f"warning: {warning}")
    if group is not None:
        describe_group(explained, explained.group(group))
        return
    describe(explained, most)


def _without_allocation(problem: Problem, status: str, time_limit: float | None, json: bool) -> int:
    """The conflict, and the exit code."""
    from allocator.conflicts import conflict

    with progress(not json) as tick:
        found = conflict(problem, time_limit=time_limit, progress=tick)
    if json:
        print_json({"status": status, "conflict": found.to_json()})
    else:
        for line in lines_of(found):
            print(line)
    return 3 if found.status == "infeasible" else 4


def lines_of(found: Conflict) -> list[str]:
    """The conflict as a message."""
    return [found.headline, *(f"  {line}" for line in found.lines)]


def describe(explained: Explanation, most: int) -> None:
    """The head, how many groups of each kind, and a table of the most interesting ones."""
    outcome, problem = explained.outcome, explained.problem
    status = explained.status or "not proved"
    print(f"{status}: objective {outcome.objective:.6g}, loss {outcome.loss:.6g}")
    for row in explained.budgets():
        limits = " ".join(f"{side} {row[side]}" for side in ("max", "min") if row[side] is not None)
        print(f"  {row['row']} {limits}: used {row['used']}, {row['slack']:.6g} left; {row['says']}")
    for coupling in explained.couplings():
        room = "no room left" if coupling["tight"] else "room left"
        blocked = coupling["improvements_ruled_out"]
        stops = f"; {blocked} single changes would be better without it" if blocked else ""
        print(f"  {coupling['coupling']} ({room}{stops})")
    for note in explained.notes:
        print(f"  {note}")
    counts = ", ".join(f"{n} {MEANING[kind]}" for kind, n in explained.counts.items() if n)
    print(f"{problem.group_count} groups: {counts}")
    reasons = explained.most_interesting(most)
    if not reasons:
        return
    priced = [i for i, price in enumerate(explained.multipliers) if price is not None][:MOST_ROWS]
    worth = [f"while one {unit_of(problem, problem.budgets[i])[0]} is worth" for i in priced]
    rows = [_cells(explained, r, priced) for r in reasons]
    table(("group", "choice", "why", *worth, "runner-up", "regret", "next better"), rows)
    if len(reasons) < problem.group_count:
        print(f"{len(reasons)} of {problem.group_count} groups; --most N shows more, --group G one of them in full")


def _cells(explained: Explanation, reason: GroupReason, priced: list[int]) -> tuple[str, ...]:
    """One line of the table."""
    problem = explained.problem
    members = (reason.group, *reason.changes_with)
    named = ", ".join(members[:3]) + (", …" if len(members) > 3 else "")
    up, better = reason.runner_up, reason.next_better
    ends = [_ends(problem, i, reason.intervals[i]) for i in priced]
    return (
        named, reason.choice, reason.kind, *ends, _choice(up), "–" if up is None else f"{up.objective:.4g}",
        "–" if better is None else f"{_choice(better)}: {-better.objective:.3g} for {_uses(problem, better)}",
    )  # fmt: skip


def _ends(problem: Problem, i: int, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return "never best"
    low, high = worth(problem, problem.budgets[i], *ends)
    if low <= 0:
        return "anything" if high == math.inf else f"≤ {high:.3g}"
    return f"≥ {low:.3g}" if high == math.inf else f"{low:.3g} – {high:.3g}"


def _choice(other: Alternative | None) -> str:
    return "–" if other is None else next(iter(other.choices.values()))


def _uses(problem: Problem, other: Alternative) -> str:
    """What it uses more of the budgeted resources, or of all where none is."""
    budgeted = dict.fromkeys(b.resource for b in problem.budgets if b.resource is not None) or other.use
    return ", ".join(f"{other.use[r]:+g} {r}" for r in budgeted if r is not None)


MEANING = {
    "price": "best by price",
    "fill": "taken to make the budgets fit",
    "coupling": "held by a coupling",
    "improvable": "that a single change improves",
    "forced": "forced",
    "unpriced": "without prices",
    "broken": "that may not be taken",
}


def describe_group(explained: Explanation, reason: GroupReason) -> None:
    """One group in full."""
    together = f" (with {', '.join(reason.changes_with)})" if reason.changes_with else ""
    print(f"{reason.group} takes {reason.choice}{together}")
    print(f"  {reason.why}")
    if reason.reduced_cost is not None:
        print(f"  reduced cost {reason.reduced_cost:.6g} of {explained.per}")
    for words, other in (
        ("runner-up within everything", reason.runner_up),
        ("best other by price", reason.best_other_by_price),
        ("next better", reason.next_better),
    ):
        print(f"  {words}: {'none' if other is None else _long(other)}")


def _long(other: Alternative) -> str:
    choices = ", ".join(f"{group}={choice}" for group, choice in other.choices.items())
    uses = ", ".join(f"{resource} {use:+.6g}" for resource, use in other.use.items())
    broken = f"; breaks {', '.join(other.breaks)}" if other.breaks else ""
    return f"{choices}: objective {other.objective:+.6g}, {uses}{broken}"
