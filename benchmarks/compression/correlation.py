"""How well a network's similarities follow people's: Spearman's correlation, of two networks on the same pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from allocator.statement import FloatArray
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured, correlation, ranks
from allocator.tasks.protocol import PairTask
from allocator.workload import Workload

DRAWS = 2000


def similarities(workload: Workload, network: Module) -> FloatArray | None:
    """[3, M]: what people gave, the network's, the float one's, of the evaluation data; None for no pairs."""
    task = workload.task
    if not isinstance(task, PairTask):
        return None
    columns: list[Tensor] = []
    with untouched(workload.model), untouched(network), torch.no_grad():
        for batch in workload.evaluation:
            (own, given), (base, _) = (
                task.similarity(task.logits(one, batch), batch) for one in (network, workload.model)
            )
            columns.append(torch.stack([given, own, base]))
    return torch.cat(columns, 1).double().numpy()


def spearman(pairs: FloatArray) -> tuple[Measured, Measured]:
    """Of the network, and less that of the float one: its standard error by a bootstrap of pairs, seed 0."""
    given, own, base = torch.from_numpy(pairs)
    value = correlation(ranks(own), ranks(given))
    gap = value.value - correlation(ranks(base), ranks(given)).value
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        g, o, b = (
            ranks(column) for column in torch.from_numpy(pairs[:, rng.integers(pairs.shape[1], size=pairs.shape[1])])
        )
        drawn.append(correlation(o, g).value - correlation(b, g).value)
    return value, Measured(gap, float(np.std(drawn)))
