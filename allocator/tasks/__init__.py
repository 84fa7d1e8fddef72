"""What a network is asked to do: how logits, loss and metrics come out of a batch. Built in: see `BUILT_IN`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from allocator.errors import UsageError

if TYPE_CHECKING:
    from allocator.tasks.protocol import Task

BUILT_IN: dict[str, str] = {
    "classification": "allocator.tasks.classification:Classification",
    "causal_lm": "allocator.tasks.causal_lm:CausalLm",
    "embedding": "allocator.tasks.embedding:Embedding",
}


def task_named(name: str) -> Task:
    """The built-in task of that name with its default options (imports torch).

    Raises:
        UsageError: no built-in task bears the name.
    """
    if name not in BUILT_IN:
        raise UsageError(f"no task is named {name!r}: take one of {', '.join(BUILT_IN)}, or pass a Task object")
    module, _, attribute = BUILT_IN[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task


__all__ = ["BUILT_IN", "task_named"]
