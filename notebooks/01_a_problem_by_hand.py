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
# # A problem by hand, solved by every backend
#
# An allocation problem is plain data: groups, one choice each, what a choice costs and how much it hurts.
# No network is needed to state one, and none to solve it.

# %%
import allocator

# %% [markdown]
# ## Two layers and a budget that cannot hold
#
# Each layer can take 5 or 6 units, and only 7 are there. A search that trusts its own arithmetic may still
# hand something back. Here the answer is `infeasible`, and the core has proved it.


# %%
def layer(name, losses, costs, resource="units"):
    choices = [
        {"name": f"{bits}bit", "cost": {resource: cost}, "score": {"error": loss}}
        for bits, loss, cost in zip((2, 4, 8), losses, costs, strict=False)
    ]
    return {"name": name, "choices": choices}


impossible = {
    "format": "allocation-problem",
    "version": 1,
    "groups": [layer("a", (0.9, 0.1), (5, 6)), layer("b", (0.7, 0.2), (5, 6))],
    "budgets": [{"resource": "units", "max": 7}],
}
answer = allocator.solve(impossible)
print(answer.status, answer.certificate, answer.reasons)
assert answer.status == "infeasible"

# %% [markdown]
# ## Six layers, every backend
#
# Losses and sizes differ by layer; that is all an allocator lives on. `uniform` is what one does without it.

# %%
sizes = {"stem": 400, "block1": 3600, "block2": 3600, "block3": 14400, "neck": 7200, "head": 1000}
steepness = {"stem": 3.0, "block1": 0.8, "block2": 1.1, "block3": 0.3, "neck": 0.4, "head": 2.5}
problem = allocator.Problem.from_rows(
    {
        "format": "allocation-problem",
        "version": 1,
        "resources": {"bytes": {"unit": "byte"}},
        "groups": [
            layer(
                name,
                losses=[steepness[name] * 4.0**-bits * n**0.5 for bits in (2, 4, 8)],
                costs=[n * bits // 8 for bits in (2, 4, 8)],
                resource="bytes",
            )
            | {"weights": n}
            for name, n in sizes.items()
        ],
        "budgets": [{"resource": "bytes", "max": 12_000}],
    }
)
problem

# %%
rows = allocator.compare({"six layers": problem}, "all")
print(f"{'backend':18} {'status':10} {'objective':>12} {'bound':>12} {'gap':>8}")
for row in rows:
    if row.error is None:
        gap = "" if row.gap is None else f"{row.gap:.3f}"
        bound = "" if row.proven_bound is None else f"{row.proven_bound:.6f}"
        print(f"{row.solver:18} {row.status:10} {row.objective:12.6f} {bound:>12} {gap:>8}")
    else:
        print(f"{row.solver:18} {row.error}")

# %% [markdown]
# `status` is what the core has proved from the raw numbers; a backend's own claim never becomes a status.
# The exact backends agree, and the bound of the others says how far they may be from the best.

# %%
exact = [r.objective for r in rows if r.status == "optimal"]
assert exact
assert max(exact) - min(exact) < 1e-9
assert not any(r.wrong for r in rows)

# %% [markdown]
# ## The same network, other questions
#
# Budgets are rows; several may hold at once, and what is minimised may be a resource: the smallest model
# whose loss stays under a limit.

# %%
for budget in ("8000", "3.5bits", "50%"):
    s = allocator.solve(problem, budgets=f"bytes={budget}")
    print(f"{budget:>8}: loss {s.loss:.5f}, {s.totals['bytes']} bytes, multiplier {s.multipliers[0]:.2e}")

# %%
from allocator.problem import Budget

smallest = problem.replace(minimize={"bytes": 1.0}, budgets=(Budget(loss=True, max=0.5),))
s = allocator.solve(smallest)
print(s.status, s.totals, s.loss)
print(dict(s.choices))
