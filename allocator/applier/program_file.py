"""The file of a program: torch's archive of a graph and tensors, made small, and looked through before it is read."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import IO

import torch
from torch.export import ExportedProgram

from allocator.applier.tensor_file import replacing
from allocator.errors import AllocatorError

_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_EXPECTED = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|version"
    r"|\.data/(version|serialization_id)|" + "|".join(map(re.escape, (_GRAPH, _SAMPLES, *_CONFIGS)))
)
_LOUD = (
    "torch.export",
    "torch.export.pt2_archive._package",
    "torch._export.serde.serialize",
    "torch.fx.experimental.symbolic_shapes",
)


def write_program(program: ExportedProgram, path: Path) -> int:
    """Write a program, without the inputs that it was traced with and the places of the code that it came from.

    The JSON of the graph, which torch stores as it is and which may well be larger than the packed weights, is
    deflated; torch reads it all the same. A file that is there is replaced only when the new one is complete.

    Returns: the bytes of the file.
    """
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside, tempfile.TemporaryFile(dir=path.parent) as raw:
        torch.export.save(program, raw)
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(aside, "w") as target:
            for member in source.infolist():
                made = zipfile.ZipInfo(member.filename)  # of no date: equal programs are equal bytes
                made.compress_type = zipfile.ZIP_DEFLATED if member.filename.endswith(".json") else zipfile.ZIP_STORED
                made.file_size = member.file_size
                with source.open(member) as old, target.open(made, "w") as new:
                    shutil.copyfileobj(old, new)
    return path.stat().st_size


def read_program(path: Path) -> ExportedProgram:
    """The program of a file that `write_program` wrote.

    Raises:
        AllocatorError: a file that is missing, is no such archive, holds anything that would be unpickled, or that
            this version of torch cannot read.
    """
    try:
        with path.open("rb") as file:
            _look_through(path, file)
            file.seek(0)
            with quiet():
                return torch.export.load(file)
    except OSError as error:
        raise AllocatorError(
            f"{path}: cannot be read ({error.strerror or error}); give a program's .pt2 file"
        ) from error
    except AllocatorError:
        raise
    except Exception as error:  # torch raises whatever a damaged graph leads to
        raise AllocatorError(
            f"{path}: torch {torch.__version__} cannot read this program ({first_line(error)}): it is damaged, or "
            "another version of torch wrote it"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """torch logs or prints whole graphs and tracebacks before it raises; what it raises says enough."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    were = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, was in zip(loggers, were, strict=True):
            logger.disabled = was


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _look_through(path: Path, file: IO[bytes]) -> None:
    """Raise AllocatorError unless the archive holds a graph and plain tensors alone."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0] + "/" if names else ""
            for name in names:
                if not name.startswith(root) or not _EXPECTED.fullmatch(name[len(root) :]) or names.count(name) > 1:
                    raise AllocatorError(f"{path}: {name!r} has no place in a program; it is not read")
            missing = [name for name in (_GRAPH, *_CONFIGS) if root + name not in names]
            if missing:
                raise AllocatorError(f"{path}: lacks {missing[0]!r}: it is no program, or cut short")
            if root + _SAMPLES in names and archive.getinfo(root + _SAMPLES).file_size:
                raise AllocatorError(f"{path}: holds sample inputs, which torch would unpickle; it is not read")
            for name in _CONFIGS:
                for key, entry in json.loads(archive.read(root + name))["config"].items():
                    if entry["use_pickle"] is not False:
                        raise AllocatorError(f"{path}: {key!r} is pickled; it is not read")
    # All that zipfile, json and the lookups above are known to raise for a file that is damaged or is something else.
    except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
        raise AllocatorError(f"{path}: is no program ({first_line(error)}), or damaged") from error
