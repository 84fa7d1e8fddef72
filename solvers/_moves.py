"""Level switches: one group goes up, another down, so that every row still holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocator.statement import BoolArray, FloatArray, IntArray
from solvers._population import Population

NEAR = 0.75  # share of an evolution's first changes that go to the next level
TRIES = 16  # groups that may answer a change in the annealing
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Switch:
    """What was proposed to each of some members: two groups, the rows they had, and whether all rows still hold."""

    members: IntArray
    groups: tuple[IntArray, IntArray]
    old: tuple[IntArray, IntArray]
    holds: BoolArray

    def undo_rows(self, population: Population, which: BoolArray) -> None:
        """The rows as they were, the later change first; the sums are the caller's."""
        members = self.members[which]
        for groups, old in ((self.groups[1], self.old[1]), (self.groups[0], self.old[0])):
            population.rows[members, groups[which]] = old[which]


def switch(population: Population, members: IntArray, rng: np.random.Generator, near: float) -> Switch:
    """Draw a switch for each of some (different) members and carry it out; where no row holds, only its first half.

    The first group, drawn at random, goes to another choice: with probability `near` to the next level up or down,
    levels being the choices in the order of their costs. A second group, drawn at random too, answers: a third of the
    time not at all, a third with a random one of its choices under which every row holds, a third with the dearest of
    those, which uses what the first change has left. One that has none leaves the switch without hold.
    """
    ground, count = population.ground, len(members)
    drawn = ground.movable[rng.integers(len(ground.movable), size=(2, count))]
    first, second = drawn[0], drawn[1]
    old = population.rows[members, first]
    population.change(members, first, _other(population, first, old, rng, near))
    kept = population.rows[members, second]
    rows, excess, _ = population.candidates(members, second)
    mode, pick = rng.random(count), rng.random(count)
    fits = excess == 0
    fits &= (mode >= 1 / 3)[:, None] | (rows == kept[:, None])
    fits &= (second != first)[:, None] | (rows == kept[:, None])
    hits = np.cumsum(fits, axis=1)
    found = hits[:, -1]
    wanted = np.where(mode < 2 / 3, (pick * found).astype(np.int64) + 1, found)
    place = np.argmax(hits >= np.maximum(wanted, 1)[:, None], axis=1)
    holds = found > 0
    new = np.where(holds, rows[np.arange(count), place], kept)
    moved = new != kept
    population.change(members[moved], second[moved], new[moved])
    return Switch(members, (first, second), (old, kept), holds)


def warm_switch(population: Population, warmth: FloatArray, rng: np.random.Generator, near: float) -> Switch:
    """A switch in every member whose second half is drawn by its objective: exp(−objective/T) at `warmth` T [P].

    The candidates are all choices of TRIES random groups under which every row holds, "no second change" among them.
    A drawing of that law is the candidate of least objective − T·Gumbel.
    """
    ground, count = population.ground, len(population)
    members = np.arange(count)
    first = ground.movable[rng.integers(len(ground.movable), size=count)]
    old = population.rows[members, first]
    population.change(members, first, _other(population, first, old, rng, near))
    groups = ground.movable[rng.integers(len(ground.movable), size=(count, TRIES))]
    owner = np.repeat(members, TRIES)
    rows, excess, (objective, tie) = population.candidates(owner, groups.reshape(-1), with_objective=True)
    kept = population.rows[owner, groups.reshape(-1)]
    fits = (excess == 0) & ((groups != first[:, None]).reshape(-1, 1) | (rows == kept[:, None]))
    noise = -np.log(-np.log(rng.random(rows.shape) + TINY) + TINY)
    with np.errstate(invalid="ignore"):
        drawn = np.where(fits, objective - np.repeat(warmth, TRIES)[:, None] * noise, np.inf)
    shape = (count, -1)
    place = np.lexsort((tie.reshape(shape), drawn.reshape(shape)), axis=1)[:, 0]
    second = groups[members, place // rows.shape[1]]
    holds = fits.reshape(shape)[members, place]
    kept = population.rows[members, second]
    new = np.where(holds, rows.reshape(shape)[members, place], kept)
    moved = new != kept
    population.change(members[moved], second[moved], new[moved])
    return Switch(members, (first, second), (old, kept), holds)


def _other(population: Population, groups: IntArray, old: IntArray, rng: np.random.Generator, near: float) -> IntArray:
    """Another free choice of each group: the next level, or any."""
    ground = population.ground
    first, many = ground.axis.starts[groups], ground.counts[groups]
    where = ground.level[old]
    step = np.where(rng.random(len(groups)) < 0.5, 1, -1)
    close = where + step
    close = np.where((close < 0) | (close >= many), where - step, close)
    far = rng.integers(0, many - 1)
    far = far + (far >= where)
    return np.asarray(ground.axis.order[first + np.where(rng.random(len(groups)) < near, close, far)])
