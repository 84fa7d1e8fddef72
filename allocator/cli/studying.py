"""`allocator study MODEL`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.choices import Model, numbers
from allocator.cli.console import print_json, progress, table

if TYPE_CHECKING:
    from allocator.study.running import Study

DROPS = {"kl": "KL", "loss": "loss", "accuracy": "accuracy"}


def study_command(
    model: Model,
    formats: Annotated[str, typer.Option(help="Tensor formats.")] = "CP,Tucker,TT,SVD",
    fewer: Annotated[str, typer.Option(help="Shares of a layer's weights to take away.")] = "0.1,0.25,0.5,0.75,0.9",
    ends: Annotated[bool, typer.Option("--ends", help="Also the first and the last layer.")] = False,
    samples: Annotated[int | None, typer.Option(help="Evaluation samples to use; default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of random starts and of the bootstrap.")] = 0,
    out: Annotated[str | None, typer.Option(help="Where to write all numbers as JSON.")] = None,
    plot: Annotated[str | None, typer.Option(help="Where to draw it (.png, .svg, .pdf); needs matplotlib.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """How informative are errors of tensor approximations? Six of them against what the network loses."""
    import msgspec

    from allocator.cli.models import load_workload
    from allocator.formats.files import require_writable, write_bytes
    from allocator.study.running import study
    from allocator.study.tensor_formats import formats_named

    for path in (out, plot):
        if path is not None:
            require_writable(path)
    if plot is not None:
        import_module("matplotlib")  # a missing one is named before the work, not after it
    levels: list[float] = numbers(fewer, float, "--fewer")
    named = [name for name in formats.split(",") if name]
    formats_named(named)
    workload = load_workload(model)
    with progress(not json) as tick:
        found = study(workload, formats=named, fewer=levels, ends=ends, samples=samples, seed=seed, progress=tick)
    if out is not None:
        write_bytes(out, msgspec.json.format(msgspec.json.encode(found.to_json()), indent=1) + b"\n")
    if plot is not None:
        from allocator.study.plotting import draw

        draw(found, plot)
    if json:
        print_json(found.to_json())
    elif out != "-":
        describe(found)


def describe(found: Study) -> None:
    """τ of every error over all approximations and over the strong ones."""
    layers = len({row.layer for row in found.rows})
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in found.original.items())
    print(
        f"{found.workload}: {len(found.rows)} approximations of {layers} layers, one at a time, not fine-tuned; "
        f"{metrics} on {found.samples} evaluation samples"
    )
    for selection in list(dict.fromkeys(one.selection for one in found.correlations))[:2]:
        some = [one for one in found.correlations if one.selection == selection]
        drops = [drop for drop in DROPS if any(one.drop == drop for one in some)]
        cell = {
            (one.error, one.drop): f"{one.tau:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f})" for one in some
        }
        rows = [
            ["measured KL" if error == "kl" else error, *(cell.get((error, drop), "") for drop in drops)]
            for error in dict.fromkeys(one.error for one in some)
        ]
        title = f"Kendall's τ of error and drop, {some[0].count} approximations: {selection}"
        table(("error", *(DROPS[drop] for drop in drops)), rows, title=title)
