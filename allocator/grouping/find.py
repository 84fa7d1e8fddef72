"""Sets of layers that a network itself ties together: fused ones, and those that share a residual stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import networkx
from torch import nn

from allocator.applier.layers import Unit, units
from allocator.applier.opening import Opening
from allocator.errors import UsageError
from allocator.grouping.record import Record, record
from allocator.grouping.rules import Coupled
from allocator.tasks.batches import take
from allocator.tasks.guard import untouched
from allocator.workload import Workload

KINDS = ("fused", "residual")


def check_kinds(kinds: Collection[str]) -> None:
    """Raise UsageError for a kind that is not in `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"there is no kind of coupling {kind!r}; known: {', '.join(KINDS)}")


def find_couplings(workload: Workload, kinds: Collection[str] = KINDS) -> tuple[Coupled, ...]:
    """The sets of layers that one forward pass over one calibration sample shows; the model is left bit-identical.

    - ``fused``: siblings (layers of one parent) that read the very same tensors, and that one product or convolution
      could compute together: q, k and v; gate and up. A runtime that fuses them needs one format for all.
    - ``residual``: layers whose outputs are added together, directly or through operations that leave each channel in
      its place (norms, activations, pooling, views), and those tied to them in turn: everything that writes into one
      residual stream, with the embedding and shortcut convolutions. Only layers of as many output channels are tied;
      products and concatenations tie nothing by themselves.

    Groups are named as by `allocator.profile`; a set has at least two.

    Raises:
        UsageError: an unknown kind; calibration data that is empty.
    """
    check_kinds(kinds)
    with untouched(workload.model), Opening(workload.model):
        return couplings_of(workload, units(workload.model), kinds)


def couplings_of(workload: Workload, found: Sequence[Unit], kinds: Collection[str]) -> tuple[Coupled, ...]:
    """`find_couplings` of a model that is in eval mode and opened already; ``found`` are its units."""
    first = next(iter(workload.calibration), None)
    if first is None:
        raise UsageError(f"the calibration data of {workload.name} is empty: give at least one batch")
    named = dict(workload.model.named_modules())
    owner = {named[name]: unit for unit in found for name in unit.modules}
    seen = record(workload.task, workload.model, take(first, 0, 1), list(owner))
    order = {unit.name: place for place, unit in enumerate(found)}
    sets = []
    for kind in (kind for kind in KINDS if kind in kinds):
        graph = _fused(seen, found, named) if kind == "fused" else _residual(seen, owner)
        components = [sorted(members, key=order.__getitem__) for members in networkx.connected_components(graph)]
        several = sorted((members for members in components if len(members) > 1), key=lambda m: order[m[0]])
        sets += [Coupled(_name(kind, members), kind, tuple(members)) for members in several]
    return tuple(sets)


def _fused(seen: Record, found: Sequence[Unit], named: Mapping[str, nn.Module]) -> networkx.Graph:
    graph = networkx.Graph()
    first: dict[object, str] = {}
    for unit in found:
        module = named[unit.modules[0]]
        alone = unit.layer.kind == "embedding" or len(unit.modules) > 1 or module not in seen.reads
        if alone or unit.layer.groups > 1:  # no one grouped convolution stands for two that split their input alike
            continue
        parent = unit.modules[0].rpartition(".")[0]
        shape = [getattr(module, key, None) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")]
        key = (parent, unit.layer.kind, unit.layer.columns, tuple(shape), tuple(seen.reads[module]))
        graph.add_edge(first.setdefault(key, unit.name), unit.name)
    return graph


def _residual(seen: Record, owner: Mapping[nn.Module, Unit]) -> networkx.Graph:
    graph = networkx.Graph()
    graph.add_edges_from((owner[a].name, owner[b].name) for a, b in seen.sums)
    return graph


def _name(kind: str, members: Sequence[str]) -> str:
    parent, _, first = members[0].rpartition(".")
    if kind == "residual":
        return f"residual sum of {members[0]} and {len(members) - 1} more"
    rest = [member.rpartition(".")[2] for member in members[1:]]
    return f"{parent + '.' if parent else ''}{'+'.join([first, *rest])}"
