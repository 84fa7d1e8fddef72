"""How well a network does its task, and how far it has moved from another one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from allocator.progress import Progress, silent, told
from allocator.tasks.guard import untouched
from allocator.tasks.positions import divergence, per_sample
from allocator.tasks.protocol import PairTask
from allocator.workload import Workload


@dataclass(frozen=True)
class Measured:
    """A value and its standard error over samples; NaN where one sample says nothing about the error."""

    value: float
    stderr: float


def ratio(sums: Tensor, counts: Tensor) -> Measured:
    """Σ sums / Σ counts [N] with the standard error of a ratio estimate: s² = Σ (sum_n − R·count_n)² / (N−1).

    With equal counts this is the ordinary standard error of a mean.
    """
    n, mass = len(sums), float(counts.sum())
    value = float(sums.sum()) / mass if mass else math.nan
    if n < 2 or not mass:
        return Measured(value, math.nan)
    spread = float(((sums - value * counts) ** 2).sum()) / (n - 1)
    return Measured(value, math.sqrt(n * spread) / mass)


def ratios(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(values, standard errors) [M] of `ratio` for each column of sums [N, M]."""
    n, mass = len(sums), float(counts.sum())
    nothing = sums.new_full(sums.shape[1:], math.nan)
    values = sums.sum(0) / mass if mass else nothing
    if n < 2 or not mass:
        return values, nothing
    spread = (sums - values * counts.unsqueeze(1)).square_().sum(0) / (n - 1)
    return values, (n * spread).sqrt_() / mass


def correlation(first: Tensor, second: Tensor) -> Measured:
    """Pearson correlation of two columns [M] with the standard error (1 − r²) / √(M − 1) of normal theory."""
    a, b = first - first.mean(), second - second.mean()
    size = float((a @ a) * (b @ b))
    if len(a) < 2 or size == 0:
        return Measured(math.nan, math.nan)
    r = float(a @ b) / math.sqrt(size)
    return Measured(r, (1 - r * r) / math.sqrt(len(a) - 1))


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0 in float64, ties sharing their mean rank: what Spearman's correlation correlates."""
    _, inverse, counts = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double() - 1
    shared: Tensor = last - (counts.double() - 1) / 2
    return shared[inverse]


def measure(
    workload: Workload,
    model: Module | None = None,
    reference: Module | None = None,
    *,
    batches: Iterable[object] | None = None,
    progress: Progress = silent,
) -> dict[str, Measured]:
    """Metrics of ``model`` (default: the workload's own) on the evaluation data, each with its standard error.

    Besides the task's metrics: ``perplexity`` = exp(loss) of a language model; ``spearman`` and ``pearson`` of a task
    with pairs; and with a ``reference`` network ``kl`` = mean KL(reference ‖ model) in nats per position and
    ``agreement`` = the share of positions where both rank the same class first.

    Args:
        workload: gives the task, the data and the default model.
        model: the network judged; left as it was.
        reference: the network it is compared with, usually a copy made before compression.
        batches: other data than ``workload.evaluation``.
        progress: told after every batch.
    """
    task, judged = workload.task, workload.model if model is None else model
    columns: dict[str, list[tuple[Tensor, Tensor]]] = {}
    pairs: list[tuple[Tensor, Tensor]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for network in [judged] if reference is None else [judged, reference]:
            stack.enter_context(untouched(network))
        for batch in told(progress, "judging", workload.evaluation if batches is None else batches):
            logits = task.logits(judged, batch)
            rows = task.metrics(logits, batch)
            if reference is not None:
                base, mask = task.logits(reference, batch), task.mask(batch)
                rows["kl"] = per_sample(divergence(base, logits), mask)
                rows["agreement"] = per_sample(base.argmax(-1) == logits.argmax(-1), mask)
            for name, row in rows.items():
                columns.setdefault(name, []).append(row)
            if isinstance(task, PairTask):
                pairs.append(task.similarity(logits, batch))
    results = {
        name: ratio(torch.cat([s for s, _ in rows]), torch.cat([c for _, c in rows])) for name, rows in columns.items()
    }
    if task.per == "token":
        loss = results["loss"]
        results["perplexity"] = Measured(math.exp(loss.value), math.exp(loss.value) * loss.stderr)
    if pairs:
        predicted, given = torch.cat([p for p, _ in pairs]), torch.cat([g for _, g in pairs])
        results["spearman"] = correlation(ranks(predicted), ranks(given))
        results["pearson"] = correlation(predicted, given)
    return results


def evaluate(
    workload: Workload, model: Module | None = None, reference: Module | None = None, *, progress: Progress = silent
) -> dict[str, dict[str, float | None]]:
    """`measure` as plain JSON data: ``{metric: {"value": …, "stderr": …}}``, null where a number is undefined."""
    return {
        name: {key: number if math.isfinite(number) else None for key, number in vars(measured).items()}
        for name, measured in measure(workload, model, reference, progress=progress).items()
    }
