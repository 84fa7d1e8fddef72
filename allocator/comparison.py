"""compare(): the same problems and budgets through several backends, every answer verified."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from allocator import registry
from allocator.budgets import apply_budgets
from allocator.errors import AllocatorError, UsageError
from allocator.listing import solvers
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Solver
from allocator.solution import Solution
from allocator.statement import Number

_SPEC = re.compile(r"^([A-Za-z0-9_-]+)(?:\[(.*)\])?$")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backend on one problem at one budget. regret = objective − the best objective of the same problem and budget.

    wrong: what the core found false in the answer; empty when nothing was.
    """

    problem: str
    budget: str
    solver: str
    status: str
    claim: str | None
    objective: float | None
    loss: float | None
    proven_bound: float | None
    claimed_bound: float | None
    gap: float | None
    regret: float | None
    seconds: float
    limit: str | None
    totals: Mapping[str, Number]
    wrong: tuple[str, ...]
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compare(
    problems: Mapping[str, Problem] | Sequence[str | Path],
    solvers: Sequence[str | Solver] | str = "all",
    *,
    budgets: Sequence[str | Number] | None = None,
    resource: str | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    keep: Callable[[Row, Solution], None] | None = None,
) -> list[Row]:
    """Run backends side by side.

    Args:
        problems: name → problem, or paths of problem files.
        solvers: names (with options: "ortools_mip[engine=highs]"), instances, or "all" that are available.
        budgets: each in turn replaces the budget; None keeps the files' own.
        resource: what the budgets limit; default the only budgeted resource.
        time_limit: seconds per run.
        seed: of whatever is random.
        threads: at most so many per run.
        progress: called as progress(what, done, total).
        keep: called with each row and its solution.

    Returns:
        Rows in the order problems × budgets × solvers; a backend that fails is a row that says so.
    """
    stated = problems if isinstance(problems, Mapping) else {Path(p).stem: _load(p) for p in problems}
    backends = parse_solvers(solvers)
    cells = [(name, p, b) for name, p in stated.items() for b in (budgets if budgets is not None else [None])]
    total = len(cells) * len(backends)
    rows: list[Row] = []
    for i, (name, problem, budget) in enumerate(cells):
        limited = problem if budget is None else apply_budgets(problem, [str(budget)], resource)
        cell: list[Row] = []
        for j, (text, backend) in enumerate(backends):
            if progress is not None:
                progress(f"{name} {budget or ''} {text}".replace("  ", " "), i * len(backends) + j, total)
            row, solution = _run(name, limited, budget, text, backend, time_limit, seed, threads)
            cell.append(row)
            if keep is not None and solution is not None:
                keep(row, solution)
        rows += _with_regret(cell)
    if progress is not None:
        progress("done", total, total)
    return rows


def parse_solvers(solvers_: Sequence[str | Solver] | str) -> list[tuple[str, Solver]]:
    """Instances by the text that names them: "a,b[k=v;l=w]" or a list.

    Raises:
        UsageError: an unknown name or option.
    """
    if isinstance(solvers_, str):
        if solvers_ == "all":
            solvers_ = [s.name for s in solvers() if s.available]
        else:
            solvers_ = [t for t in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", solvers_) if t.strip()]
    return [(s.strip(), solver_from_text(s)) if isinstance(s, str) else (repr(s), s) for s in solvers_]


def solver_from_text(text: str) -> Solver:
    """An instance for "name" or "name[option=value,…]"."""
    name, options = split_spec(text)
    backend: Solver = registry.make("solvers", name, options)
    return backend


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of "name[option=value,…]"."""
    match = _SPEC.match(text.strip())
    if match is None:
        raise UsageError(f"{text!r}: write name or name[option=value]")
    options = {}
    for part in filter(None, re.split(r"[,;]", match[2] or "")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: option {part!r} must be option=value")
        options[key.strip()] = value.strip()
    return match[1], options


def _load(path: str | Path) -> Problem:
    from allocator.formats.problems import load_problem

    return load_problem(path)


def _run(
    name: str,
    problem: Problem,
    budget: str | Number | None,
    text: str,
    backend: Solver,
    time_limit: float | None,
    seed: int,
    threads: int | None,
) -> tuple[Row, Solution | None]:
    shown = str(budget) if budget is not None else ", ".join(f"{b.name} {_limits(b)}" for b in problem.budgets)
    started = time.perf_counter()
    try:
        s = solve(problem, backend, time_limit=time_limit, seed=seed, threads=threads)
    except AllocatorError as error:
        empty: dict[str, Any] = dict.fromkeys(
            ("claim", "objective", "loss", "proven_bound", "claimed_bound", "gap", "regret", "limit")
        )
        seconds = time.perf_counter() - started
        return Row(
            problem=name, budget=shown, solver=text, status="error", seconds=seconds, totals={}, wrong=(),
            error=str(error), **empty,
        ), None  # fmt: skip
    false = tuple(r for r in s.reasons if r.startswith(("the backend", "the claimed")))
    if s.status == "unknown" and s.claim == "infeasible":
        false = ()
    return Row(
        problem=name,
        budget=shown,
        solver=text,
        status=s.status,
        claim=s.claim,
        objective=s.objective,
        loss=s.loss,
        proven_bound=s.proven_bound,
        claimed_bound=s.claimed_bound,
        gap=s.gap,
        regret=None,
        seconds=float(s.run["wall_s"]),
        limit=s.limit,
        totals=dict(s.totals),
        wrong=false,
        error=None,
    ), s


def _limits(budget: Any) -> str:
    return " ".join(f"{side} {v}" for side, v in (("max", budget.max), ("min", budget.min)) if v is not None)


def _with_regret(rows: Iterable[Row]) -> list[Row]:
    from dataclasses import replace

    rows = list(rows)
    best = min((r.objective for r in rows if r.objective is not None), default=None)
    return [replace(r, regret=r.objective - best) if r.objective is not None and best is not None else r for r in rows]
