"""A third party's package, as pip would leave it: modules in a folder of sys.path, entry points in a dist-info."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from allocator import registry

Install = Callable[[str, Mapping[str, str], list[Path]], Path]


@pytest.fixture(scope="class")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """install(distribution, {solver: "module:Class"}, files) → the folder, on sys.path until the class is through."""
    folders: list[Path] = []

    def put(distribution: str, solvers: Mapping[str, str], files: list[Path]) -> Path:
        folder = tmp_path_factory.mktemp("site-packages")
        for file in files:
            shutil.copy(file, folder)
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {target}\n" for name, target in solvers.items())
        (info / "entry_points.txt").write_text(f"[allocator.solvers]\n{lines}")
        sys.path.insert(0, str(folder))
        folders.append(folder)
        _look_again()
        return folder

    yield put
    for folder in folders:
        sys.path.remove(str(folder))
        for name in [n for n, m in sys.modules.items() if str(folder) in str(getattr(m, "__file__", ""))]:
            del sys.modules[name]
    _look_again()


def _look_again() -> None:
    """The registry scans the other distributions once for each process."""
    importlib.invalidate_caches()
    registry._others.cache_clear()
