"""The mixed-integer program of a problem in words: named variables and rows, coefficients as text, comments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.evaluation import lexicographic
from allocator.exporters.words import Words
from allocator.milp import Milp, build
from allocator.milp_scaled import Scaled, scaled
from allocator.milp_terms import Block
from allocator.problem import Problem
from allocator.statement import IntArray

EXACT = 2**53  # readers hold coefficients as floats: integers beyond it come out rounded


@dataclass(frozen=True)
class Variable:
    """From 0 to 1; integer: 0 or 1. cost: coefficient in the objective, as text."""

    name: str
    integer: bool
    cost: str


@dataclass(frozen=True)
class Line:
    """A row: Σ coefficient·variable  sense  limit; sense is "<=", ">=" or "="; index into the variables."""

    name: str
    index: Sequence[int]
    coefficients: Sequence[str]
    sense: str
    limit: str


@dataclass(frozen=True)
class Program:
    """min Σ cost·variable subject to the rows; comments tell what names mean and how to get the objective back."""

    comments: Sequence[str]
    variables: Sequence[Variable]
    rows: Sequence[Line]


def program_of(problem: Problem) -> Program:
    """The program of `allocator.milp`, written so that its text loses nothing.

    Each group's least value is taken out of the objective and of every budget row. Rows of integers are divided by
    their common divisor and stay integers; the objective and float rows are multiplied by a power of two that brings
    them into the reach of a solver's absolute tolerances (2^23 at most), which loses no digit either.

    Raises:
        UnsupportedError: a part that is not linear: a p-norm in a mixture, a maximum of negative weight, too many
            products of choices.
    """
    model = build(problem)
    return _Writer(problem, model).program()


@dataclass
class _Writer:
    problem: Problem
    model: Milp
    words: Words = field(default_factory=Words)
    row_words: Words = field(default_factory=Words)
    comments: list[str] = field(default_factory=list)

    def program(self) -> Program:
        if self.model.hopeless is not None:
            name = self.words.name("nothing")
            self.comments.append(f"infeasible: {self.model.hopeless}")
            return Program(self.comments, [Variable(name, True, "0")], [_impossible("impossible")])
        written = scaled(self.model)
        names = self.names()
        variables = [
            Variable(name, integer, _text(cost))
            for name, integer, cost in zip(
                names, self.model.integer.tolist(), written.objective.tolist(), strict=True
            )
        ]  # fmt: skip
        self.objective(written)
        rows = list(self.rows(written))
        self.meanings()
        return Program(self.comments, variables, rows)

    def names(self) -> list[str]:
        """One name per variable, in their order."""
        problem, model, words = self.problem, self.model, self.words
        pairs = [
            (problem.group_names[g], problem.choice_name(r))
            for g, r in zip(model.group_of.tolist(), model.row.tolist(), strict=True)
        ]
        found = [words.name("x", *pair) for pair in pairs]
        for a, b in zip(model.products.first.tolist(), model.products.second.tolist(), strict=True):
            found.append(words.name("y", *pairs[a], *pairs[b]))
        labels = problem.label_codes
        texts = [labels.table[int(labels.code[model.row[members[0]]])] for members in model.labels]
        found += [words.name("label", text) for text in texts]
        return found + [words.name("max", str(i)) for i, _ in enumerate(model.maxima)]

    def objective(self, written: Scaled) -> None:
        """How to get the problem's objective from the program's value."""
        linear, constant = self.model.linear, self.model.constant
        total = f"value * 2^{-written.exponent} + {constant!r}" if written.exponent else f"value + {constant!r}"
        self.comments.append("value: what this program minimises; solve it with a relative gap of 0")
        if linear.power != 1.0:
            total = f"{linear.scale!r} * ({total})^(1/{linear.power!r})"
        self.comments.append(f"objective = {total}")
        if lexicographic(self.problem):
            self.comments.append("among equal largest losses any may come out, not the one of least sum")

    def rows(self, written: Scaled) -> Iterator[Line]:
        """Assignment rows, then budgets, couplings, products, maxima."""
        model = self.model
        for g, name in enumerate(self.problem.group_names):
            index = list(range(int(model.start[g]), int(model.start[g + 1])))
            yield Line(self.row_words.name("one", name), index, ["1"] * len(index), "=", "1")
        at = len(model.start) - 1
        for block in (*model.blocks, *(m.rows.under(m.variable) for m in model.maxima)):
            yield from self.block(block, written, at)
            at += block.count

    def block(self, block: Block, written: Scaled, at: int) -> Iterator[Line]:
        exact = block.value.dtype.kind == "i"
        for i, (index, value, lo, hi) in enumerate(block.rows()):
            name = self.row_words.name(*self.kind(block, index))
            power = 0 if exact else int(written.row_exponent[at + i])
            if block.budget >= 0:
                self.budget(name, block, power)
            if exact and int(np.abs(value).max(initial=0)) > EXACT:
                self.comments.append(f"{name}: has integers beyond 2^53, which readers round")
            coefficients = [str(v) if exact else _text(math.ldexp(v, power)) for v in value.tolist()]
            limits = [None if x is None else str(x) if exact else _text(math.ldexp(x, power)) for x in (lo, hi)]
            if not len(index):
                if (lo or 0) > 0 or (hi or 0) < 0:
                    yield _impossible(name)
                continue
            yield from self.sides(name, index.tolist(), coefficients, *limits)

    def sides(
        self, name: str, index: list[int], coefficients: list[str], lo: str | None, hi: str | None
    ) -> Iterator[Line]:
        """One line, or two where the limits differ."""
        if lo is not None and lo == hi:
            yield Line(name, index, coefficients, "=", lo)
            return
        if lo is not None:
            other = name if hi is None else self.row_words.name(name, "min")
            yield Line(other, index, coefficients, ">=", lo)
        if hi is not None:
            yield Line(name, index, coefficients, "<=", hi)

    def kind(self, block: Block, index: IntArray) -> tuple[str, ...]:
        model = self.model
        if block.budget >= 0:
            return "budget", str(block.budget), self.problem.budgets[block.budget].name
        if (index >= model.first_label + len(model.labels)).any():
            return ("largest",)
        if ((index >= len(model.row)) & (index < model.first_label)).any():
            return ("product",)
        return ("coupling",)

    def budget(self, name: str, block: Block, power: int) -> None:
        """What the left side of a budget row means in the resource's own unit."""
        row = self.problem.budgets[block.budget]
        linear = next(r for r in self.model.linear.rows if r.budget == block.budget)
        least = np.minimum.reduceat(linear.column[self.model.row], self.model.start[:-1])
        base: Any = int(least.sum()) if linear.exact else math.fsum(least.tolist())
        if row.resource is not None and row.tags is None:
            base += self.problem.resources[row.resource].offset
        unit = "" if block.unit == 1 else f"{block.unit} * "
        factor = f" * 2^{-power}" if power else ""
        self.comments.append(f"{name}: {row.name!a} = {unit}left side{factor} + {base!r}")

    def meanings(self) -> None:
        """What stands behind names that had to be altered."""
        for words in (self.words, self.row_words):
            for name, meaning in words.changed.items():
                if meaning:
                    self.comments.append(f"{name}: {meaning}")


def _impossible(name: str) -> Line:
    """A row that no program keeps: the first variable, at most 1, is 2 (readers refuse rows of nothing)."""
    return Line(name, [0], ["1"], ">=", "2")


def _text(value: float) -> str:
    """The shortest text that reads back as the same float; whole numbers without a point."""
    return str(int(value)) if value.is_integer() and abs(value) <= EXACT else repr(value)
