"""`allocator compare FILE…`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.comparison_rows import Row

SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def compare_command(
    files: Annotated[list[str], typer.Argument(help="Problem files.")],
    solvers: Annotated[str, typer.Option(help="a,b[k=v],… or all.")] = "all",
    budgets: Annotated[str | None, typer.Option(help="V,V,… each in turn; default the files' own.")] = None,
    resource: Annotated[str | None, typer.Option(help="What the budgets limit.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds per run.")] = 60.0,
    memory_limit: Annotated[str | None, typer.Option(help="Resident per run: 500MB, 4GiB; killed beyond it.")] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    seeds: Annotated[str | None, typer.Option(help="0,1,2: each in turn.")] = None,
    threads: Annotated[int | None, typer.Option(help="At most so many per run.")] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="All in this process: quicker, without protection from each other.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Rows as one JSON document on stdout.")] = False,
    out: Annotated[str | None, typer.Option(help="Where to keep the rows (.json), written after each run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rows that --out already holds.")] = False,
    plot: Annotated[str | None, typer.Option(help="Performance profile (.png, .svg, .pdf).")] = None,
    plot_by: Annotated[str, typer.Option(help="What it shows: time or regret.")] = "time",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if any answer is wrong or a backend crashed.")
    ] = False,
) -> None:
    """Run several backends on the same problems and budgets, each run in its own process; every answer is verified."""
    from allocator.cli.performance import QUANTITIES, draw_profile
    from allocator.comparison import compare
    from allocator.comparison_rows import judged, load_rows, save_rows
    from allocator.errors import UsageError
    from allocator.formats.files import require_writable

    if in_process and memory_limit is not None:
        raise UsageError("--memory-limit needs each run in its own process; leave --in-process out")
    if resume and out is None:
        raise UsageError("--resume goes on with the file of --out; name it")
    if plot_by not in QUANTITIES:
        raise UsageError(f"--plot-by {plot_by}: there are {' and '.join(QUANTITIES)}")
    for path in filter(None, (out, plot)):
        require_writable(path)
    there = out is not None and out != "-" and Path(out).exists()
    if there and not resume:
        raise UsageError(f"{out}: is there; --resume goes on with it, or name another file")
    known = load_rows(str(out)) if there else []
    kept = {row.key: row for row in known}

    def each(row: Row) -> None:
        kept[row.key] = row
        if out is not None and out != "-":
            save_rows(out, judged(kept.values()))

    with progress(not json) as tick:
        rows = compare(
            files, solvers, budgets=_listed(budgets), resource=resource, time_limit=time_limit, seed=seed,
            seeds=_seeds(seeds), threads=threads, isolate=not in_process, memory_limit=_bytes(memory_limit),
            known=known, progress=tick, each=each,
        )  # fmt: skip
    if out is not None:
        save_rows(out, judged({**kept, **{row.key: row for row in rows}}.values()))
    if json:
        print_json({"rows": [row.to_json() for row in rows]})
    elif out != "-":
        _show(rows)
    if plot is not None:
        draw_profile(rows, plot, plot_by)
        say(f"{plot}: written")
    if strict and any(row.failed for row in rows):
        raise typer.Exit(1)


def _show(rows: Sequence[Row]) -> None:
    several = len({r.seed for r in rows}) > 1
    memory = any(r.peak_bytes is not None for r in rows)
    head = ["problem", "budget", "solver", *(["seed"] if several else []), "verdict", "claim", "objective", "bound",
            "gap", "regret", "over bound", "wall s", "CPU s", *(["peak MiB"] if memory else [])]  # fmt: skip
    shown = [_cells(r, several, memory) for r in rows]
    for i in range(len(rows) - 1, 0, -1):
        if (rows[i].problem, rows[i].budget) == (rows[i - 1].problem, rows[i - 1].budget):
            shown[i][:2] = "", ""
    table(head, shown)
    said: dict[tuple[str, str], list[str]] = {}
    for r in rows:
        for reason in (*r.wrong, *([r.error] if r.error else [])):
            places = said.setdefault((f"{r.verdict} {r.solver}", reason), [])
            places.append(f"{r.problem} at {r.budget}" if r.budget else r.problem)
    for (who, reason), places in said.items():
        distinct = list(dict.fromkeys(places))
        where = distinct[0] + (f" and {len(distinct) - 1} more" if len(distinct) > 1 else "")
        print(f"{who}, {where}: {reason}")


def _cells(r: Row, several: bool, memory: bool) -> list[str]:
    peak = "" if r.peak_bytes is None else str(round(r.peak_bytes / 2**20))
    return [
        r.problem, r.budget, r.solver, *([str(r.seed)] if several else []), r.verdict, r.claim or "",
        number(r.objective), number(r.proven_bound), number(r.gap), number(r.regret), number(r.bound_regret),
        f"{r.seconds:.3f}",
        "–" if r.cpu_s is None else f"{r.cpu_s:.3f}", *([peak] if memory else []),
    ]  # fmt: skip


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.split(",") if part]


def _seeds(text: str | None) -> list[int] | None:
    from allocator.errors import UsageError

    if text is None:
        return None
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise UsageError(f"--seeds {text}: write whole numbers with commas between")
    return list(dict.fromkeys(found))


def _bytes(text: str | None) -> int | None:
    from allocator.errors import UsageError

    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*((?:[kmg]i?)?)b?", text.strip().lower())
    if match is None:
        raise UsageError(f"--memory-limit {text}: write bytes, 500MB or 4GiB")
    return int(float(match[1]) * SIZES[match[2]])
