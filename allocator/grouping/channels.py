"""Channels that can be left out of a network: who writes them, who reads them, found on one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import networkx
import torch
from torch import Tensor, nn

from allocator.applier.layers import Unit, units
from allocator.applier.opening import Opening
from allocator.errors import UsageError
from allocator.grouping.flow import Flow, follow
from allocator.tasks.batches import take
from allocator.tasks.guard import untouched
from allocator.workload import Workload

Node: TypeAlias = tuple[str, str]
TOLERANCE = 1e-5
"""Of the largest logit: how far logits may move when rows that nobody should read are overwritten."""


@dataclass(frozen=True)
class ChannelSpace:
    """Channels that flow together: leaving one out leaves out a row of every producer, a column of every consumer.

    Attributes:
        count: channels.
        producers: layers whose output channels they are, in the model's order; several where outputs are added or
            multiplied, depthwise convolutions, which pass them on, among them.
        consumers: layers whose input channels they are, in the model's order; a channel is columns/count columns.
    """

    count: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def name(self) -> str:
        """For reports."""
        return f"channels of {self.producers[0]}" + (f" and {more} more" if (more := len(self.producers) - 1) else "")


def find_channels(workload: Workload) -> tuple[ChannelSpace, ...]:
    """The channel spaces that one forward pass over one calibration sample shows; the model is left bit-identical.

    A space is there only if all that touches its channels is known: layers that write them (Linear and convolutions,
    grouped ones too), layers that read them (Linear, also behind a flattening that keeps each channel's places
    together, and convolutions without groups), and operations that treat each channel by itself: batch norms,
    activations, products and sums element by element, pooling, padding, means over other dimensions, views, depthwise
    convolutions. Concatenated channels, heads of attention, layer and group norms, embeddings, the network's input and
    its logits seal what they touch. The first calibration batch then tries it: with the columns of half of the
    channels at 0, whatever their rows hold must not show in the logits.

    Raises:
        UsageError: calibration data that is empty.
    """
    with untouched(workload.model), Opening(workload.model):
        return channels_of(workload, units(workload.model))


def channels_of(workload: Workload, found: Sequence[Unit]) -> tuple[ChannelSpace, ...]:
    """`find_channels` of a model that is in eval mode and opened already; ``found`` are its units."""
    first = next(iter(workload.calibration), None)
    if first is None:
        raise UsageError(f"the calibration data of {workload.name} is empty: give at least one batch")
    named = dict(workload.model.named_modules())
    modules = [named[name] for unit in found for name in unit.modules]
    spaces = _spaces(follow(workload.task, workload.model, take(first, 0, 1), modules), found, named)

    def logits() -> Tensor:
        with torch.no_grad():
            out: Tensor = workload.task.logits(workload.model, first)
            return out

    weights = {unit.name: unit.weight for unit in found}
    if not spaces or _unread(spaces, weights, logits):
        return spaces
    return tuple(space for space in spaces if _unread([space], weights, logits))


def _spaces(flow: Flow, found: Sequence[Unit], named: Mapping[str, nn.Module]) -> tuple[ChannelSpace, ...]:
    graph = networkx.Graph()
    owner = {named[name]: unit for unit in found for name in unit.modules}
    sealed: set[Node] = {(owner[layer].name, side) for layer, side in flow.sealed}
    for unit in found:
        if any(named[name] not in flow.watched for name in unit.modules):
            sealed |= {(unit.name, "in"), (unit.name, "out")}
    counts: dict[Node, set[int]] = {}
    for (layer, side), count in flow.counts.items():
        node = owner[layer].name, side
        counts.setdefault(node, set()).add(count)
        graph.add_node(node)
    graph.add_edges_from(((owner[a].name, one), (owner[b].name, two)) for (a, one), (b, two) in flow.ties)
    passing = {unit.name for unit in found if unit.layer.groups > 1}
    spaces = []
    for component in networkx.connected_components(graph):
        many = set().union(*(counts[node] for node in component))
        producers = tuple(unit.name for unit in found if (unit.name, "out") in component)
        consumers = tuple(unit.name for unit in found if (unit.name, "in") in component and unit.name not in passing)
        if not component & sealed and len(many) == 1 and min(many) > 1 and producers and consumers:
            spaces.append(ChannelSpace(many.pop(), producers, consumers))
    order = {unit.name: place for place, unit in enumerate(found)}
    return tuple(sorted(spaces, key=lambda space: order[space.producers[0]]))


def _unread(spaces: Sequence[ChannelSpace], weights: Mapping[str, Tensor], logits: Callable[[], Tensor]) -> bool:
    """Whether the rows of half of the channels show nowhere, once no consumer reads them."""
    touched = {name: weights[name] for space in spaces for name in (*space.producers, *space.consumers)}
    saved = {name: weight.detach().clone() for name, weight in touched.items()}
    with torch.no_grad():
        try:
            for space in spaces:
                for name in space.consumers:
                    read = weights[name].reshape(len(weights[name]), space.count, -1).clone()
                    read[:, ::2] = 0
                    weights[name].copy_(read.reshape(weights[name].shape))
            before = logits()
            for space in spaces:
                for name in space.producers:
                    weights[name][::2] = weights[name][::2].flip(0).roll(1, -1) * 2 + saved[name].std()
            after = logits()
        finally:
            for name, weight in touched.items():
                weight.copy_(saved[name])
    largest = before.abs().nan_to_num(posinf=0).amax() if before.numel() else 0  # masked logits are infinite
    return bool(((after == before) | ((after - before).abs() <= TOLERANCE * largest)).all())
