"""The networks that are compressed: their data, what judges them, and at how many times fewer bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from allocator.tasks.protocol import Batch
from benchmarks.compression.menus import EMBEDDING, KINDS, Menu

if TYPE_CHECKING:
    from allocator.workload import Workload

RATIOS = (8.0, 11.0, 14.0, 18.0, 24.0, 32.0)
NO_TENSORS = tuple(name for name in KINDS if name != "tensors")
"""For networks of matrices, and of convolutions that have a forward of their own."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network.

    Attributes:
        name: of the built-in workload.
        metric: of the task, that is judged beside the divergence; better is up or down.
        load: the workload; norms are folded where there are any.
        way: ``refined``: `allocator.refine`, which measures every choice; ``curvature``: the best that is found for the
            quadratic model, for networks where a forward pass for every choice is too much, or data are too few.
        ratios: 4 · parameters over stored bytes, at which kinds are compared.
        bits: of the uniform roundings.
        whole: ratios at which factors alone, in float32, are tried too.
        training: data on which recovery trains; none without.
        kinds: that are compared one by one.
        fast: without choices that take long on large layers.
        apart: layers, by a pattern of their names, that have a menu of their own; its first choice where all other
            layers are rounded alike.
    """

    name: str
    metric: str
    load: Callable[[], Workload]
    way: str
    ratios: tuple[float, ...] = RATIOS
    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    whole: tuple[float, ...] = ()
    training: Callable[[], list[Batch]] | None = None
    kinds: tuple[str, ...] = tuple(KINDS)
    fast: bool = False
    apart: Mapping[str, Menu] = field(default_factory=dict, hash=False)


def _pictures() -> list[Batch]:
    """8,192 training pictures, those of the calibration data first, in batches of 64."""
    from allocator.demos import fashion_mnist

    return list(zip(*(torch.split(part[:8192], 64) for part in fashion_mnist.all_but_validation()), strict=True))


def _fashion(name: str) -> Workload:
    """The network with its norms folded; 2,048 of its training pictures to compress it by."""
    from importlib import import_module

    from allocator.folding import folded

    found: Workload = import_module(f"allocator.demos.{name.replace('-', '_')}").workload(2048)
    return folded(found)


def _plain(name: str) -> Workload:
    from allocator.demos import demo_named

    return demo_named(name).workload()


def _smollm2() -> Workload:
    """Sixteen sequences to profile it: with four, two to fit choices to and two to score them are few."""
    from allocator.demos import smollm2

    return smollm2.workload(16)


def _folded(name: str) -> Workload:
    from allocator.folding import folded

    return folded(_plain(name))


SUBJECTS: Mapping[str, Subject] = {
    one.name: one
    for one in (
        Subject(
            name="fashion-resnet34",
            metric="accuracy",
            load=partial(_fashion, "fashion-resnet34"),
            way="refined",
            training=_pictures,
        ),
        Subject(
            name="fashion-resnext",
            metric="accuracy",
            load=partial(_fashion, "fashion-resnext"),
            way="refined",
            whole=(2.0, 10 / 3, 5.0, 8.0),
            training=_pictures,
        ),
        Subject(
            name="efficientnet-lite0",
            metric="agreement",
            load=partial(_folded, "efficientnet-lite0"),
            way="curvature",
            ratios=(5.0, 6.5, 8.0),
            bits=(3, 4, 5, 6, 8),
            kinds=NO_TENSORS,
        ),
        Subject(
            name="minilm",
            metric="spearman",
            load=partial(_plain, "minilm"),
            way="curvature",
            ratios=(5.0, 6.5, 8.0, 10.0),
            bits=(3, 4, 5, 6, 8),
            kinds=NO_TENSORS,
        ),
        Subject(
            name="smollm2",
            metric="loss",
            load=_smollm2,
            way="curvature",
            ratios=(5.0, 6.5, 8.0),
            bits=(3, 4, 6),
            kinds=("bits", "formats", "ranks", "blocks"),
            fast=True,
            apart={r"re:.*embed_tokens": EMBEDDING},
        ),
    )
}


def parameters(workload: Workload) -> int:
    """Numbers that the network was trained with, shared ones once."""
    return sum(parameter.numel() for parameter in workload.model.parameters())
