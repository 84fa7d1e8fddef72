"""Milliseconds per layer and choice that somebody measured elsewhere, read from a file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allocator.actions import Action, parse
from allocator.errors import ActionError, UsageError
from allocator.formats.files import read_bytes
from allocator.importers.cells import empty, read_cells
from profilers._plan import Plan, Target

KEYS = ("module", "choice", "action", "ms")
NAMED = 5
"""Missing or surplus entries that a message names."""


def read_latency(path: str, plan: Plan) -> tuple[list[list[float]], str]:
    """ms of every choice of every target, and the sha256 of the file.

    A row gives ``module``, either ``choice`` (its name, as int4) or ``action`` (its JSON object), and ``ms``, finite
    and ≥ 0; rows of modules that share a weight add up. JSON (.json): a list of such objects. Otherwise a table with
    these columns (CSV, or Parquet).

    Raises:
        UsageError: a row that cannot be read, stands twice or belongs to no choice; a choice without a row.
        ProblemError: not a table at all.
    """
    if path == "-":
        raise UsageError("a latency table is a file that can be read again, not standard input")
    owners = {name: target for target in plan.targets for name in target.unit.modules}
    found: dict[tuple[str, str], float] = {}
    surplus: list[str] = []
    for where, row in _rows(path):
        module, wanted, ms = _read(path, where, row)
        name = None if module not in owners else _choice(owners[module], wanted)
        if name is None:
            surplus.append(f"{module}: {wanted if isinstance(wanted, str) else wanted.to_json()} ({where})")
        elif (module, name) in found:
            raise UsageError(f"{path}: {where}: {module} and {name} stand twice")
        else:
            found[module, name] = ms
    table: list[list[float]] = []
    missing: list[str] = []
    for target in plan.targets:
        table.append([])
        for item in target.menu:
            own = [found[name, item.name] for name in target.unit.modules if (name, item.name) in found]
            table[-1].append(math.fsum(own))
            if not own:
                missing.append(f"{target.name}: {item.name}")
    if missing or surplus:
        faults = [f"has no row for {_some(missing)}"] if missing else []
        faults += [f"has rows for what is no choice of a layer here: {_some(surplus)}"] if surplus else []
        raise UsageError(
            f"the latency table {path} {', and '.join(faults)}. It needs one row for each choice of each layer of the "
            "space; modules are named as in named_modules()"
        )
    return table, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _some(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    return ", ".join(entries[:NAMED]) + more


def _choice(target: Target, wanted: str | Action) -> str | None:
    """Name of the choice that is meant, if there is one."""
    return next((item.name for item in target.menu if wanted in (item.name, item.action)), None)


def _rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) of every entry, empty cells left out."""
    if Path(path).suffix.lower() != ".json":
        cells = read_cells(path)
        for where, row in cells.rows:
            if len(row) > len(cells.header):
                raise UsageError(f"{path}: {where} has {len(row)} cells under {len(cells.header)} headings")
            yield where, {key: cell for key, cell in zip(cells.header, row, strict=False) if not empty(cell)}
        return
    try:
        entries = json.loads(read_bytes(path))
    except ValueError as error:
        raise UsageError(f"the latency table {path} is no JSON: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"the latency table {path} is no list of objects with the keys module, choice or action, ms")
    yield from ((f"entry {place}", entry) for place, entry in enumerate(entries))


def _read(path: str, where: str, row: Mapping[str, Any]) -> tuple[str, str | Action, float]:
    """(module, choice or action, ms) of a row."""
    unknown = [key for key in row if key not in KEYS]
    if unknown or "module" not in row or "ms" not in row or ("choice" in row) == ("action" in row):
        raise UsageError(
            f"{path}: {where} has {', '.join(row) or 'nothing'}: give module, ms and either choice or action"
        )
    try:
        ms = float(row["ms"])
        if not 0 <= ms < math.inf:
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{path}: {where}: ms is {row['ms']!r}; give a finite number of milliseconds ≥ 0") from None
    if "choice" in row:
        return str(row["module"]), str(row["choice"]), ms
    action = row["action"]
    try:
        return str(row["module"]), parse(json.loads(action) if isinstance(action, str) else action), ms
    except (ValueError, ActionError) as error:
        raise UsageError(f"{path}: {where}: action cannot be read: {error}") from None
