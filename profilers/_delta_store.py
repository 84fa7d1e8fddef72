"""Logit deltas of a plan on their way to disk."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from allocator.logit_sum import Manifest, Positions, StoredGroup, Writer
from profilers._deltas import Form
from profilers._groups import model_sha256, versions
from profilers._plan import Plan
from profilers._shards import Piece


class DeltaStore:
    """A `Writer` that knows what a plan's deltas depend on.

    Raises:
        UsageError: the folder holds deltas of something else; see `Writer`.
    """

    def __init__(self, folder: Path, plan: Plan, form: Form, samples: int | None) -> None:
        self._sketches = 0 if form.whole else form.sketches
        manifest = Manifest(
            model_sha256=plan.model_sha256 or model_sha256(plan.workload.model),
            calibration=plan.workload.digests("calibration")[:samples],
            groups=[
                StoredGroup(
                    name=target.name,
                    choices=[item.name for item in target.menu],
                    actions=[dict(item.action.to_json()) for item in target.menu],
                )
                for target in plan.targets
            ],
            classes=form.classes,
            top=min(form.top, form.classes),
            sketches=self._sketches,
            seed=form.seed,
            dtype="float32" if form.whole else "float16",
            versions=versions(),
        )
        self._writer = Writer(folder, manifest)

    def positions(self, start: int, piece: Piece) -> None:
        """The float network's side of one run of batches."""
        self._writer.positions(start, stored(piece, self._sketches))

    def deltas(self, place: int, start: int, delta: Tensor) -> None:
        """A target's deltas [C, P, F] over one run of batches."""
        self._writer.deltas(place, start, delta.numpy())

    def finish(self) -> None:
        """Declare the store whole."""
        self._writer.finish()


def stored(piece: Piece, sketches: int) -> Positions:
    """The float network's piece as the arithmetic takes it."""
    tail = piece["tail"].numpy() if "tail" in piece else None
    return Positions(piece["top"].numpy(), tail, sketches, piece["counts"].numpy())
