"""Whether a network comes back from every installed profiler as it went in."""

from __future__ import annotations

import copy
import hashlib
import random
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.nn import Module

from allocator import profile, registry
from allocator.errors import AllocatorError
from allocator.tasks.batches import take
from allocator.workload import Workload
from benchmarks.profilers.bench import Bench

SAMPLES = 8


def untouched(bench: Bench) -> Mapping[str, float]:
    """``share`` of the installed profilers after which nothing differs, whether or not they came to an end.

    ``refused``: those that do not take the network. ``crashed``: those that ended in an error of another kind.

    Looked at: every bit of parameters, buffers and gradients, their identity, modes, requires_grad, hooks, and the
    random states of Python, numpy and torch. Each runs on eight samples, on a copy that is partly in training mode,
    partly frozen, and holds a gradient.
    """
    workload = bench.subject.workload
    first = take(next(iter(workload.calibration)), 0, SAMPLES)
    names = sorted(registry.entries("profilers"))
    same = refused = crashed = 0
    for name in names:
        model = awkward(workload.model)
        before = list(state(model))
        try:
            profile(Workload(model, [first], workload.evaluation, workload.task), bench.subject.space, name)
        except AllocatorError:
            refused += 1
        except Exception as error:  # whatever a plug-in does, the network must come back and the others be looked at
            crashed += 1
            print(f"{name} crashed on {bench.network}: {error!r}", file=sys.stderr)
        same += list(state(model)) == before
    return {"share": same / len(names), "profilers": len(names), "refused": refused, "crashed": crashed}


def awkward(model: Module) -> Module:
    """A copy in mixed modes, with a frozen parameter and a gradient."""
    other = copy.deepcopy(model).eval()
    modules = list(other.modules())
    modules[len(modules) // 2].train()
    parameters = list(other.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    return other


def state(model: Module) -> Iterator[object]:
    """Everything about a network, and about random numbers, that measuring it must not change."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        yield name, id(tensor), tensor.dtype, tensor.requires_grad, _digest(tensor)
        yield None if tensor.grad is None else (id(tensor.grad), _digest(tensor.grad))
    for name, module in model.named_modules():
        hooks = [len(table) for key, table in vars(module).items() if key.endswith("_hooks")]
        yield name, module.training, hooks, sorted(vars(module))
    yield _digest(torch.get_rng_state()), random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - the global state is what is watched


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
