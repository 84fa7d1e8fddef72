"""A measurement cut into shards that do not depend on each other, so that it can be resumed and spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from allocator.progress import Progress, resumed
from profilers._plan import Plan

Piece: TypeAlias = dict[str, Tensor]
"""What one shard found: named tensors, on the CPU when they are handed back."""


def sharded(
    plan: Plan, stage: str, owner: object, keys: Sequence[Any], work: Callable[[Plan, Any], Piece], progress: Progress
) -> Iterator[Piece]:
    """The piece of every key, in order; one that an earlier run left is taken from there.

    Shards run where ``plan.workers`` says. In another process ``plan`` is a copy: weights, data and menus are the same
    bit by bit, torch has as many threads, and ``requires_grad`` of the parameters and autograd's mode are as here;
    ``plan.memory`` begins empty, lives as long as the worker, and ``plan.parts`` keeps nothing. Whatever else a shard
    leans on (a choice of attention kernel, say), it has to set up itself. Each piece is kept when it arrives.

    Args:
        plan: passed to ``work``; what should survive from one shard to the next (an SVD, say) lies in ``plan.memory``.
        stage: for progress, and part of the name of a piece.
        owner: the statistic; its repr, which gives all its options, is part of the name of a piece.
        keys: plain small data: numbers, strings, tuples of them. A piece depends on plan, owner and key alone.
        work: a module's function or a bound method of a plain dataclass, so that it can be sent to another process.
        progress: told how many pieces were there, if any, and after every shard.
    """
    there = [plan.parts.has(stage, owner, key) for key in keys]
    done = sum(there)
    if done:
        resumed(progress, stage, done, len(keys))
    arriving = plan.workers.run(plan, work, [(place, key) for place, key in enumerate(keys) if not there[place]])
    early: dict[int, Piece] = {}
    try:
        for place, key in enumerate(keys):
            if there[place]:
                piece = plan.parts.take(stage, owner, key)
                if piece is None:  # damaged inside
                    piece = work(plan, key)
                    plan.parts.keep(piece, stage, owner, key)
                yield piece
                continue
            while place not in early:
                at, piece = next(arriving)
                plan.parts.keep(piece, stage, owner, keys[at])
                early[at] = piece
                done += 1
                progress(stage, done, len(keys))
            yield early.pop(place)
    finally:
        arriving.close()
