"""What a demo needs of installed packages: that they are there, and the files inside them, found without importing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from allocator.errors import UnavailableError


def require(demo: str, *packages: str) -> None:
    """Make sure that all packages are there before any of the work is done.

    Raises:
        UnavailableError: naming the demo, the packages that are missing, and how to get them.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UnavailableError(f"{demo} needs {', '.join(missing)}; `make demo-{demo}` installs them")


def folder(package: str) -> Path:
    """Where an installed package lies.

    Raises:
        UnavailableError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UnavailableError(f"the package {package!r} is not installed")
    return Path(spec.origin).parent


def quieten_transformers() -> None:
    """No bars and no report on weights that are left out on purpose, while a model is loaded."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
