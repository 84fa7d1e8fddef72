"""`allocator check FILE`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.console import print_json

if TYPE_CHECKING:
    from allocator.problem import Problem


def check_command(
    file: Annotated[str, typer.Argument(help="problem.json of either form; - is stdin.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Check a problem file: exit 0, or 1 with up to 100 errors as JSON pointers."""
    from allocator.errors import ProblemError
    from allocator.formats.problems import load_problem

    try:
        problem = load_problem(file)
        _check_actions(problem)
    except ProblemError as error:
        if json:
            print_json({"valid": False, "errors": [{"pointer": f.pointer, "message": f.message} for f in error.faults]})
        else:
            for fault in error.faults:
                print(fault)
        raise typer.Exit(1) from None
    if json:
        print_json(
            {
                "valid": True,
                "groups": problem.group_count,
                "choices": problem.choice_count,
                "features": sorted(problem.features),
                "warnings": list(problem.warnings),
            }
        )
        return
    print(f"{file}: valid; {problem.group_count} groups, {problem.choice_count} choices")
    if problem.features:
        print(f"  uses {', '.join(sorted(problem.features))}")
    for warning in problem.warnings:
        print(f"  warning: {warning}")


def _check_actions(problem: Problem) -> None:
    """Faults for actions of a known kind that cannot be read; an unknown kind is left to the applier, by name."""
    import numpy as np

    from allocator import registry
    from allocator.actions import parse
    from allocator.errors import ActionError, Fault, ProblemError
    from allocator.validation import MOST_FAULTS, pointer

    faults = []
    known = registry.entries("actions")
    for code, action in enumerate(problem.action_table):
        if action["kind"] not in known:
            continue
        try:
            parse(action)
        except ActionError as error:
            assert problem.action_code is not None
            row = int(np.argmax(problem.action_code == code))
            place = pointer("groups", int(problem.group_of[row]), "choices", int(problem.places[row]), "action")
            faults.append(Fault(place, str(error)))
    if faults:
        raise ProblemError(faults[:MOST_FAULTS])
