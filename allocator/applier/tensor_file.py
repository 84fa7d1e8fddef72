"""The safetensors file: written in one pass with a header of a length known beforehand, read with every size checked.

Layout: 8 bytes little-endian length of the header, the header (JSON, padded with spaces), the tensors back to back.
Any safetensors reader reads it. We write it ourselves because only then is its size known before a choice is made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allocator.errors import AllocatorError

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the limit of the safetensors library


@dataclass(frozen=True)
class Described:
    """Name, dtype and shape of one tensor of a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Length of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """What a file says that it holds, checked against its length.

    Attributes:
        tensors: name to description.
        starts: name to position of its data in the file.
        metadata: free strings.
    """

    tensors: Mapping[str, Described]
    starts: Mapping[str, int]
    metadata: Mapping[str, str]


def header_text(entries: Sequence[tuple[str, str, Sequence[int], tuple[int, int]]], metadata: Mapping[str, str]) -> str:
    """The JSON header, unpadded, of (name, dtype name, shape, (start, stop)) entries."""
    described: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, dtype, shape, span in entries:
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}
    return json.dumps(described, separators=(",", ":"))


def padded(length: int) -> int:
    """Length of a header with its spaces: a multiple of 8, so that the data starts aligned."""
    return -(-length // 8) * 8


def write(
    path: Path, tensors: Sequence[tuple[Described, Callable[[], Tensor]]], metadata: Mapping[str, str], header: int
) -> int:
    """Write a file aside and move it into place; return its length in bytes.

    Args:
        path: of the file; an existing one is replaced only when the new one is complete.
        tensors: descriptions, and what makes each one's data when its turn comes (one is held at a time); the file
            has them by falling item size, then in this order.
        metadata: free strings.
        header: length of the header if that suffices; spaces fill it.
    """
    # Wide numbers first: each tensor then starts at a multiple of its item size, which readers that map need.
    ordered = sorted(tensors, key=lambda pair: -pair[0].dtype.itemsize)
    entries, at = [], 0
    for described, _ in ordered:
        entries.append((described.name, NAMES[described.dtype], described.shape, (at, at + described.bytes)))
        at += described.bytes
    text = header_text(entries, metadata).encode()
    length = max(header, padded(len(text)))
    with replacing(path) as aside, aside.open("wb") as file:
        file.write(length.to_bytes(LENGTH_BYTES, "little") + text.ljust(length))
        for described, make in ordered:
            tensor = make()
            if tensor.dtype != described.dtype or tuple(tensor.shape) != described.shape:
                raise AllocatorError(f"{described.name} came as {tensor.dtype} {list(tensor.shape)}, not {described}")
            if tensor.numel():
                file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return LENGTH_BYTES + length + at


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; moved onto `path` when the block ends well, removed when it does not."""
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def unreadable(path: Path, error: OSError) -> AllocatorError:
    """What to say of a file of a checkpoint that is not there; often the folder given is one too high."""
    inner = next(iter(sorted(path.parent.glob(f"*/{path.name}"))), None)
    which = f", which may be {inner.parent}" if inner is not None else ""
    return AllocatorError(f"{path}: cannot be read ({error.strerror}); give the folder that `compress` wrote{which}")


def read_header(path: Path) -> Header:
    """The header of a file, with every span checked against the file's length; allocates nothing but the header.

    Raises:
        AllocatorError: not such a file, cut short, too long, or a header that contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER):
                raise AllocatorError(
                    f"{path}: header of {length} bytes in a file of {size}: cut short, or no safetensors"
                )
            raw = json.loads(file.read(length).decode(), object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise AllocatorError(f"{path}: the header is no valid JSON ({error}); the file is damaged") from error
    if not isinstance(raw, dict):
        raise AllocatorError(f"{path}: the header is no JSON object; the file is damaged")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise AllocatorError(f"{path}: __metadata__ is no map of strings; the file is damaged")
    data = LENGTH_BYTES + length
    tensors, spans = {}, {}
    for name, entry in raw.items():
        try:
            tensors[name], spans[name] = _entry(name, entry)
        except ValueError as error:
            raise AllocatorError(f"{path}: tensor {name!r}: {error}; the file is damaged") from error
    end = 0
    for name in sorted(spans, key=lambda n: (spans[n], n)):
        start, stop = spans[name]
        if start != end:
            raise AllocatorError(f"{path}: tensor {name!r} starts at {start}, not {end}: overlap or hole in the file")
        end = stop
    if data + end != size:
        raise AllocatorError(
            f"{path}: the header describes {data + end} bytes, the file has {size}: cut short or damaged"
        )
    return Header(tensors, {name: data + start for name, (start, _) in spans.items()}, metadata)


def read_tensor(path: Path, header: Header, name: str) -> Tensor:
    """One tensor of a file whose header was read, in memory of its own."""
    described = header.tensors[name]
    raw = torch.empty(described.bytes, dtype=torch.uint8)
    with path.open("rb") as file:
        file.seek(header.starts[name])
        if described.bytes and file.readinto(raw.numpy().data) != described.bytes:
            raise AllocatorError(f"{path}: tensor {name!r} is cut short; the file changed while it was read")
    return raw.view(described.dtype).reshape(described.shape)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _entry(name: str, entry: object) -> tuple[Described, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("its entry is not {dtype, shape, data_offsets}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"dtype {entry['dtype']!r} is not one of {', '.join(DTYPES)}")
    shape, span = entry["shape"], entry["data_offsets"]
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"{numbers!r} is not a list of sizes")
    described = Described(name, DTYPES[entry["dtype"]], tuple(shape))
    if len(span) != 2 or span[1] - span[0] != described.bytes:
        raise ValueError(f"data_offsets {span} do not hold the {described.bytes} bytes of {entry['dtype']} {shape}")
    return described, (span[0], span[1])
