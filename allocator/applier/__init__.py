"""The applier: does to a torch model what an allocation says, in memory and on disk."""

from __future__ import annotations

from allocator.applier.apply import apply_
from allocator.applier.approximate import Approximator, approximate
from allocator.applier.checkpoint import CheckpointInfo, compress
from allocator.applier.inventory import outside_bytes
from allocator.applier.layers import Uncovered, Unit, uncovered, units
from allocator.applier.loading import load_allocation, load_compressed, load_provenance, load_weights
from allocator.applier.packed import pack, unpack, unpack_parts
from allocator.applier.plan import Step, plan
from allocator.applier.program import Call, ProgramInfo, export_program, load_program, recorded_call
from allocator.applier.saving import save_compressed
from allocator.applier.statistics import LayerStatistics, Statistics

__all__ = [
    "Approximator",
    "Call",
    "CheckpointInfo",
    "LayerStatistics",
    "ProgramInfo",
    "Statistics",
    "Step",
    "Uncovered",
    "Unit",
    "apply_",
    "approximate",
    "compress",
    "export_program",
    "load_allocation",
    "load_compressed",
    "load_program",
    "load_provenance",
    "load_weights",
    "outside_bytes",
    "pack",
    "plan",
    "recorded_call",
    "save_compressed",
    "uncovered",
    "units",
    "unpack",
    "unpack_parts",
]
