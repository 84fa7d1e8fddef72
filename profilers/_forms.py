"""Stored forms that take long to make, made layer by layer before anything is measured."""

from __future__ import annotations

from allocator.progress import Progress
from profilers._plan import Plan
from profilers._shards import Piece, sharded

STAGE = "stored forms"


def make_forms(plan: Plan, progress: Progress) -> None:
    """Decompositions and fits of all choices, as shards of their own: resumed after a kill, and spread over workers.

    A measurement would make them on its way, inside its first shard and anew in every worker. Every target gets its
    own (`Target.forms`); workers that have a copy of the plan are sent another.
    """
    wanted = [place for place, target in enumerate(plan.targets) if target.missing()]
    if not wanted:
        return
    for place, piece in zip(wanted, sharded(plan, STAGE, STAGE, wanted, _made, progress), strict=True):
        plan.targets[place].take({int(name): form for name, form in piece.items()})
    plan.workers.forget()


def _made(plan: Plan, place: int) -> Piece:
    target = plan.targets[place]
    return {str(choice): form for choice, form in target.form(target.missing()).items()}
