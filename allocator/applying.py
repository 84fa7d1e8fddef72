"""Solutions done to the network of a workload: what their actions need to know of it, and a compressed copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from allocator.problem import Problem
from allocator.progress import Progress, silent

if TYPE_CHECKING:
    from torch.nn import Module

    from allocator.applier.plan import HasActions, PlainSolution
    from allocator.applier.statistics import Statistics
    from allocator.workload import Workload


def layer_statistics(
    workload: Workload, solution: HasActions | PlainSolution | Problem, progress: Progress | None = None
) -> Statistics:
    """What the actions of a solution, or of all choices of a problem, need to know of the layers' inputs and outputs.

    For `apply_` and `compress`. Measured on all calibration data of the workload. Empty, and nothing is run, where no
    action needs anything.

    Raises:
        ActionError: see `allocator.applier.plan`.
        UsageError: a layer that no calibration data reaches.
    """
    from allocator.tasks.guard import untouched
    from profilers._fast_path import opened
    from profilers._statistics import statistics_for

    by_module = _needs(solution)
    if not by_module:
        return {}
    with untouched(workload.model), opened(workload):
        return statistics_for(workload, _of_units(workload.model, by_module), progress or silent)


def fitted(workload: Workload, problem: Problem, progress: Progress | None = None) -> tuple[Statistics, Workload]:
    """What the choices of a problem are to be fitted to, and a workload whose calibration data are to score them.

    As `profile` does it: `layer_statistics` and the workload itself where data may score what is fitted to them, and
    where nothing is fitted; else those of the first half of the calibration data, and the second half.

    Raises:
        ActionError, UsageError: see `layer_statistics`.
    """
    from allocator.tasks.guard import untouched
    from profilers import _statistics
    from profilers._fast_path import opened

    by_module = _needs(problem)
    if not by_module:
        return {}, workload
    with untouched(workload.model), opened(workload):
        wanted = _statistics.of_units(workload.model, _of_units(workload.model, by_module))
        return _statistics.fitted(workload, wanted, progress or silent)


def applied(
    workload: Workload,
    solution: HasActions | PlainSolution,
    statistics: Statistics | None = None,
    progress: Progress = silent,
) -> Module:
    """A copy of the workload's network with the solution applied; the network itself stays as it is.

    ``statistics``: of `layer_statistics`, where they are at hand already.

    Raises:
        ActionError: see `allocator.applier.apply_`.
    """
    from allocator.applier.apply import apply_

    known = layer_statistics(workload, solution, progress) if statistics is None else statistics
    return apply_(copy.deepcopy(workload.model), solution, statistics=known, progress=progress)


def _of_units(model: Module, by_module: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The same by name of the stored weight."""
    from allocator.applier.layers import units

    wanted: dict[str, frozenset[str]] = {}
    for unit in units(model):
        found = [by_module[name] for name in (unit.name, *unit.modules) if name in by_module]
        if found:
            wanted[unit.name] = frozenset[str]().union(*found)
    return wanted


def _needs(solution: HasActions | PlainSolution | Problem) -> dict[str, frozenset[str]]:
    """Statistics that the actions of each module need, of modules that need any."""
    from allocator.actions import parse, statistics_of
    from allocator.applier.plan import actions_and_modules

    by_module: dict[str, frozenset[str]] = {}
    if isinstance(solution, Problem):
        stated = _of_problem(solution)
    else:
        actions, named = actions_and_modules(solution)
        stated = [([action], named[group]) for group, action in actions.items()]
    for actions_of_group, modules in stated:
        needs = frozenset[str]().union(*(statistics_of(parse(action)) for action in actions_of_group))
        if needs:
            by_module |= {name: needs | by_module.get(name, frozenset()) for name in modules}
    return by_module


def _of_problem(problem: Problem) -> list[tuple[list[Mapping[str, Any]], list[str]]]:
    """(actions, modules) of every group."""
    return [
        ([choice.action for choice in group.choices if choice.action is not None], list(group.modules))
        for group in problem.groups
    ]
