"""What a solver says of itself: options that are frozen, printed and sent about, and declarations that can be meant."""

from __future__ import annotations

import dataclasses
import json
import pickle
from importlib.util import find_spec
from typing import Any

import pytest

from allocator import registry
from allocator.features import ALL
from allocator.protocols import Exactness, Solver
from allocator.testing.conformance.bench import Bench

DECLARED = ("name", "features", "exactness", "stats", "isolate", "imports")


class Declarations(Bench):
    """The solver is its options; everything else about it is declared on the class."""

    def test_exemptions_have_a_test_and_a_reason(self) -> None:
        """An exemption from nothing, or for no reason, is a mistake."""
        for name, reason in self.exempt.items():
            assert name.startswith("test_"), f"exempt: {name!r} is not the name of a test"
            assert callable(getattr(self, name, None)), f"exempt: the suite has no test {name!r}"
            assert isinstance(reason, str), f"exempt[{name!r}] must be text"
            assert reason.strip(), f"exempt[{name!r}] lacks its reason"

    def test_declarations_have_the_right_types(self, backend: Solver) -> None:
        """name, features, exactness, stats, isolate, imports: as `allocator.protocols.Solver` says."""
        assert isinstance(backend, Solver), f"{backend!r} lacks one of {', '.join(DECLARED)}, solve"
        assert isinstance(backend.name, str), "name must be text"
        assert backend.name.isidentifier(), f"name {backend.name!r} must be snake_case: the command line takes it"
        assert isinstance(backend.features, frozenset), "features must be a frozenset"
        assert backend.features <= ALL, f"unknown features: {sorted(map(str, backend.features - ALL))}"
        assert isinstance(backend.exactness, Exactness), "exactness must be an allocator.Exactness"
        for key in ("stats", "imports"):
            names: Any = getattr(backend, key)
            assert isinstance(names, tuple), f"{key} must be a tuple"
            assert all(isinstance(n, str) for n in names), f"{key} must hold text"
            assert all(names), f"{key} holds an empty name"
        assert isinstance(backend.isolate, bool), "isolate must be True or False"

    def test_imports_exist(self, backend: Solver) -> None:
        """A module that is not there makes the solver unavailable."""
        for module in backend.imports:
            root = module.partition(".")[0]
            assert find_spec(root) is not None, f"imports: there is no module {root!r}"

    def test_options_are_the_fields_of_a_frozen_keyword_only_dataclass(self, backend: Solver) -> None:
        """Whoever holds a solver knows what it will do; declarations are no options."""
        kind: Any = type(backend)
        name = kind.__name__
        assert "__dataclass_params__" in dir(kind), f"{name} must be a dataclass"
        parameters = kind.__dataclass_params__
        assert parameters.frozen, f"{name} must be frozen: @dataclass(frozen=True, kw_only=True)"
        fields = dataclasses.fields(kind)
        assert all(f.kw_only for f in fields), f"{name} must take its options by keyword only"
        assert not {f.name for f in fields} & set(DECLARED), "declarations are ClassVars, not options"
        for option in [f.name for f in fields] or ["an_option"]:
            with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
                setattr(backend, option, None)

    def test_every_option_has_a_default(self, backend: Solver) -> None:
        """`allocator solve --solver name` must do."""
        kind: Any = type(backend)
        kind()

    def test_options_can_be_written(self, backend: Solver) -> None:
        """solution.json holds them."""
        kind: Any = type(backend)
        options = {f.name: getattr(backend, f.name) for f in dataclasses.fields(kind)}
        assert json.loads(json.dumps(options)) == options, f"options {options} do not survive JSON"

    def test_repr_reproduces_the_solver(self, backend: Solver) -> None:
        """`repr` is Python that makes an equal solver."""
        kind: Any = type(backend)
        names = {kind.__name__: kind, "inf": float("inf")}
        assert eval(repr(backend), names) == backend, f"{backend!r} makes another solver"

    def test_it_can_be_pickled(self, backend: Solver) -> None:
        """Worker processes get it as a pickle."""
        assert pickle.loads(pickle.dumps(backend)) == backend

    def test_the_registry_knows_it_by_its_name(self, solver: Solver | str, backend: Solver) -> None:
        """An entry point leads to the class that bears its name. Passes where an instance is tested."""
        if isinstance(solver, str):
            assert backend.name == solver.replace("-", "_"), f"entry point {solver!r} leads to {backend.name!r}"
            assert type(backend) is registry.find("solvers", solver).load()
