"""Where the extension has to be, it is: else half of the engine's tests would be skipped unseen."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from allocator import engine

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(
    not (os.environ.get("CI") or os.environ.get("ALLOCATOR_REQUIRE_NATIVE") == "1"),
    reason="CI or ALLOCATOR_REQUIRE_NATIVE=1 asks for the extension; elsewhere numpy may do",
)
def test_the_extension_was_built(monkeypatch):
    monkeypatch.delenv("ALLOCATOR_ENGINE", raising=False)
    assert engine.native() is not None


def test_the_environment_can_ask_for_numpy(monkeypatch):
    monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy")
    assert engine.native() is None
    monkeypatch.setenv("ALLOCATOR_ENGINE", "anything else")
    assert engine.native() is engine._native


def test_every_source_file_is_compiled():
    (extension,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    folder = ROOT / "allocator/engine/src"
    assert {ROOT / name for name in extension["sources"]} == set(folder.glob("*.c"))
    assert {ROOT / name for name in extension["depends"]} == set(folder.glob("*.h"))
