"""`allocator frontier FILE`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.curve import Frontier
    from allocator.problem import Problem

SHOWN = 20
SIZES = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def frontier_command(
    file: Annotated[str, typer.Argument(help="problem.json; - is stdin.")],
    resource: Annotated[
        str | None, typer.Option(help="What is traded for the objective; default the only one.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Let a solver look between the points of the hull.")] = False,
    points: Annotated[int | None, typer.Option(help="With --exact: at so many evenly spaced budgets.")] = None,
    budgets: Annotated[str | None, typer.Option(help="With --exact: at V,V,… instead.")] = None,
    gap: Annotated[float | None, typer.Option(help="With --exact: until neighbours differ by this share.")] = None,
    solver: Annotated[str, typer.Option(help="With --exact: name, name[option=value], or auto.")] = "auto",
    time_limit: Annotated[float | None, typer.Option(help="With --exact: seconds for all points together.")] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    threads: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    out: Annotated[str | None, typer.Option(help="Where to write the frontier (.json or .npz).")] = None,
    plot: Annotated[str | None, typer.Option(help="Where to draw it (.png, .svg, .pdf); needs matplotlib.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The frontier as one JSON document on stdout.")] = False,
) -> None:
    """What each amount of a resource buys: exit 0, 3 if infeasible, 4 if nothing was found."""
    from allocator.comparison import solver_from_text
    from allocator.errors import UsageError
    from allocator.formats.files import require_writable
    from allocator.formats.frontiers import frontier_to_json
    from allocator.formats.problems import load_problem
    from allocator.pareto import frontier

    for path in (out, plot):
        if path is not None:
            require_writable(path)
    if plot is not None:
        import_module("matplotlib")  # a missing one is named before the work, not after it
    if points is not None and budgets is not None:
        raise UsageError("--points and --budgets both say where to look; give one of them")
    problem = load_problem(file)
    for warning in problem.warnings:
        say(f"warning: {warning}")
    backend: Any = solver_from_text(solver) if "[" in solver else solver
    wanted: Any = points if budgets is None else [b for b in budgets.split(",") if b]
    with progress(not json) as tick:
        found = frontier(
            problem, resource, exact=exact, points=wanted, gap=gap, solver=backend, time_limit=time_limit, seed=seed,
            threads=threads, progress=tick,
        )  # fmt: skip
    if out is not None:
        found.save(out)
    if plot is not None and len(found):
        from allocator.cli.plotting import draw_frontier

        draw_frontier(problem, found, plot)
    if json:
        print_json(frontier_to_json(found))
    elif out != "-":
        describe(problem, found)
    raise typer.Exit(_exit_code(found))


def _exit_code(found: Frontier) -> int:
    if found.limit == "interrupt":
        return 130
    if len(found):
        return 0
    for reason in found.reasons:
        say(reason)
    if found.limit is None and found.reasons:
        say("infeasible: there is no frontier")
        return 3
    say("no allocation found; raise the time limit, or use another solver")
    return 4


def describe(problem: Problem, found: Frontier) -> None:
    """A table of at most twenty points, and how many there are."""
    if not len(found):
        return
    unit, size = _unit(problem, found)
    rows = []
    shown = representative(found)
    before = None
    for i in shown:
        p, now = found.point(i), found.allocation(i)
        differ = "" if before is None else str(int((now != before).sum()))
        price = "" if p.multiplier is None else f"one more {unit} buys {p.multiplier * size:.3g}"
        if p.multiplier == 0 and i == len(found) - 1:
            price = "nothing more to buy"
        kind = p.kind if p.status == "optimal" else f"{p.kind}, gap {number(p.gap)}"
        rows.append((number(p.cost), _human(problem, found, p.cost), f"{p.objective:.6g}", price, differ, kind))
        before = now
    columns = (found.resource, "", "objective", "multiplier", "groups changed", "from")
    kept = [j for j in range(len(columns)) if j != 1 or _in_bytes(problem, found)]
    table([columns[j] for j in kept], [[row[j] for j in kept] for row in rows])
    between = "" if found.hull is None else f", {int((~found.hull).sum())} of them from a solver"
    some = "" if len(shown) == len(found) else f"; {len(shown)} are shown"
    print(
        f"{len(found)} points{between}, each optimal for its own {found.resource}{some}"
        if _proved(found)
        else f"{len(found)} points{between}; not every one is proved optimal{some}"
    )
    if found.limit is not None:
        print(f"stopped by {found.limit}; what was found by then is here")


def _proved(found: Frontier) -> bool:
    return found.optimal is None or bool(found.optimal.all())


def representative(found: Frontier, most: int = SHOWN) -> list[int]:
    """At most so many points, evenly spaced in cost, the first and the last among them."""
    import numpy as np

    count = len(found)
    if count <= most:
        return list(range(count))
    costs = found.costs.astype(np.float64)
    near = np.searchsorted(costs, np.linspace(costs[0], costs[-1], most))
    kept: list[int] = np.unique(np.append(np.minimum(near, count - 1)[1:-1], [0, count - 1])).tolist()
    return kept


def _in_bytes(problem: Problem, found: Frontier) -> bool:
    return problem.resources[found.resource].unit in ("byte", "bit")


def _unit(problem: Problem, found: Frontier) -> tuple[str, float]:
    """What a multiplier is quoted for: the unit itself, or the size in bytes that fits the frontier's width."""
    unit = problem.resources[found.resource].unit
    if not _in_bytes(problem, found):
        return ("unit" if unit == "1" else unit), 1.0
    per = 8 if unit == "bit" else 1
    width = float(found.costs[-1] - found.costs[0]) / per
    name, size = next(((n, s) for n, s in SIZES if s * 10 <= width), SIZES[-1])
    return name, float(size * per)


def _human(problem: Problem, found: Frontier, cost: float) -> str:
    in_bytes = cost / (8 if problem.resources[found.resource].unit == "bit" else 1)
    name, size = next(((n, s) for n, s in SIZES if s <= abs(in_bytes)), SIZES[-1])
    return f"{in_bytes / size:.4g} {name}"
