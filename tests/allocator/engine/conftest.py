"""Both engines for every test that asks for one; without the extension the C half is skipped by name."""

from __future__ import annotations

import pytest

from allocator.engine import _native


@pytest.fixture(params=["c", "numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """ "c" or "numpy", whatever ALLOCATOR_ENGINE says outside."""
    if request.param == "c" and _native is None:
        pytest.skip("the extension was not built")  # test_native.py fails where it has to be
    monkeypatch.setenv("ALLOCATOR_ENGINE", request.param)
    return str(request.param)
