"""Simulated annealing in many chains at once, on the objective or on a measured loss of the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import ALL
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import BoolArray, FloatArray, IntArray
from solvers._beginnings import beginnings
from solvers._driver import driven
from solvers._fitness import Measure, Meter, OutOfTimeError, as_fitness
from solvers._ground import Ground
from solvers._incumbent import Incumbent
from solvers._moves import NEAR, Switch, switch, warm_switch
from solvers._population import Population, Sums
from solvers._state import StateFile, read, written

STRETCH = 1000  # steps between two writings of the state; sums are added up afresh there
SAMPLED = 64  # steps whose losses give the first temperature
LADDER = (1.0, 0.1, 0.01)  # of it, for one chain after another: no single temperature suits all problems
BEGINNINGS = 8
EACH, FEWEST, MOST = 40, 500, 10_000  # steps by default: for each group, at least, at most


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """Chains of random changes of one or two groups, a worse one taken with probability exp(−Δ/T), T falling.

    Kirkpatrick, Gelatt and Vecchi, 1983. Every change keeps all rows: one group changes at random, and of all that 16
    others may answer so that the rows hold, or no answer, one is drawn in proportion to exp(−objective/T) (under a
    fitness, where that would cost a hundred measurements, at random). The chains are the restarts, run side by side:
    they begin at a greedy allocation (or the caller's start) and random repaired ones, and at the mean Δ of sampled
    changes for the worse, a tenth and a hundredth of it in turn; T falls geometrically to `end` of that. Iterations
    decide, not time: equal seeds give equal answers.

    steps: changes proposed to each chain; 0 for 40 for each group, between 500 and 10,000.
    restarts: chains.
    end: last temperature over the first.
    state: path of a file that is written every 1,000 steps (with `fitness` after each step) and gone on from if it is
        there.
    fitness: measured loss of the whole model, (choice int32 [G] of the stated problem, None) → float, less is better;
        each step is then a measurement for each chain, at most (steps + 2)·restarts in all, and `steps` has to be
        given. The answer is the fittest allocation. In Python only; written down by its name.
    """

    steps: int = 0
    restarts: int = 9
    end: float = 1e-3
    state: str = ""
    fitness: Measure | None = None

    name: ClassVar[str] = "annealing"
    features: ClassVar[frozenset[str]] = ALL - {"same_choice"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps={self.steps}: give 0 or more")
        if self.restarts < 1:
            raise ValueError(f"restarts={self.restarts}: give 1 or more")
        if not 0 < self.end <= 1:
            raise ValueError(f"end={self.end}: give a share above 0 and at most 1")
        object.__setattr__(self, "fitness", as_fitness(self.fitness))
        if self.fitness is not None and not self.steps:
            raise ValueError("steps=0: with a fitness say how many, each is one measurement for each restart")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The best allocation that any chain comes by."""
        return driven(lambda ground, state: _Chains(self, ground, limits, state), self, problem, limits, start)


class _Chains:
    """The chains with their scores (objective or fitness, tie) and first temperatures [C]."""

    def __init__(self, options: Annealing, ground: Ground, limits: Limits, state: StateFile) -> None:
        self.options, self.ground, self.limits, self.state = options, ground, limits, state
        self.rng = np.random.Generator(np.random.PCG64(limits.seed))
        fitness = as_fitness(options.fitness)
        self.meter = None if fitness is None else Meter(fitness, limits, 0)
        self.steps = options.steps or min(max(EACH * ground.problem.group_count, FEWEST), MOST)
        self.step = self.evaluations = 0
        self.of_start = self.lowest = np.inf
        self.best: Incumbent | None = None
        self.chains = Population(ground, np.zeros((0, ground.problem.group_count), np.int64))
        self.score = self.tie = self.warmth = np.zeros(0)

    def begin(self, start: IntArray | None) -> bool:
        """Chains at their beginnings, and the first temperatures; False where no feasible allocation was found."""
        options = self.options
        rows = beginnings(self.ground, start, min(options.restarts, BEGINNINGS), self.rng, self.limits)
        if not len(rows):
            return False
        self.best = Incumbent(self.ground.problem, self.limits, rows[0], None if self.meter is None else (np.inf, 0.0))
        firsts = Population(self.ground, rows)
        scores, ties = self._scores(firsts)
        self.of_start = float(scores[0])
        for member in range(len(rows)):
            self._offer(rows[member], float(scores[member]))
        which = np.arange(options.restarts) % len(rows)
        self.chains, self.score, self.tie = firsts.take(which), scores[which], ties[which]
        ladder = np.array(LADDER)[np.arange(options.restarts) % len(LADDER)]
        self.warmth = np.zeros(options.restarts)
        self.warmth = ladder * (self._sampled() if len(self.ground.movable) else 0.0)
        self._save()
        return True

    def resume(self, earlier: dict[str, Any]) -> bool:
        """Go on from the state of an earlier run."""
        with self.state.reading():
            self.step, self.evaluations = earlier["step"], earlier["evaluations"]
            self.rng.bit_generator.state = earlier["rng"]
            self.chains = Population(self.ground, self.state.rows(earlier["chains"]))
            self.score, self.tie, self.warmth = (read(earlier[key]) for key in ("scores", "ties", "warmth"))
            score = read(earlier["best_score"])
            self.of_start, self.lowest = (float(v) for v in read(earlier["marks"]))
            best = self.state.rows(earlier["best"])[0]
            self.best = Incumbent(self.ground.problem, self.limits, best, (float(score[0]), float(score[1])))
        return True

    @property
    def done(self) -> bool:
        """Whether all steps are over."""
        return self.step >= self.steps

    def advance(self) -> None:
        """Some steps, then the sums afresh and the state to disk."""
        last = min(self.step + (STRETCH if self.meter is None else 1), self.steps)
        while self.step < last:
            if self.limits.left <= 0:
                raise OutOfTimeError
            self._step(self.options.end ** (self.step / max(self.steps - 1, 1)))
            self.step += 1
        self.chains = Population(self.ground, self.chains.rows)
        self._save()

    def _step(self, share: float) -> None:
        """One proposal to each chain at that share of its first temperature."""
        kept, drawn, score, tie = self._propose(share)
        worse = self._worse(score, tie)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            chance = np.exp(-np.maximum(worse, 0.0) / (self.warmth * share))
        taken = drawn.holds & ((worse <= 0) | (self.rng.random(len(worse)) < chance))
        drawn.undo_rows(self.chains, ~taken)
        self.chains.sums.put_back(kept, ~taken)
        self.score, self.tie = np.where(taken, score, self.score), np.where(taken, tie, self.tie)
        first = np.lexsort((self.tie, self.score))[0]
        if self.score[first] <= self.lowest:
            self._offer(self.chains.rows[first], float(self.score[first]), float(self.tie[first]))

    def _propose(self, share: float = 1.0) -> tuple[Sums, Switch, FloatArray, FloatArray]:
        """A switch in every chain, what the sums were before it, and the scores after it."""
        everyone = np.arange(len(self.chains))
        kept = self.chains.sums.take(everyone)
        if self.meter is None:
            drawn = warm_switch(self.chains, self.warmth * share, self.rng, NEAR)
        else:
            drawn = switch(self.chains, everyone, self.rng, NEAR)
        score, tie = self._scores(self.chains, drawn.holds)
        return kept, drawn, score, tie

    def _worse(self, score: FloatArray, tie: FloatArray) -> FloatArray:
        """Δ of each chain's proposal; between equal objectives that of the tie."""
        with np.errstate(invalid="ignore"):
            return np.where(score == self.score, tie - self.tie, score - self.score)

    def _sampled(self) -> float:
        """Mean Δ of proposals for the worse from where the chains begin; 0 without any."""
        found: list[FloatArray] = []
        for _ in range(SAMPLED if self.meter is None else 1):
            kept, drawn, score, tie = self._propose()
            worse = self._worse(score, tie)[drawn.holds]
            found.append(worse[(worse > 0) & np.isfinite(worse)])
            drawn.undo_rows(self.chains, np.ones(len(score), bool))
            self.chains.sums.put_back(kept, np.ones(len(score), bool))
        every = np.concatenate(found)
        return float(every.mean()) if len(every) else 0.0

    def _scores(self, members: Population, which: BoolArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Objective and tie, or fitness and 0, of those that hold."""
        which = np.ones(len(members), bool) if which is None else which
        if self.meter is None:
            self.evaluations += int(which.sum())
            return members.objective(), members.tie()
        score = np.full(len(members), np.inf)
        self.meter.evaluations = self.evaluations
        score[which] = self.meter.measure(members.choices()[which], None)
        self.evaluations = self.meter.evaluations
        return score, np.zeros(len(members))

    def _offer(self, rows: IntArray, score: float, tie: float = 0.0) -> None:
        assert self.best is not None
        if score == self.lowest and tie >= self.best.score[1]:
            return
        if self.best.offer(rows, None if self.meter is None else score):
            self.lowest = min(self.lowest, score)

    def _save(self) -> None:
        if not self.state.path:
            return
        assert self.best is not None
        places = self.ground.problem.indptr[:-1]
        self.state.save(
            {
                "step": self.step,
                "evaluations": self.evaluations,
                "rng": self.rng.bit_generator.state,
                "chains": self.chains.choices().tolist(),
                "scores": written(self.score),
                "ties": written(self.tie),
                "warmth": written(self.warmth),
                "best": [(self.best.rows - places).tolist()],
                "best_score": written(np.array(self.best.score)),
                "marks": written(np.array([self.of_start, self.lowest])),
            }
        )

    def answer(self, limit: str | None) -> Answer:
        """The best so far."""
        if self.best is None:
            return Answer(limit=limit)
        spent = self.evaluations if self.meter is None else max(self.evaluations, self.meter.evaluations)
        told = {"fitness_of_start": self.of_start, "evaluations": spent, "steps": self.step}
        return self.best.answer(limit, told)
