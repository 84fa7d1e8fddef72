"""Evolution against every allocation there is."""

import copy
import itertools

import numpy as np
import pytest

import allocator
from allocator.methods.running import run
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.tasks.measurement import measure
from allocator.workload import Workload

MENU = ({"kind": "quantize", "bits": 2}, {"kind": "quantize", "bits": 4}, {"kind": "keep", "dtype": "float32"})


def test_the_fittest_of_all_allocations_is_found(workload):
    """27 allocations of three layers, each applied and measured on the calibration data."""
    pinned = ("re:blocks.0.*", "blocks.1.up")
    wide = Space((*(Rule(modules=name, choices="pin") for name in pinned), Rule(choices=MENU)))
    problem = profile(workload, wide, "weight_error")
    limit = int(0.85 * problem.evaluate(problem.sizes - 1).totals["weight_bytes"])  # the last choice of each: all kept
    problem = problem.with_budget("weight_bytes", max=limit)
    free = [g for g in range(problem.group_count) if problem.sizes[g] > 1]
    assert len(free) == 3
    swapped = Workload(workload.model, workload.evaluation, workload.calibration, workload.task)
    found: dict = {}
    for places in itertools.product(range(3), repeat=3):
        choice = np.zeros(problem.group_count, np.int32)
        choice[free] = places
        if problem.evaluate(choice).feasible:
            rows = problem.indptr[:-1] + choice
            solution = {
                g.name: {"action": dict(g.choices[c].action), "modules": list(g.modules)}
                for g, c in zip(problem.groups, choice, strict=True)
            }
            applied = allocator.apply_(copy.deepcopy(workload.model), solution)
            found[tuple(rows)] = measure(swapped, applied, workload.model)["kl"].value
    assert 3 < len(found) < 27  # the budget says something
    evolved = run(workload, "evopress[generations=5,offspring=16]", budgets=f"weight_bytes={limit}", space=wide)
    taken = tuple(evolved.chosen.solution.allocation.rows())
    assert taken == min(found, key=found.__getitem__)
    assert evolved.chosen.predicted == pytest.approx(found[taken], rel=1e-5)
