"""results.jsonl: what was measured, one line as soon as it is known, each with the version of what it depends on."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]


class Line(msgspec.Struct, kw_only=True):
    """One finished row of one network or instance, or one measured fact that rows share."""

    name: str
    network: str
    version: str
    values: dict[str, float] = {}
    facts: list[float] = []
    note: str = ""
    machine: str = ""
    load: float = 0.0
    date: str = ""


class Store:
    """results.jsonl: the last line of each (name, network) counts, if it is of the present version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[str, str], Line] = {}
        for text in path.read_bytes().splitlines() if path.exists() else []:
            try:
                line = msgspec.json.decode(text, type=Line)
            except msgspec.DecodeError:
                continue  # cut short by a kill
            self.lines[line.name, line.network] = line

    def get(self, name: str, network: str, version: str) -> Line | None:
        """What is kept, None if it is stale or missing."""
        line = self.lines.get((name, network))
        return line if line is not None and line.version == version else None

    def add(self, line: Line) -> None:
        """Keep a line at once, on a line of its own even where the last one was cut short."""
        line.machine, line.date = machine(), datetime.now(UTC).isoformat(timespec="seconds")
        line.load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0
        self.lines[line.name, line.network] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n":
                file.write(b"\n")
            file.write(msgspec.json.encode(line) + b"\n")


@cache
def digest(*places: str) -> str:
    """Of all sources and checkpoints in these folders of the repository, or of these files of it."""
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in _KINDS]
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:12]


_KINDS = frozenset((".py", ".c", ".h", ".safetensors"))


@cache
def machine() -> str:
    """In words."""
    import torch

    return (
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}"
    )
