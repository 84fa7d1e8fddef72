"""`allocator solvers`, `profilers`, `actions`, `schema`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from allocator.cli.console import print_json, table

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def solvers_command(json: Json = False) -> None:
    """List the solver backends, what each takes, and whether it can be used."""
    _show("solvers", json)


def profilers_command(json: Json = False) -> None:
    """List the profilers: each measures one statistic per choice."""
    _show("profilers", json)


def actions_command(json: Json = False) -> None:
    """List the kinds of actions that the applier can do, and their keys."""
    _show("actions", json)


def schema_command(
    what: Annotated[str, typer.Argument(help="problem or solution.")] = "problem",
) -> None:
    """Print the JSON Schema of problem.json or solution.json."""
    from allocator.errors import UsageError
    from allocator.formats.schema import schema

    if what not in ("problem", "solution"):
        raise UsageError(f"schema {what!r}: there are 'problem' and 'solution'")
    print_json(schema(what))


def _show(group: str, json: bool) -> None:
    from allocator.listing import listed

    found = listed(group)
    if json:
        print_json({group: [asdict(s) | {"available": s.available} for s in found]})
        return
    rows = []
    for s in found:
        options = s.usage or ", ".join(f"{k}={v!r}" if v is not None else k for k, v in s.options.items())
        state = "" if s.available else f"unavailable: {s.reason}"
        kind = [s.exactness or ""] if group == "solvers" else []
        summary = f"{s.summary} Runs: {s.runs}." if s.runs else s.summary
        rows.append([s.name, *kind, options, summary if s.available else state])
    written = "keys" if group == "actions" else "options"
    table(["name", *(["exactness"] if group == "solvers" else []), written, ""], rows)
    if group == "solvers":
        for s in found:
            if s.features:
                print(f"{s.name} takes: {', '.join(s.features)}")
