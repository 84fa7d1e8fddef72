# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Profile, solve, apply
#
# A trained network goes in; per-layer statistics come out as a problem; a solver chooses; the choice is applied,
# stored, loaded again and measured on data that the profiler has not seen.

# %%
import copy
import tempfile

import torch

import allocator
from allocator.demos import digits
from allocator.tasks.measurement import evaluate

torch.set_num_threads(1)
workload = digits.workload()
evaluate(workload)

# %% [markdown]
# ## Profile
#
# The space says what may be done to each layer; here bits and ranks stand in one list. `kl` switches one choice
# at a time and measures how far the network's predictions move, in nats.

# %%
space = allocator.Space.simple(bits=(2, 3, 4, 8), ranks=(0.25, 0.5))
problem = allocator.profile(workload, space, profiler=("kl", "weight_error"))
for group in problem.groups[:2]:
    print(group.name, group.weights, "weights")
    for choice in group.choices:
        print(f"   {choice.name:12} {choice.cost['weight_bytes']:>6} bytes  kl {choice.score['kl']:.5f}")

# %% [markdown]
# ## Solve
#
# The budget lies halfway between uniform 2-bit and uniform 3-bit rounding: uniform has to fall back to 2 bits.


# %%
def uniform_bytes(label):
    places = [next(i for i, c in enumerate(g.choices) if c.label == label) for g in problem.groups]
    return problem.evaluate(places).totals["weight_bytes"]


budget = (uniform_bytes("int2") + uniform_bytes("int3")) // 2
best = allocator.solve(problem, budgets={"weight_bytes": budget})
print(best)
dict(best.choices)

# %% [markdown]
# ## Apply, store, load, measure
#
# The checkpoint is as small as predicted, and the loaded network computes what the applied one does.

# %%
applied = allocator.apply_(copy.deepcopy(workload.model), best)
with tempfile.TemporaryDirectory() as folder:
    info = allocator.compress(workload.model, best, folder)
    loaded = allocator.load_compressed(copy.deepcopy(workload.model), folder)
images, _ = workload.evaluation[0]
with torch.no_grad():
    assert torch.equal(applied(images), loaded(images))
predicted = best.totals["weight_bytes"]
print(f"predicted {predicted} bytes, stored {info.bytes - info.described}, and {info.described} that describe them")
assert info.bytes - info.described == predicted

# %%
plain = allocator.solve(problem, "uniform", budgets={"weight_bytes": budget})
for name, solution in (("uniform", plain), (best.solver["name"], best)):
    network = allocator.apply_(copy.deepcopy(workload.model), solution)
    found = evaluate(workload, network, workload.model)
    print(f"{name:12} KL {found['kl']['value']:.4f} ± {found['kl']['stderr']:.4f}", end="   ")
    print(f"accuracy {found['accuracy']['value']:.3f} ± {found['accuracy']['stderr']:.3f}")
