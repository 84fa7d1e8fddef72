"""Evolution by level switches that keep the budget, on the objective or on a measured loss of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import ALL
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray, IntArray
from solvers._beginnings import beginnings
from solvers._driver import driven
from solvers._fitness import Measure, Meter, OutOfTimeError, as_fitness
from solvers._ground import Ground
from solvers._incumbent import Incumbent
from solvers._moves import NEAR, switch
from solvers._population import Population
from solvers._state import StateFile, read, written


@dataclass(frozen=True, kw_only=True)
class Evolutionary:
    """Offspring by level switches, selected in stages, the best of parents and offspring going on (EvoPress).

    EvoPress: Sieberling, Kuznedelev, Kurtic and Alistarh, 2025 (2410.14649). A switch raises one group and lowers
    another so that every row still holds; the population starts from a greedy allocation (or the caller's start) and
    random repaired ones. Iterations decide, not time: equal seeds give equal answers.

    generations: rounds of offspring and selection.
    offspring: drawn in each generation; those equal to a parent or to each other are not looked at again.
    survivors: of each stage of selection, "16,4,1"; the last number is that of the parents kept.
    samples: share of the data that each stage measures on, as many numbers, the last 1. Of use with `fitness` only: the
        objective needs no stages.
    mutations: an offspring has min(a, b) switches, a and b drawn from 1 to this.
    starts: allocations to begin with.
    state: path of a file that is written after every generation and gone on from if it is there.
    fitness: measured loss of the whole model, (choice int32 [G] of the stated problem, sample) → float, less is better;
        `sample` is a share of the data below 1, or None for all of it. The answer is then the fittest allocation.
        A generation takes at most offspring + survivors (but the last number) measurements, the beginning as many
        with starts in place of offspring. In Python only; written down by its name.
    """

    generations: int = 150
    offspring: int = 128
    survivors: str = "16,4,1"
    samples: str = "0.015625,0.125,1"
    mutations: int = 3
    starts: int = 16
    state: str = ""
    fitness: Measure | None = None

    name: ClassVar[str] = "evolutionary"
    features: ClassVar[frozenset[str]] = ALL - {"same_choice"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for option in ("generations", "offspring", "mutations", "starts"):
            if (value := getattr(self, option)) < (0 if option == "generations" else 1):
                raise ValueError(f"{option}={value}: give {0 if option == 'generations' else 1} or more")
        object.__setattr__(self, "fitness", as_fitness(self.fitness))
        stages = self.stages
        kept, shares = [k for k, _ in stages], [s for _, s in stages]
        if kept[-1] < 1 or sorted(kept, reverse=True) != kept or kept[0] > self.offspring:
            raise ValueError(
                f"survivors={self.survivors!r}: give falling numbers from at most {self.offspring} down to 1"
            )
        if not all(0 < s <= 1 for s in shares) or shares[-1] != 1:
            raise ValueError(f"samples={self.samples!r}: give shares above 0 and at most 1, the last of them 1")

    @property
    def stages(self) -> list[tuple[int, float]]:
        """Survivors and share of the data of each stage.

        Raises:
            ValueError: not numbers, or not equally many.
        """
        try:
            kept = [int(text) for text in str(self.survivors).split(",")]
            shares = [float(text) for text in str(self.samples).split(",")]
        except ValueError:
            raise ValueError(
                f"survivors={self.survivors!r}, samples={self.samples!r}: give numbers with commas between them"
            ) from None
        if len(kept) != len(shares):
            raise ValueError(f"survivors={self.survivors!r} and samples={self.samples!r}: give equally many numbers")
        return list(zip(kept, shares, strict=True))

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The fittest allocation that the generations bring forth."""
        return driven(lambda ground, state: _Evolution(self, ground, limits, state), self, problem, limits, start)


class _Evolution:
    """The parents, best first, with their scores: [P, 2] of (objective, tie), or of (fitness, 0)."""

    def __init__(self, options: Evolutionary, ground: Ground, limits: Limits, state: StateFile) -> None:
        self.options, self.ground, self.limits, self.state = options, ground, limits, state
        self.rng = np.random.Generator(np.random.PCG64(limits.seed))
        fitness = as_fitness(options.fitness)
        self.meter = None if fitness is None else Meter(fitness, limits, 0)
        self.parents = np.zeros((0, ground.problem.group_count), np.int64)
        self.scores = np.zeros((0, 2))
        self.best: Incumbent | None = None
        self.generation = self.evaluations = 0
        self.of_start = np.inf

    def begin(self, start: IntArray | None) -> bool:
        """The first parents; False where no feasible allocation was found."""
        rows = beginnings(self.ground, start, self.options.starts, self.rng, self.limits)
        if not len(rows):
            return False
        problem = self.ground.problem
        if self.meter is None:
            self.best = Incumbent(problem, self.limits, rows[0])
        else:
            self.best = Incumbent(problem, self.limits, rows[0], (np.inf, 0.0))
            score = self.meter.measure(rows[:1] - problem.indptr[:-1], None)[0]
            self.best.score = (float(score), 0.0)
        self.parents, self.scores = rows[:1], np.array([self.best.score])
        self.of_start = self.best.score[0]
        self.evaluations += 1
        self._select(rows[1:])
        self._save()
        return True

    def resume(self, earlier: dict[str, Any]) -> bool:
        """Go on from the state of an earlier run."""
        with self.state.reading():
            self.generation, self.evaluations = earlier["generation"], earlier["evaluations"]
            self.rng.bit_generator.state = earlier["rng"]
            self.parents = self.state.rows(earlier["parents"])
            self.scores = read(np.array(earlier["scores"], object).reshape(-1)).reshape(-1, 2)
            score = read(earlier["best_score"])
            self.of_start = float(read([earlier["start_score"]])[0])
            best = self.state.rows(earlier["best"])[0]
            self.best = Incumbent(self.ground.problem, self.limits, best, (float(score[0]), float(score[1])))
        return True

    @property
    def done(self) -> bool:
        """Whether all generations are over."""
        return self.generation >= self.options.generations

    def advance(self) -> None:
        """One generation; nothing of it is kept where the time runs out in the middle."""
        if self.limits.left <= 0:
            raise OutOfTimeError
        options, rng = self.options, self.rng
        parents = Population(self.ground, self.parents)
        children = parents.take(rng.integers(len(parents), size=options.offspring))
        switches = rng.integers(1, options.mutations + 1, size=(2, options.offspring)).min(axis=0)
        for done in range(options.mutations):
            members = np.flatnonzero(switches > done)
            if not len(members):
                break
            kept = children.sums.take(np.arange(len(children)))
            drawn = switch(children, members, rng, NEAR)
            failed = np.zeros(len(children), bool)
            failed[members] = ~drawn.holds
            drawn.undo_rows(children, ~drawn.holds)
            children.sums.put_back(kept, failed)
        self._select(children.rows[children.excess() == 0])
        self.generation += 1
        self._save()

    def _select(self, rows: IntArray) -> None:
        """The stages: the fewer are left, the more of the data they are measured on; then among the parents."""
        known = {row.tobytes() for row in self.parents}
        fresh = {row.tobytes(): i for i, row in reversed(list(enumerate(rows))) if row.tobytes() not in known}
        rows = rows[sorted(fresh.values())]
        before = self.evaluations
        if self.meter is None:
            scores = self._objectives(rows)
        else:
            self.meter.evaluations = before
            rows, scores = self._measured(rows)
        pool, values = np.concatenate([rows, self.parents]), np.concatenate([scores, self.scores])
        order = np.lexsort((values[:, 1], values[:, 0]))  # stable: of equals the younger ones go on
        keep = [i for i in order.tolist() if i >= len(rows) or self._feasible(pool[i])]
        keep = keep[: self.options.stages[-1][0]]
        self.evaluations = before + len(rows) if self.meter is None else self.meter.evaluations
        self.parents, self.scores = pool[keep], values[keep]
        assert self.best is not None
        self.best.offer(self.parents[0], None if self.meter is None else float(self.scores[0, 0]))

    def _objectives(self, rows: IntArray) -> FloatArray:
        members = Population(self.ground, rows)
        return np.stack([members.objective(), members.tie()], axis=1)

    def _measured(self, rows: IntArray) -> tuple[IntArray, FloatArray]:
        assert self.meter is not None
        rows = np.array([r for r in rows if self._feasible(r)], np.int64).reshape(-1, rows.shape[1])
        scores = np.zeros(0)
        places = self.ground.problem.indptr[:-1]
        stages = self.options.stages
        for stage, (kept, share) in enumerate(stages):
            if not len(rows):
                break
            scores = self.meter.measure(rows - places, None if share == 1 else share)
            if stage < len(stages) - 1:
                best = np.argsort(scores, kind="stable")[:kept]
                rows, scores = rows[best], scores[best]
        return rows, np.stack([scores, np.zeros(len(scores))], axis=1)

    def _feasible(self, rows: IntArray) -> bool:
        return self.ground.problem.evaluate(rows - self.ground.problem.indptr[:-1]).feasible

    def _save(self) -> None:
        if not self.state.path:
            return
        assert self.best is not None
        places = self.ground.problem.indptr[:-1]
        self.state.save(
            {
                "generation": self.generation,
                "evaluations": self.evaluations,
                "rng": self.rng.bit_generator.state,
                "parents": (self.parents - places).tolist(),
                "scores": written(self.scores.reshape(-1)),
                "best": [(self.best.rows - places).tolist()],
                "best_score": written(np.array(self.best.score)),
                "start_score": written(np.array([self.of_start]))[0],
            }
        )

    def answer(self, limit: str | None) -> Answer:
        """The fittest so far."""
        if self.best is None:
            return Answer(limit=limit)
        spent = self.evaluations if self.meter is None else max(self.evaluations, self.meter.evaluations)
        told = {"fitness_of_start": self.of_start, "evaluations": spent, "generations": self.generation}
        return self.best.answer(limit, told)
