"""`allocator convert FILE OUT`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import say

if TYPE_CHECKING:
    from allocator.problem import Problem

FORMS = ("rows", "columns")


def convert_command(
    file: Annotated[str, typer.Argument(help="problem.json of either form, - for stdin; or a table: .csv, .parquet.")],
    out: Annotated[str, typer.Argument(help="Where to write: .json, .mps, .lp; - is stdout.")],
    form: Annotated[
        str | None, typer.Option(help="rows or columns: of a problem.json; default the other one than FILE has.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of a table: group=layer,cost.bytes=size,… (part=column).")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Of a table: score, or score=weight,…; default the first.")] = None,
    units: Annotated[str | None, typer.Option(help="Of a table: resource=unit,…")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="r=V, written into the problem.")] = None,
    resource: Annotated[str | None, typer.Option(help="Resource of a budget without r=.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Importer, where FILE's ending does not say.")] = None,
    to: Annotated[str | None, typer.Option(help="Exporter, where OUT's ending does not say.")] = None,
) -> None:
    """Convert between the forms of problem.json, from tables, and to the formats of mixed-integer solvers."""
    from allocator import registry
    from allocator.budgets import apply_budgets, qualified
    from allocator.errors import ProblemError, UsageError
    from allocator.exporters import Exporter, exporter_for
    from allocator.formats.files import require_writable
    from allocator.formats.problems import load_problem, save_problem
    from allocator.importers import importer_for

    if form is not None and form not in FORMS:
        raise UsageError(f"--form {form}: there are rows and columns")
    if file != "-" and out == file:
        raise UsageError(f"{out}: is the input; name another file")
    given = {"columns": columns, "units": units, "loss": loss if loss is None or "=" in loss else f"{loss}=1"}
    source = from_ or (None if file == "-" else importer_for(file))
    target = to or (None if out == "-" else exporter_for(out))
    if source is None and any(given.values()):
        raise UsageError(f"{file}: --columns, --units and --loss belong to a table; say --from table if this is one")
    require_writable(out)
    if source is None:
        problem = load_problem(file)
    else:
        importer = registry.make("importers", source, {k: v for k, v in given.items() if v is not None})
        try:
            problem = importer.read(file)
        except ProblemError as error:
            for fault in error.faults:
                say(str(fault))
            raise typer.Exit(1) from None
        _tell(problem)
    problem = apply_budgets(problem, qualified(problem, budget or [], resource))
    if target is not None:
        if form is not None:
            raise UsageError(f"--form {form}: {out} is no problem.json")
        exporter: Exporter = registry.make("exporters", target, {})
        exporter.write(problem, out)
        shape = target
    else:
        wide = form == "columns" if form is not None else source is None and _other_is_columns(file, out)
        save_problem(problem, out, columns=wide)
        shape = f"the {'columns' if wide else 'row'} form"
    if out != "-":
        say(f"{out}: {problem.group_count} groups, {problem.choice_count} choices in {shape}")


def _other_is_columns(file: str, out: str) -> bool:
    """Whether the other form than the file's is the columns form."""
    import msgspec

    from allocator.formats.files import read_bytes

    if file == "-":
        return out != "-"
    return "columns" not in msgspec.json.decode(read_bytes(file), type=dict[str, msgspec.Raw])


def _tell(problem: Problem) -> None:
    """Columns that were not read, and a loss that was not asked for."""
    known: Any = problem.notes.provenance or {}
    if known.get("columns_left_out"):
        say(f"columns left out: {', '.join(known['columns_left_out'])}")
    if len(problem.scores) > 1:
        say(f"loss: {', '.join(f'{w:g} {s}' for s, w in problem.loss.terms.items())}")
