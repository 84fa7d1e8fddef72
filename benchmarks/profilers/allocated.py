"""What an allocation is worth that a predictor leads to: test loss at three bits on average."""

from __future__ import annotations

from collections.abc import Mapping

from allocator.evaluation import resource_use
from benchmarks.profilers.bench import Bench
from benchmarks.profilers.predictors import LABEL
from benchmarks.profilers.truth import losses, wholes


def allocated(name: str, bench: Bench) -> Mapping[str, float]:
    """``share`` = (uniform − allocated) / (uniform − float): of uniform's excess loss over all held-out data, removed.

    The budget is what the uniform allocation of three bits stores, in bytes. Beside it the losses, accuracies and
    bytes themselves.
    """
    subject = bench.subject
    budget = subject.budget(LABEL)
    choice = bench.predictor(name).allocate(budget)
    plain = subject.plain
    plains = {"uniform": subject.uniform(LABEL), "allocated": choice}
    found = {"float": losses(subject.workload, None)}
    for key, one in zip(plains, wholes(plain, plains.values()), strict=True):
        found[key] = losses(subject.workload, one)
    values = {f"{key}_{metric}": value for key, one in found.items() for metric, value in one.items()}
    excess = values["uniform_loss"] - values["float_loss"]
    values["share"] = (values["uniform_loss"] - values["allocated_loss"]) / excess
    values["budget_bytes"] = budget
    values["bytes"] = float(resource_use(plain, plain.indptr[:-1] + choice, "weight_bytes", None))
    return values
