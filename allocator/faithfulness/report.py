"""What `fidelity` found: measured points, predictions of them, and a judgement of every predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.faithfulness.allocations import Region, Whole
from allocator.faithfulness.judging import Judgement
from allocator.faithfulness.predicting import Predictor
from allocator.problem import Problem
from allocator.statement import FloatArray, IntArray

FORMAT, VERSION = "allocation-fidelity", 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Fidelity:
    """Predictions held against measurements on evaluation data.

    Attributes:
        workload: its name.
        problem: the problem whose scores are judged.
        predictors: in the problem's order, parallel to the columns of ``single_predicted`` and ``whole_predicted``.
        regions: what random allocations were drawn from.
        singles: rows measured alone [S].
        single_loss, single_stderr: measured KL in nats per position [S].
        single_predicted: [predictors, S].
        wholes: whole allocations.
        whole_loss, whole_stderr, whole_predicted: the same for them.
        judgements: by predictor's name.
        samples: rows of evaluation data used.
        repeat: how well a second measurement on as many samples would order allocations within regions
            (`agreement.repeatability`): what a predictor can at best be held to.
        relative_stderr: median over whole allocations of stderr / loss.
        per: what a position is: sample, token, text.
        warnings: what to know before reading the numbers.
        about: seed, identity of the problem and the network, versions.
    """

    workload: str
    problem: Problem
    predictors: tuple[Predictor, ...]
    regions: tuple[Region, ...]
    singles: IntArray
    single_loss: FloatArray
    single_stderr: FloatArray
    single_predicted: FloatArray
    wholes: tuple[Whole, ...]
    whole_loss: FloatArray
    whole_stderr: FloatArray
    whole_predicted: FloatArray
    judgements: Mapping[str, Judgement]
    samples: int
    repeat: float
    relative_stderr: float
    per: str
    warnings: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data; equal measurements give equal data."""
        names = [predictor.name for predictor in self.predictors]
        problem = self.problem
        singles = [
            {
                "group": problem.group_names[int(problem.group_of[row])],
                "choice": problem.choice_name(row),
                "loss": float(self.single_loss[i]),
                "stderr": float(self.single_stderr[i]),
                "predicted": dict(zip(names, self.single_predicted[:, i].tolist(), strict=True)),
            }
            for i, row in enumerate(self.singles.tolist())
        ]
        wholes = [
            {
                "kind": whole.kind,
                **({"about": whole.about} if whole.about else {}),
                "choice": (whole.rows - problem.indptr[:-1]).tolist(),
                "loss": float(self.whole_loss[i]),
                "stderr": float(self.whole_stderr[i]),
                "predicted": dict(zip(names, self.whole_predicted[:, i].tolist(), strict=True)),
            }
            for i, whole in enumerate(self.wholes)
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            "workload": self.workload,
            **self.about,
            "samples": self.samples,
            "per": self.per,
            "relative_stderr": None if np.isnan(self.relative_stderr) else self.relative_stderr,
            "repeat": None if np.isnan(self.repeat) else self.repeat,
            "warnings": list(self.warnings),
            "regions": {region.name: region.about for region in self.regions},
            "predictors": {
                p.name: {
                    "score": p.score,
                    "interactions": p.interactions,
                    "in_nats": p.in_nats,
                    **self.judgements[p.name].to_json(),
                }
                for p in self.predictors
            },
            "groups": list(problem.group_names),
            "singles": singles,
            "wholes": wholes,
        }
