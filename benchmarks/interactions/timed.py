"""One call of `allocator.solve` under a clock, with the course of its incumbents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

import numpy as np
from numpy.typing import NDArray

import allocator
from allocator import Problem, Solution
from allocator.comparison import solver_from_text
from allocator.protocols import Solver
from benchmarks.interactions.pieces import Finding
from benchmarks.solvers.clock import Clock, Clocked, clocks_of, cpu_seconds

SAME = 1e-9
"""Of the objective: allocations this near are the same one, but for the order of sums."""
