"""load_problem and save_problem: problem.json in the row form, or with columns in an npz beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from msgspec import UNSET

from allocator.errors import UsageError
from allocator.formats import types
from allocator.formats.columns import problem_from_columns, problem_to_columns
from allocator.formats.decode import decode
from allocator.formats.files import read_bytes, write_bytes
from allocator.formats.rows import extra_keys, problem_from_file, problem_to_rows
from allocator.problem import Problem


def load_problem(path: str | Path) -> Problem:
    """Read a problem.json of either form; "-" is standard input.

    Raises:
        ProblemError: up to 100 faults, each with its JSON pointer.
        UsageError: the file is not there.
    """
    return parse_problem(read_bytes(path), None if str(path) == "-" else Path(path).parent)


def parse_problem(data: bytes, folder: Path | None) -> Problem:
    """What a problem.json holds; ``folder``: where the npz of the columns form lies, None if nowhere.

    Raises:
        ProblemError: as `load_problem`.
    """
    file = decode(data, types.ProblemFile, "problem")
    if file.columns is not UNSET and file.groups is UNSET:
        problem = problem_from_columns(file, extra_keys(data), folder)
    else:
        problem = problem_from_file(file, extra_keys(data))
    return problem.replace(file_sha256=hashlib.sha256(data).hexdigest())


def save_problem(problem: Problem, path: str | Path, *, columns: bool = False) -> None:
    """Write a problem.json, in the row form or (columns=True) with the arrays in an npz of the same stem."""
    if not columns:
        data = msgspec.json.format(msgspec.json.encode(problem_to_rows(problem)), indent=1)
        write_bytes(path, data + b"\n")
        return
    if str(path) == "-":
        raise UsageError("the columns form is two files; name a path instead of '-'")
    target = Path(path)
    header, arrays = problem_to_columns(problem, target.with_suffix(".npz").name)
    write_bytes(target.with_suffix(".npz"), arrays)
    write_bytes(target, header)
