"""`doctor` says what is there, what is missing, and what is wrong."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
from typer.testing import CliRunner

from allocator import diagnosis, engine
from allocator.cli import app
from allocator.diagnosis import Finding, diagnose


def by_name() -> dict[str, Finding]:
    return {f.name: f for f in diagnose()}


def test_a_sound_installation_has_nothing_wrong() -> None:
    found = by_name()
    assert [f for f in found.values() if f.state == "wrong"] == []
    assert found["engine numpy"].state == "ok"
    assert "exact" in found["solvers"].detail
    assert ("engine c" in found) == (engine.native() is not None)


def test_a_package_outside_its_range_is_wrong_and_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.15.1" if name == "highspy" else real(name))
    found = by_name()["highspy"]
    assert found.state == "wrong"
    assert "<1.15" in found.detail
    assert "pip install 'highspy" in found.cure


def test_a_missing_extra_is_missing_and_a_missing_dependency_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("torch", "cvxpy"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = by_name()
    assert found["torch"].state == "missing"
    assert "compression-allocator[torch]" in found["torch"].cure
    assert found["cvxpy"].state == "wrong"


def test_without_the_extension_numpy_runs_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy")
    found = by_name()
    assert found["exact engine"].state == "missing"
    assert found["exact engine"].detail.startswith("numpy")
    assert "engine c" not in found


def test_a_wrong_engine_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(app, ["doctor", "--json"]).exit_code == 0
    monkeypatch.setattr(diagnosis, "_engine", lambda: Finding("exact engine", "wrong", "gives nonsense"))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert any(f["state"] == "wrong" for f in json.loads(result.stdout)["findings"])
