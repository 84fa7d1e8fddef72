"""The lifted program through cvxpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from allocator.protocols import Limits
from allocator.statement import FloatArray
from solvers._convex import GOOD, run
from solvers._lift import Lift


def products_of(lifted: Lift, count: int, limits: Limits) -> tuple[FloatArray | None, float, dict[str, Any]]:
    """Parts of choices [count] or None, a lower bound on Σ value + Σ W, and statistics.

    maximise height subject to form − height·E₀₀ − Σ zero·A − Σ positive·A ⪰ 0, positive ≥ 0: the side of the
    multipliers, which alone make the bound; the products are its dual value.

    Raises:
        SolverError: no engine of cvxpy came to an end.
    """
    import cvxpy
    from scipy.sparse import csr_array

    cp: Any = cvxpy  # typed in parts only
    n = len(lifted.form)
    height, zero = cp.Variable(), cp.Variable(max(len(lifted.zero), 1))
    positive = cp.Variable(max(len(lifted.positive), 1), nonneg=True)
    corner = np.zeros((n * n, 1))
    corner[0] = 1.0
    left = lifted.form.reshape(-1) - csr_array(corner) @ cp.reshape(height, (1,), order="C")
    for part, forms in ((zero, lifted.zero), (positive, lifted.positive)):
        if len(forms):
            left = left - csr_array(forms.reshape(len(forms), -1).T) @ part
    matrix = cp.reshape(left, (n, n), order="C")
    semidefinite = (matrix + matrix.T) / 2 >> 0
    engine, status = run(cp.Problem(cp.Maximize(height), [semidefinite]), limits)
    statistics: dict[str, Any] = {"engine": engine, "relaxation": status, "order": n}
    if status not in GOOD:
        return None, -math.inf, statistics
    y = np.zeros(0) if not len(lifted.zero) else np.asarray(zero.value)
    z = np.zeros(0) if not len(lifted.positive) else np.asarray(positive.value)
    total = lifted.bound(float(height.value), y, z)
    products = semidefinite.dual_value
    if products is None or not np.isfinite(products).all() or products[0, 0] <= 0:
        return None, total, statistics
    x = np.zeros(count)
    x[lifted.free] = np.clip((lifted.basis @ (products[0] / products[0, 0]))[1:], 0.0, 1.0)
    return x, total, statistics
