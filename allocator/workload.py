"""A network together with the data and the task by which its compression is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from allocator.errors import UsageError

if TYPE_CHECKING:
    from torch.nn import Module

    from allocator.tasks.protocol import Batch, Task

Part = Literal["calibration", "evaluation"]


@dataclass(frozen=True, eq=False)
class Workload:
    """A model, what it is asked to do, the data that profilers may look at and the data that only judges.

    Attributes:
        model: the float network. Profilers leave it bit-identical.
        calibration: batches that profilers see; a list, or anything that gives the same batches at each iteration.
        evaluation: batches that only measure the result; shares no sample with ``calibration``.
        task: a `Task`, or the name of a built-in one (`allocator.tasks.BUILT_IN`).
        name: for reports and provenance.

    Raises:
        UsageError: an unknown task name; data that can be read only once.
    """

    model: Module
    calibration: Iterable[Batch]
    evaluation: Iterable[Batch]
    task: Task
    name: str = "workload"

    def __init__(
        self,
        model: Module,
        calibration: Iterable[Batch],
        evaluation: Iterable[Batch],
        task: Task | str = "classification",
        name: str = "workload",
    ) -> None:
        for part, data in (("calibration", calibration), ("evaluation", evaluation)):
            if isinstance(data, Iterator):
                raise UsageError(
                    f"the {part} data of {name} is an iterator ({type(data).__name__}) and can be read only once: "
                    "pass a list of batches, or an iterable that starts again"
                )
        if isinstance(task, str):
            from allocator.tasks import task_named

            task = task_named(task)
        for key, value in (
            ("model", model), ("calibration", calibration), ("evaluation", evaluation), ("task", task), ("name", name),
        ):  # fmt: skip
            object.__setattr__(self, key, value)

    def digests(self, part: Part = "calibration") -> list[str]:
        """sha256 of every sample of a part, in order: over type, shape and bytes of all its tensors."""
        from allocator.tasks.batches import digests

        return [digest for batch in getattr(self, part) for digest in digests(batch)]

    def check(self) -> dict[Part, list[str]]:
        """The digests of both parts, once it is sure that the data can be trusted.

        Raises:
            UsageError: calibration data differs between two iterations (a shuffling loader, random augmentation);
                calibration and evaluation share samples; a part is empty.
        """
        first, again, held_out = self.digests("calibration"), self.digests("calibration"), self.digests("evaluation")
        for part, digests in (("calibration", first), ("evaluation", held_out)):
            if not digests:
                raise UsageError(f"the {part} data of {self.name} is empty: give at least one batch")
        if first != again:
            moved = sum(a != b for a, b in zip(first, again, strict=False)) + abs(len(first) - len(again))
            raise UsageError(
                f"the calibration data of {self.name} is not the same when read twice: {moved} of {len(first)} samples "
                "differ. Turn shuffling and random augmentation off, or pass a list of batches"
            )
        seen = set(first)
        shared = sum(digest in seen for digest in held_out)
        if shared:
            raise UsageError(
                f"{shared} of {len(held_out)} evaluation samples of {self.name} are also calibration samples: "
                "what was optimised on them would be judged by them. Split the data so that no sample is in both"
            )
        return {"calibration": first, "evaluation": held_out}
