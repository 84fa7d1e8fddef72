"""`allocator methods` and `allocator run MODEL --method NAME`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.choices import Bits, Fast, Kinds, Model, Multiple, Ranks, SpaceFile, choices_of
from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.methods.running import Ran


def methods_command(json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """List the named methods: paper, how much of it is here, statistics, solver."""
    found = [described(name) for name in _names()]
    if json:
        print_json({"methods": found})
        return
    rows = [
        [one["name"], one["paper"], one["fidelity"], ", ".join(one["statistics"]), one["solver"]]
        if one["available"]
        else [one["name"], one["reason"], "", "", ""]
        for one in found
    ]
    table(["name", "paper", "fidelity", "statistics", "solver"], rows)
    for one in found:
        if one.get("leaves_out"):
            print(f"{one['name']} leaves out: {one['leaves_out']}")


def _names() -> list[str]:
    from allocator import registry

    return sorted(registry.entries("methods"))


def described(name: str) -> dict[str, Any]:
    """What a method is, as plain data; with the reason where it cannot be used."""
    import dataclasses

    from allocator.errors import AllocatorError
    from allocator.methods.running import method_named

    try:
        method: Any = method_named(name)
    except AllocatorError as error:
        return {"name": name, "available": False, "reason": str(error)}
    return {
        "name": name,
        "available": True,
        "summary": (type(method).__doc__ or "").strip().split("\n")[0],
        "paper": method.paper,
        "fidelity": method.fidelity,
        "leaves_out": method.leaves_out,
        "choices": method.kinds,
        "statistics": [str(one) for one in method.statistics()],
        "loss": dict(method.terms),
        "interactions": method.interactions,
        "solver": str(method.solver),
        "options": {field.name: getattr(method, field.name) for field in dataclasses.fields(method)},
    }


def run_command(
    model: Model,
    method: Annotated[str, typer.Option(help="name or name[option=value]; see `allocator methods`.")] = "house",
    budget: Annotated[list[str] | None, typer.Option(help="r=V.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for problem.json, solution.json and the checkpoint.")] = None,
    space: SpaceFile = None,
    bits: Bits = None,
    ranks: Ranks = None,
    kinds: Kinds = None,
    multiple: Multiple = None,
    fast: Fast = False,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Processes that share measurements; -1: one per core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Carry out one named method: profile, solve, apply, and measure the result beside float and uniform."""
    from allocator.cli.models import load_workload
    from allocator.errors import UsageError
    from allocator.methods.running import method_named, run

    if resume and out is None:
        raise UsageError("--resume goes on from what lies beside --out: give the folder of the run that was killed")
    recipe = method_named(method)
    choices = choices_of(model, space, bits, ranks, kinds, multiple, fast)
    parts = None if out is None else Path(f"{out}.parts")
    if parts is not None and parts.exists() and not resume:
        shutil.rmtree(parts)
    workload = load_workload(model)
    with progress(not json) as tick:
        found = run(
            workload, recipe, budgets=budget, space=choices, out=out, seed=seed, jobs=jobs, resume=parts, progress=tick
        )
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)
    if json:
        print_json(found.to_json())
    else:
        _describe(found, out)
    if found.judged is None:
        raise typer.Exit(3 if found.chosen.solution.status == "infeasible" else 4)


def _describe(found: Ran, out: Path | None) -> None:
    solution = found.chosen.solution
    if found.judged is None:
        why = "; ".join([solution.status, *solution.reasons])
        say(f"{found.method.name}: no allocation within the budget ({why})")
        return
    for name, (own, other) in found.used.items():
        said = "" if other is None else f"; uniform {found.uniform_label} {number(other)}"
        print(f"{name}: {number(own)}{said}")
    rows = []
    for metric in ("kl", "loss", "accuracy"):
        if metric not in found.judged.sums:
            continue
        columns = [found.judged.original, found.judged, found.uniform]
        shown = [
            "–" if one is None or metric not in one.sums else f"{(m := one.value(metric)).value:.4g} ± {m.stderr:.2g}"
            for one in columns
        ]
        gap = found.against_uniform(metric)
        less = "–" if gap is None else f"{gap.value:+.3g} ({gap.low:+.3g} to {gap.high:+.3g})"
        rows.append([metric, *shown, less])
    table(["", "float", found.method.name, f"uniform {found.uniform_label or ''}".strip(), "less uniform, 95 %"], rows)
    if found.chosen.said:
        print(found.chosen.said)
    say(f"{found.method.name}: about {found.passes:.0f} passes, {found.seconds:.1f} s")
    if out is not None:
        say(f"{out}: problem.json, solution.json, checkpoint of {found.checkpoint_bytes} bytes")
