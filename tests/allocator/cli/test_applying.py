"""`allocator apply --program`: a program beside the checkpoint, and what is said where there can be none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.applier import load_compressed, load_program
from allocator.cli import models
from allocator.workload import Workload


class Embedder(nn.Module):
    """Called by keywords, as networks for text are; gives an object with `logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        x = self.embed(input_ids)
        return SimpleNamespace(logits=self.head(x if attention_mask is None else x * attention_mask.unsqueeze(-1)))


class Undecided(nn.Module):
    """Looks at its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if x.sum() > 0 else -self.head(x)


def images(count: int) -> Workload:
    batches = [(torch.randn(count, 4), torch.randint(3, (count,))) for _ in range(2)]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return Workload(model, batches[:1], batches[1:], "classification", "images")


def texts(count: int) -> Workload:
    ids = [{"input_ids": torch.randint(9, (count, 5)), "attention_mask": torch.ones(count, 5)} for _ in range(2)]
    return Workload(Embedder(), ids[:1], ids[1:], "causal_lm", "texts")


@pytest.fixture
def solution(tmp_path: Path) -> Callable[..., Path]:
    def write(*names: str) -> Path:
        actions = {name: {"kind": "quantize", "bits": 3} for name in names}
        head = {"format": "allocation-solution", "version": 1}
        path = tmp_path / "solution.json"
        path.write_text(json.dumps({**head, "actions": actions, "modules": {name: [name] for name in names}}))
        return path

    return write


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("make", "names"), [(images, ("0", "2")), (texts, ("embed", "head"))])
def test_a_program_beside_the_checkpoint(run, monkeypatch, solution, tmp_path, make, names, count):
    workload = make(count)
    monkeypatch.setattr(models, "load_workload", lambda name: workload)
    out = tmp_path / "small"
    code, shown, err = run("apply", "it", solution(*names), "--out", out, "--program")
    assert (code, err) == (0, "")
    assert f"{out / 'model.pt2'}: {(out / 'model.pt2').stat().st_size} bytes, takes any number of samples" in shown
    packed = load_compressed(workload.model, out).eval()
    [batch] = workload.evaluation
    inputs = batch[0] if make is images else batch
    program = load_program(out / "model.pt2")
    if make is images:
        assert torch.equal(program(inputs), packed(inputs))
    else:
        assert torch.equal(program(**inputs)["logits"], packed(**inputs).logits)


def test_one_document(run, monkeypatch, solution, tmp_path):
    monkeypatch.setattr(models, "load_workload", lambda name: images(3))
    for words, keys in ((["--program"], {"path", "bytes", "samples"}), ([], None)):
        code, shown, _ = run("apply", "it", solution("0"), "--out", tmp_path / "small", "--json", *words)
        found = json.loads(shown)
        assert code == 0
        assert set(found) == {"path", "bytes", "described"} | ({"program"} if keys else set())
        assert not keys or set(found["program"]) == keys


def test_where_there_can_be_none_the_checkpoint_stays(run, monkeypatch, solution, tmp_path):
    batches = [(torch.ones(3, 4), torch.zeros(3, dtype=torch.long)), (torch.zeros(3, 4), torch.ones(3).long())]
    workload = Workload(Undecided(), batches[:1], batches[1:])
    monkeypatch.setattr(models, "load_workload", lambda name: workload)
    out = tmp_path / "small"
    code, shown, err = run("apply", "it", solution("head"), "--out", out, "--program")
    assert code == 1
    assert "1 groups" in shown
    assert f"allocator: {out}: the checkpoint is written, model.pt2 is not: torch.export cannot trace" in err
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "solution.json"]
    load_compressed(workload.model, out)
