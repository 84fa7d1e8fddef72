"""The rows that `python -m benchmarks.interactions` can measure, each kind in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.interactions.chain import chained
from benchmarks.interactions.held_out import held_out
from benchmarks.interactions.networks import NETWORKS
from benchmarks.interactions.pieces import Row
from benchmarks.interactions.real import real
from benchmarks.interactions.synthetic import large, near, proved
from benchmarks.interactions.toy import toy

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        *map(real, NETWORKS),
        toy(),
        proved(40, 512, (1, 2)),
        proved(60, 512, (1, 2)),
        near(226, 2048, (1, 2)),
        large(1500, 512, 1),
        chained(54, "resnet50"),
        chained(226, "llama8b"),
        held_out(),
    )
}
