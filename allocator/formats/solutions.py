"""solution.json and its compact npz form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from allocator.errors import Fault, ProblemError
from allocator.formats import types
from allocator.formats.archive import read_arrays, write_arrays
from allocator.formats.decode import decode
from allocator.formats.files import read_bytes, write_bytes
from allocator.problem import Problem
from allocator.solution import Allocation, Solution


def solution_to_json(solution: Solution, *, choices: bool = True) -> dict[str, Any]:
    """Plain data in the order of the format; without `choices` only the head (the npz holds the rest)."""
    head: dict[str, Any] = {"format": "allocation-solution", "version": 1}
    for key in ("status", "claim", "objective", "loss", "proven_bound", "claimed_bound", "gap", "certificate"):
        head[key] = getattr(solution, key)
    if choices:
        head["choices"] = dict(solution.choices) if solution.allocation is not None else None
        head["actions"] = {g: dict(a) for g, a in solution.actions.items()}
        head["modules"] = solution.modules
    head["totals"] = dict(solution.totals)
    head["multipliers"], head["slack"] = list(solution.multipliers), list(solution.slack)
    head["limit"], head["reasons"] = solution.limit, list(solution.reasons)
    head["solver"], head["problem"], head["run"] = dict(solution.solver), dict(solution.problem), dict(solution.run)
    return head


def solution_bytes(solution: Solution) -> bytes:
    """The bytes of solution.json."""
    return msgspec.json.format(_encode(solution_to_json(solution)), indent=1) + b"\n"


def _encode(head: dict[str, Any]) -> bytes:
    """JSON; what a backend put among its options and statistics becomes a number or its text."""
    return msgspec.json.encode(head, enc_hook=lambda x: x.item() if isinstance(x, np.generic) else str(x))


def save_solution(solution: Solution, path: str | Path) -> None:
    """Write solution.json, or for a path that ends in .npz: `choice` int32[G] and `head`, the rest as JSON bytes."""
    if str(path).endswith(".npz"):
        head = np.frombuffer(_encode(solution_to_json(solution, choices=False)), np.uint8)
        taken = np.zeros(0, np.int32) if solution.allocation is None else solution.allocation.choice
        write_bytes(path, write_arrays({"choice": taken, "head": head}))
        return
    write_bytes(path, solution_bytes(solution))


def load_solution(path: str | Path, problem: Problem | None = None) -> types.SolutionFile:
    """Read a solution file; with `problem`, an npz gets its choices, actions and modules back by name.

    Raises:
        ProblemError: the file breaks the format, or does not belong to the problem.
    """
    data = read_bytes(path)
    if not str(path).endswith(".npz"):
        return decode(data, types.SolutionFile, "solution")
    arrays = read_arrays(data, str(path), "solution")
    choice, head = arrays.get("choice"), arrays.get("head")
    if choice is None or head is None or choice.dtype != np.int32 or head.dtype != np.uint8:
        raise ProblemError([Fault(str(path), "must hold choice int32[G] and head uint8")], "solution")
    file = decode(head.tobytes(), types.SolutionFile, "solution")
    if len(choice) and problem is not None:
        try:
            problem.evaluate(choice)
        except ValueError as error:
            raise ProblemError(
                [Fault(f"{path}:choice", f"does not belong to this problem: {error}")], "solution"
            ) from None
        whole = Solution(status=file.status, allocation=Allocation(problem, choice))
        file.choices = dict(whole.choices)
        file.actions = {g: dict(a) for g, a in whole.actions.items()}
        file.modules = whole.modules
    return file
