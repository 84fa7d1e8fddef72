"""Our safetensors files are readable by the library, its files by us, and damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from allocator.applier.tensor_file import NAMES, Described, read_header, read_tensor, write
from allocator.errors import AllocatorError


def some_tensors() -> dict[str, torch.Tensor]:
    found = {f"t.{name}": (torch.randn(3, 5) * 3).to(dtype) for dtype, name in NAMES.items()}
    return found | {"scalar": torch.tensor(7), "empty": torch.empty(0, 4), "ödd": torch.ones(1, dtype=torch.uint8)}


def write_all(path: Path, tensors: dict[str, torch.Tensor], header: int = 0) -> int:
    pairs = [(Described(n, t.dtype, tuple(t.shape)), t.clone) for n, t in tensors.items()]
    return write(path, pairs, {"note": "x"}, header)


@pytest.mark.parametrize("header", [0, 4096])
def test_the_safetensors_library_reads_it(tmp_path: Path, header: int) -> None:
    path = tmp_path / "m.safetensors"
    tensors = some_tensors()
    assert write_all(path, tensors, header) == path.stat().st_size
    for read in (safetensors.torch.load_file(path), safetensors.torch.load(path.read_bytes())):
        assert set(read) == set(tensors)
        assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in tensors.items())
    assert list(tmp_path.iterdir()) == [path]


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = some_tensors()
    safetensors.torch.save_file(tensors, path, metadata={"a": "b"})
    header = read_header(path)
    assert header.metadata == {"a": "b"}
    assert all(torch.equal(read_tensor(path, header, n), t) for n, t in tensors.items())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_all(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    with pytest.raises(AllocatorError, match="a came as"):
        write(path, [(Described("a", torch.float32, (4,)), lambda: torch.ones(3))], {}, 0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged(header: Any, data: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(start: int, stop: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cut short"),
        (b"abc", "cut short"),
        ((2**63).to_bytes(8, "little") + b"{}", "cut short"),
        (damaged(b"{nonsense"), "no valid JSON"),
        (damaged(b"\xff\xfe{}"), "no valid JSON"),
        (damaged(b"[" * 200_000), "no valid JSON"),
        (damaged(b'{"a":1,"a":2}'), "repeated"),
        (damaged([1]), "no JSON object"),
        (damaged({"__metadata__": {"a": 1}}), "__metadata__"),
        (damaged({"a": 3}), "tensor 'a': its entry"),
        (damaged({"a": entry(0, 8) | {"more": 1}}), "tensor 'a': its entry"),
        (damaged({"a": entry(0, 8, dtype="F128")}), "F128"),
        (damaged({"a": entry(0, 8, dtype=["F32"])}), "dtype"),
        (damaged({"a": entry(0, 8, shape=[-2])}), "not a list of sizes"),
        (damaged({"a": entry(0, 8, shape=[2.0])}), "not a list of sizes"),
        (damaged({"a": entry(0, 8, shape=[True, 2])}), "not a list of sizes"),
        (damaged({"a": entry(0, 8, shape=[2**62, 2**62])}), "do not hold"),
        (damaged({"a": entry(0, 8, shape=[3])}), "do not hold"),
        (damaged({"a": entry(8, 0)}), "do not hold"),
        (damaged({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}), "do not hold"),
        (damaged({"a": entry(0, 8), "b": entry(0, 8)}), "overlap or hole"),
        (damaged({"a": entry(8, 16)}, 16), "overlap or hole"),
        (damaged({"a": entry(0, 8)}, 7), "cut short or damaged"),
        (damaged({"a": entry(0, 8)}, 9), "cut short or damaged"),
        (damaged({"a": entry(0, 2**40, shape=[2**38])}), "cut short or damaged"),
    ],
)  # fmt: skip
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(AllocatorError, match=said):
        read_header(path)
