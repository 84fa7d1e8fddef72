"""The measuring process: one piece of one row, whose finding is the last line of its output, as JSON."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from allocator.errors import AllocatorError
from benchmarks.interactions.pieces import Finding, Piece, Settings
from benchmarks.interactions.rows import ROWS
from benchmarks.store import ROOT

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measured(piece: Piece, settings: Settings) -> Finding:
    """A piece in a fresh process of one thread; a process that dies is told as a note."""
    given = msgspec.json.encode(settings).decode()
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "OMP_WAIT_POLICY": "passive"}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.interactions.measure", piece.row, piece.name, given],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": path},
    )
    if ended.returncode:
        return Finding(note=f"its process ended with code {ended.returncode}")
    return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Finding)


def main(row: str, name: str, given: str) -> None:
    """Measure and print; what cannot be measured here is a note."""
    settings = msgspec.json.decode(given, type=Settings)
    (piece,) = (piece for piece in ROWS[row].pieces if piece.name == name)
    try:
        found = piece.measure(settings)
    except AllocatorError as error:
        found = Finding(note=str(error))
    print(msgspec.json.encode(found).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
