"""Where the extension has to be, it is: else half of the engine's tests would be skipped unseen."""

from __future__ import annotations

import os

import pytest

from allocator import engine


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
