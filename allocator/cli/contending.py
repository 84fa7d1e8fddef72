"""`allocator compare-methods MODEL`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.choices import Bits, Model, Ranks, SpaceFile, choices_of
from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.methods.judging import Interval
    from allocator.methods.method import Method
    from allocator.methods.standing import Contest, Row
    from allocator.space import Space
    from allocator.workload import Workload


def compare_methods_command(
    model: Model,
    budget: Annotated[list[str], typer.Option(help="r=V; several give a table each.")],
    methods: Annotated[str, typer.Option(help="a,b[option=value], or all.")] = "all",
    out: Annotated[str | None, typer.Option(help="Where to write all numbers as JSON.")] = None,
    plot: Annotated[str | None, typer.Option(help="Where to draw the differences from uniform.")] = None,
    space: SpaceFile = None,
    bits: Bits = None,
    ranks: Ranks = None,
    most_passes: Annotated[
        float | None, typer.Option(help="Leave out methods that are expected to take more passes over the data.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare named methods at the same stored bytes, on held-out data, with paired intervals against uniform."""
    import msgspec

    from allocator.cli.models import load_workload
    from allocator.errors import UsageError
    from allocator.formats.files import replacing, require_writable
    from allocator.methods.comparing import available, compare_methods
    from allocator.methods.running import method_named

    if resume and out is None:
        raise UsageError("--resume goes on from what lies beside --out: give the file of the run that was killed")
    for path in (out, plot):
        if path is not None:
            require_writable(path)
    names = None if methods == "all" else re.findall(r"[^,\[]+(?:\[[^\]]*\])?", methods)
    recipes = None if names is None else [method_named(name) for name in names]
    choices = choices_of(model, space, bits, ranks)
    parts = None if out is None else Path(f"{out}.parts")
    if parts is not None and parts.exists() and not resume:
        shutil.rmtree(parts)
    workload = load_workload(model)
    recipes = recipes or [method_named(name) for name in available()]
    _warn(workload, recipes, choices, most_passes)
    with progress(not json) as tick:
        found = compare_methods(
            workload,
            recipes,
            budgets=budget,
            space=choices,
            seed=seed,
            resume=parts,
            progress=tick,
            most_passes=most_passes,
        )
    if out is not None:
        with replacing(Path(out)) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(found.to_json()), indent=1) + b"\n")
    if plot is not None:
        from allocator.methods.plotting import draw

        draw(found, plot)
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)
    if json:
        print_json(found.to_json())
    else:
        _describe(found)
    if out is not None:
        say(f"{out}: {len(found.rows)} rows")


def _warn(workload: Workload, recipes: list[Method], space: Space, most: float | None) -> None:
    """Say of each method that is about to be begun how long it will take, if that is long."""
    from allocator.methods.forecasting import LONG, forecasts
    from allocator.methods.metering import one_pass

    pairs = zip(recipes, forecasts(workload, recipes, space), strict=True)
    long = [(recipe.name, n) for recipe, n in pairs if n is not None and n > LONG and (most is None or n <= most)]
    if not long:
        return
    second = one_pass(workload)
    for name, passes in long:
        say(
            f"{name} will take about {passes:,.0f} passes over the calibration data, {passes * second / 3600:.1f} h of "
            f"CPU time here; --most-passes {LONG} leaves it out"
        )


def _describe(found: Contest) -> None:
    base = ", ".join(f"{name} {number(float(f'{value:.4g}'))}" for name, value in found.original.items())
    for budget in dict.fromkeys(row.budget for row in found.rows):
        own = [row for row in found.rows if row.budget == budget]
        limits = next((row.limits for row in own if row.limits), {})
        words = ", ".join(f"{name} at most {number(limit)}" for name, limit in limits.items())
        table(
            ("method", "uses", "predicted", "KL", "less uniform", "loss", "accuracy", "passes", "s", "than uniform"),
            [_cells(row) for row in own],
            title=f"{found.workload}, {budget}: {words}; float {base}",
        )
        for row in own:
            if row.failed is not None:
                print(f"{row.method}: {row.failed}")
        if budget in found.best:
            print(_leaders(found.best[budget], own))
    print(
        f"Differences from uniform are paired over {found.samples} held-out samples, with 95 % bootstrap intervals; "
        "better and worse only where the interval excludes 0, without correction for the number of methods."
    )


def _leaders(best: str, rows: list[Row]) -> str:
    """The method of least KL, and those that the data cannot tell from it."""
    alike = [row.method for row in rows if "kl" in row.less_best and not row.less_best["kl"].separated]
    return f"least KL: {best}; not separated from it: {', '.join(alike) if alike else 'none'}"


def _cells(row: Row) -> list[str]:
    if row.judged is None:
        return [row.method, *["–"] * 8, "none found" if row.passes is not None else "not begun"]
    kl = row.judged.value("kl")
    used = ", ".join(number(value) for value in row.used.values())
    predicted = "–" if row.predicted is None else f"{row.predicted:.3g} {row.unit}"
    return [
        row.method,
        used,
        predicted,
        f"{kl.value:.4g} ± {kl.stderr:.2g}",
        _interval(row.less_uniform.get("kl")),
        _interval(row.less_uniform.get("loss")),
        _interval(row.less_uniform.get("accuracy")),
        "–" if row.passes is None else f"{row.passes:.0f}",
        "–" if row.seconds is None else f"{row.seconds:.1f}",
        row.verdict,
    ]


def _interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:+.2g} ({found.low:+.2g} to {found.high:+.2g})"
