"""Certificates of problems with interactions: a point at which the loss is bent into sums, or a tree of such points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dual:
    """A separable function below the loss, and prices of the budget rows: a bound at any size.

    values: prices parallel to the problem's budgets: ≥ 0 for a max, ≤ 0 for a min. point: y for each eigenvector of
    the model (`allocator.quadratic`), read where its eigenvalue e is positive: ½ e c² ≥ y c − y²/(2e). Elsewhere the
    checker takes the secant. held: μ for each pair of positive value v, v·x_a·x_b ≥ μ (x_a + x_b − 1) with
    0 ≤ μ ≤ v; without it 0.
    """

    values: tuple[float, ...]
    point: NDArray[np.float64]
    held: NDArray[np.float64] | None = None
    kind: ClassVar[str] = "dual"

    def tidy(self) -> Dual:
        """The same with numbers of the right types; TypeError or ValueError where they cannot be read."""
        held = None if self.held is None else np.asarray(self.held, np.float64)
        return Dual(_numbers(self.values), np.asarray(self.point, np.float64), held)


@dataclass(frozen=True, eq=False)
class Stage:
    """A convex function below the loss on some choices, and a tree of restrictions each with a point and prices.

    All numbers of the loss are times 2^lift. rows [m]: the choices, ascending. S sides of budget rows: `side` [S] is
    the place in the rows of the linear view, `sign` [S] 1 for a max and −1 for a min, `unit` [S] > 0 what c·x ≤ limit
    is divided by once each group's least c is taken off. With F = factor [m, r], A = face [G, m], ν = spare [S, m]:

        loss(x) = q·x + ½|Fᵀx|² + Σ_{pairs} N_kl x_k x_l + Σ_s room_s·(ν_s·x),

    where the checker works out q and N, and drops what is positive. parent [K]: the node above, −1 at the root;
    branch [K]: the place in `rows` that is taken there, −1 for the same restriction again. point [K, m], price [K, S].
    """

    lift: int
    rows: NDArray[np.int64]
    side: NDArray[np.int64]
    sign: NDArray[np.float64]
    unit: NDArray[np.float64]
    factor: NDArray[np.float64]
    face: NDArray[np.float64]
    spare: NDArray[np.float64]
    parent: NDArray[np.int64]
    branch: NDArray[np.int64]
    point: NDArray[np.float64]
    price: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DualTree:
    """Trees one after the other: what the one leaves open is all that the next has to look at.

    values: prices of the budget rows, as at the root of the last. level: what is to be proved as a bound on the
    objective, where that is less than an optimum; None for the optimum.
    """

    stages: tuple[Stage, ...]
    values: tuple[float, ...] = ()
    level: float | None = None
    kind: ClassVar[str] = "tree"

    def tidy(self) -> DualTree:
        """The same with arrays of the right types and dimensions; TypeError or ValueError where they cannot be read."""
        stages = []
        for stage in self.stages:
            parts = {name: _array(getattr(stage, name), name) for name in DIMENSIONS}
            stages.append(Stage(lift=min(max(int(stage.lift), -2000), 2000), **parts))
        level = None if self.level is None else float(self.level)
        return DualTree(tuple(stages), _numbers(self.values), level)


DIMENSIONS = {"rows": 1, "side": 1, "sign": 1, "unit": 1, "factor": 2, "face": 2, "spare": 2} | {
    "parent": 1,
    "branch": 1,
    "point": 2,
    "price": 2,
}
WHOLE = frozenset({"rows", "side", "parent", "branch"})


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _array(given: Any, name: str) -> NDArray[Any]:
    array = np.asarray(given)
    if array.ndim != DIMENSIONS[name] or array.dtype.kind not in ("iu" if name in WHOLE else "iuf"):
        raise ValueError(f"{name} is not an array of numbers with {DIMENSIONS[name]} dimensions")
    return array.astype(np.int64 if name in WHOLE else np.float64)
