"""Measured logit deltas of single choices, and what they predict of whole allocations.

A profiler that measures KL(float ‖ one layer changed) sees the logits of the changed network anyway. Kept, their
differences δ = z(changed) − z(float) predict an allocation far better than the sum of the divergences does: to first
order deltas of different layers add, and KL(p ‖ softmax(z + Σ δ)) is then exact in how they meet in the softmax.
"""

from allocator.logit_sum.manifest import Manifest, StoredGroup
from allocator.logit_sum.positions import Positions
from allocator.logit_sum.predictor import LogitSum
from allocator.logit_sum.search import Improved, improve
from allocator.logit_sum.store import Writer

__all__ = ["Improved", "LogitSum", "Manifest", "Positions", "StoredGroup", "Writer", "improve"]
