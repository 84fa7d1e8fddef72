"""`allocator convert FILE OUT`."""

from __future__ import annotations

from typing import Annotated

import typer

from allocator.cli.console import say


def convert_command(
    file: Annotated[str, typer.Argument(help="problem.json of either form; - is stdin.")],
    out: Annotated[str, typer.Argument(help="Where to write; - is stdout (row form).")],
    columns: Annotated[
        bool | None,
        typer.Option("--columns/--rows", help="Form to write; default the other one than FILE has."),
    ] = None,
) -> None:
    """Convert between the row form and the columns form (a header beside an npz)."""
    import msgspec

    from allocator.errors import UsageError
    from allocator.formats.files import read_bytes, require_writable
    from allocator.formats.problems import load_problem, save_problem

    if columns is None:
        if file == "-":
            columns = out != "-"
        else:
            try:
                columns = "columns" not in msgspec.json.decode(read_bytes(file), type=dict[str, msgspec.Raw])
            except msgspec.DecodeError:
                columns = False  # load_problem says what is wrong
    require_writable(out)
    problem = load_problem(file)
    if file != "-" and out == file:
        raise UsageError(f"{out}: is the input; name another file")
    save_problem(problem, out, columns=bool(columns))
    if out != "-":
        say(f"{out}: {problem.group_count} groups in the {'columns' if columns else 'row'} form")
