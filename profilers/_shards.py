"""A measurement cut into shards that do not depend on each other, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from profilers._plan import Plan
from profilers._progress import Progress

Piece: TypeAlias = dict[str, Tensor]
"""What one shard found: named tensors."""


def sharded(
    plan: Plan, stage: str, owner: object, keys: Sequence[Any], work: Callable[[Plan, Any], Piece], progress: Progress
) -> Iterator[Piece]:
    """The piece of every key, in order; one that an earlier run left is taken from there.

    Args:
        plan: passed to ``work``; what should survive from one shard to the next (an SVD, say) lies in ``plan.memory``.
        stage: for progress, and part of the name of a piece.
        owner: the statistic; its repr, which gives all its options, is part of the name of a piece.
        keys: plain small data: numbers, strings, tuples of them. A piece depends on plan, owner and key alone.
        work: a module's function or a bound method of a plain dataclass, so that it can be sent to another process.
        progress: told after every shard.
    """
    for done, key in enumerate(keys):
        piece = plan.parts.take(stage, owner, key)
        if piece is None:
            piece = work(plan, key)
            plan.parts.keep(piece, stage, owner, key)
        progress(stage, done + 1, len(keys))
        yield piece
