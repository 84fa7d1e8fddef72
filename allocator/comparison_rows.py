"""A row of a comparison, what makes it wrong, and the file in which rows are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from allocator.errors import UsageError
from allocator.formats.files import read_bytes, write_bytes
from allocator.statement import Number

EXACT = 1e-12  # of S: what `optimal` promises
BOUND = 1e-9  # of S: what a bound of an engine in floats may be off
FORMAT = "allocation-comparison"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backend on one problem at one budget with one seed.

    outcome: "ran"; "refused" (by name: a feature, a missing package); "crashed"; "killed" (at a limit): `error` says
    why. objective, loss, totals: recomputed from the allocation, outside the process that solved. regret = objective −
    the best objective of the same problem and budget; bound_regret = objective − the best proven bound.
    wrong: what is false in the answer, empty when nothing is. seconds, cpu_s: of the whole solve, the core's check
    included. peak_bytes: resident, descendants included. sha256: of the problem with its budget; options: the
    solver's repr; scale: S.
    """

    problem: str
    budget: str
    solver: str
    status: str
    claim: str | None
    objective: float | None
    loss: float | None
    proven_bound: float | None
    claimed_bound: float | None
    gap: float | None
    regret: float | None
    seconds: float
    limit: str | None
    totals: Mapping[str, Number]
    wrong: tuple[str, ...]
    error: str | None
    outcome: Literal["ran", "refused", "crashed", "killed"] = "ran"
    seed: int = 0
    bound_regret: float | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None
    reasons: tuple[str, ...] = ()
    sha256: str = ""
    options: str = ""
    version: str = ""
    time_limit: float | None = None
    memory_limit: int | None = None
    threads: int | None = None
    isolated: bool = False
    scale: float = field(default=0.0, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells a run from another: the same again would be the same run."""
        limits = self.time_limit, self.memory_limit, self.threads, self.isolated
        return self.sha256, self.options, self.budget, self.seed, self.version, *limits

    @property
    def says_optimal(self) -> bool:
        """Proved by the core, or claimed beyond that."""
        return "optimal" in (self.status, self.claim)

    @property
    def verdict(self) -> str:
        """One word: wrong, refused, crashed, killed, or the status."""
        return "WRONG" if self.wrong else self.status if self.outcome == "ran" else self.outcome

    @property
    def failed(self) -> bool:
        """Wrong or crashed; a refusal by name is neither, nor is a limit."""
        return bool(self.wrong) or self.outcome == "crashed"


def judged(rows: Iterable[Row], others: Iterable[Row] = ()) -> list[Row]:
    """The rows with regret and wrong set against each other, and against further rows of the same problems.

    Rows of one problem with one budget (one sha256) are compared: an optimum that another checked allocation beats by
    more than 1e-12·S, an infeasibility where there is an allocation, a bound above an objective are wrong.
    """
    rows = list(rows)
    cells: dict[str, list[Row]] = {}
    for row in (*rows, *others):
        cells.setdefault(row.sha256, []).append(row)
    return [_judged(row, cells[row.sha256]) for row in rows]


def _judged(row: Row, cell: Sequence[Row]) -> Row:
    found = [r for r in cell if r.objective is not None]
    best = min(found, key=lambda r: r.objective or 0.0, default=None)
    least = None if best is None else best.objective
    bound = max((r.proven_bound for r in cell if r.proven_bound is not None), default=None)
    wrong = list(_own(row))
    if best is not None and least is not None:
        scale = max(r.scale for r in cell)
        if row.says_optimal and row.objective is not None and row.objective > least + EXACT * scale:
            who = "the core proved" if row.status == "optimal" else "the backend claims"
            wrong.append(f"{who} optimal, but {best.solver} has an objective of {least!r}")
        if "infeasible" in (row.status, row.claim):
            who = "the core proved" if row.status == "infeasible" else "the backend claims"
            wrong.append(f"{who} infeasible, but {best.solver} has a feasible allocation")
        for name, value, slack in (("proven", row.proven_bound, EXACT), ("claimed", row.claimed_bound, BOUND)):
            above = value is not None and value > least + slack * scale
            if above and not any(reason.startswith(f"the {name} bound") for reason in wrong):
                wrong.append(f"the {name} bound {value!r} is above the objective {least!r} of {best.solver}")
    if row.objective is None or least is None:
        return replace(row, wrong=tuple(wrong))
    return replace(
        row,
        wrong=tuple(wrong),
        regret=row.objective - least,
        bound_regret=None if bound is None else row.objective - bound,
    )


def _own(row: Row) -> tuple[str, ...]:
    """What the core found false by itself; that it could not prove an infeasibility is no falsehood."""
    unproved = row.status == "unknown" and row.claim == "infeasible" and row.objective is None
    said = tuple(r for r in row.reasons if r.startswith(("the backend", "the claimed")))
    return tuple(r for r in said if not (unproved and r.startswith("the backend claims that no allocation")))


def save_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON, aside and renamed: {format, version, rows}."""
    document = {"format": FORMAT, "version": 1, "rows": [row.to_json() for row in rows]}
    write_bytes(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def load_rows(path: str | Path) -> list[Row]:
    """Rows that `save_rows` wrote.

    Raises:
        UsageError: the file is something else.
    """
    try:
        document = msgspec.json.decode(read_bytes(path))
        if document["format"] != FORMAT or document["version"] != 1:
            raise KeyError("format")
        return [msgspec.convert(row, Row) for row in document["rows"]]
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is not a comparison that can be gone on with: {error}; name another file") from None
