"""Reading whole files with clear refusals, and writing so that nothing already written is ever lost."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from allocator.errors import UsageError


def read_bytes(path: str | Path) -> bytes:
    """The content of a file, or of standard input for "-".

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file written aside and renamed over `path` when the block ends without an error.

    Raises:
        UsageError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(aside).chmod(0o666 & ~umask)
        Path(aside).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(aside).unlink()
        raise


def require_writable(path: str | Path) -> None:
    """Refuse, before long work begins, a path whose folder is not there or takes no files.

    Raises:
        UsageError: naming the folder.
    """
    folder = Path(path).parent
    if str(path) == "-":
        return
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {str(folder)!r}; make it first")
    if Path(path).is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: the folder {str(folder)!r} cannot be written")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file aside and rename it, or write to standard output for "-"."""
    if str(path) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with replacing(path) as stream:
        stream.write(data)
