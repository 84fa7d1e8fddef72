"""`allocator doctor`: what this installation can do, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from allocator.cli.console import print_json, say, table


def doctor_command(json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Look at Python, packages, the engine, plug-ins, and a small solve; exit 1 where something is wrong."""
    from allocator.diagnosis import diagnose

    found = diagnose()
    if json:
        print_json({"findings": [asdict(f) for f in found]})
    else:
        table(["", "state", "detail", "what helps"], [[f.name, f.state, f.detail, f.cure] for f in found])
    wrong = [f.name for f in found if f.state == "wrong"]
    if wrong:
        say(f"wrong: {', '.join(wrong)}")
        raise typer.Exit(1)
