"""One backend on one case, as kept in results.jsonl; what makes it stale; which answers are wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from allocator import __version__

CLOSE = 1e-9
"""A claim of optimality is wrong if another checked answer is better by more than this share of it."""

PACKAGES = {"scipy_milp": "scipy", "ortools_cpsat": "ortools", "ortools_mip": "ortools"}
MIPS = frozenset(PACKAGES)
ROOT = Path(__file__).parents[2]


class Seconds(msgspec.Struct):
    """CPU is None where the process was killed before it could tell."""

    cpu: float | None
    wall: float


class Times(msgspec.Struct):
    """First call in a fresh process, the one after it, and the best of five further ones; the best of all rounds."""

    first: Seconds | None = None
    second: Seconds | None = None
    best: Seconds | None = None

    def figure(self, which: str = "first") -> Seconds | None:
        """ "first", "second" or "best"; what was not repeated falls back on what came before."""
        order = ("best", "second", "first")
        return next((s for n in order[order.index(which) :] if (s := getattr(self, n)) is not None), None)


class Record(msgspec.Struct, kw_only=True):
    """outcome: ran, not run, declined, failed or killed; note says why. times by quantity, in seconds:

    call (the backend), library (inside it), whole (`allocator.solve`), check, overhead, imports. load: what else
    ran on the machine when the measuring began (the load average of a minute).
    """

    case: str
    seed: int
    solver: str
    version: str
    outcome: str
    note: str = ""
    groups: int = 0
    choices: int = 0
    engine: str = ""
    status: str | None = None
    claim: str | None = None
    objective: float | None = None
    proven_bound: float | None = None
    claimed_bound: float | None = None
    gap: float | None = None
    limit: str | None = None
    certificate: str | None = None
    reasons: list[str] = []
    times: dict[str, Times] = {}
    input_bytes: int | None = None
    extra_bytes: int | None = None
    whole_extra_bytes: int | None = None
    peak_bytes: int | None = None
    time_limit: float = 0.0
    rounds: int = 0
    points: int | None = None
    machine: str = ""
    load: float = 0.0
    date: str = ""

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What `--resume` skips by."""
        return self.case, self.seed, self.solver, self.version

    @property
    def backend(self) -> str:
        """Registry name, without options and engine."""
        return self.solver.partition("@")[0].partition("[")[0]

    @property
    def says_optimal(self) -> bool:
        """Proved by the core, or claimed beyond that."""
        return "optimal" in (self.status, self.claim)

    def seconds(self, quantity: str, which: str = "first") -> float | None:
        """CPU seconds (wall where the CPU is not known) of a quantity."""
        found = self.times[quantity].figure(which) if quantity in self.times else None
        return None if found is None else found.wall if found.cpu is None else found.cpu


def load(path: Path) -> list[Record]:
    """Records of a file, one per line, the last one of each (case, seed, solver); a line cut short is left out."""
    found: dict[tuple[str, int, str], Record] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = msgspec.json.decode(line, type=Record)
        except msgspec.DecodeError:
            continue
        found.pop((record.case, record.seed, record.solver), None)
        found[record.case, record.seed, record.solver] = record
    return list(found.values())


def append(path: Path, record: Record) -> None:
    """Add one line, on a line of its own even where the last one was cut short."""
    with path.open("a+b") as file:
        if file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n":
            file.write(b"\n")
        file.write(msgspec.json.encode(record) + b"\n")


def wrong(records: Iterable[Record]) -> set[tuple[str, int, str]]:
    """(case, seed, solver) of claims of optimality that another checked answer of the same case beats."""
    records = list(records)
    best = best_objectives(records)
    found = set()
    for r in records:
        if r.says_optimal and r.objective is not None:
            least = best[r.case, r.seed]
            if r.objective > least + CLOSE * max(abs(least), abs(r.objective)):
                found.add((r.case, r.seed, r.solver))
    return found


def best_objectives(records: Iterable[Record]) -> Mapping[tuple[str, int], float]:
    """Least checked objective of each (case, seed)."""
    best: dict[tuple[str, int], float] = {}
    for r in records:
        if r.objective is not None:
            best[r.case, r.seed] = min(r.objective, best.get((r.case, r.seed), r.objective))
    return best


def version_of(backend: str) -> str:
    """What a result depends on: the library's release, or ours with a digest of its sources; and the instances'."""
    instances = _digest("benchmarks/solvers", ("case", "classical", "hard", "realistic", "shapes"))
    if backend in PACKAGES:
        return f"{PACKAGES[backend]} {metadata.version(PACKAGES[backend])}, instances {instances}"
    return f"{__version__}+{_digest('.', None)}, instances {instances}"


@cache
def _digest(folder: str, stems: tuple[str, ...] | None) -> str:
    if stems is not None:
        files = [ROOT / folder / f"{stem}.py" for stem in stems]
    else:
        files = [f for p in ("allocator", "solvers") for kind in ("*.py", "*.c", "*.h") for f in (ROOT / p).rglob(kind)]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:8]
