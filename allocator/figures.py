"""Pictures on their way to a file: how matplotlib is opened without a screen, and what becomes of a figure."""

from __future__ import annotations

from typing import Any

from allocator.errors import UsageError


def pyplot() -> Any:
    """matplotlib.pyplot, drawing to files alone; imported when the first picture is drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def written(figure: Any, path: str, dpi: int = 110) -> None:
    """Write a figure to a file, in the format of its ending, and close it.

    Raises:
        UsageError: an ending that matplotlib does not write.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except ValueError as error:
        raise UsageError(f"--plot {path}: {error}") from None
    finally:
        pyplot().close(figure)
