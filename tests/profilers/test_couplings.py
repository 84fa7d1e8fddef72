"""Couplings from a space and from the network itself, in the problem and in its solutions."""

import re
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

import allocator
from allocator.cli import main
from allocator.errors import UsageError
from allocator.grouping.rules import Couple
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.workload import Workload

PAGE = (Path(__file__).parents[2] / "docs/profilers.md").read_text(encoding="utf-8")
SPACE = Space.simple(bits=(2, 4, 8), ranks=())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.gate, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.down(self.up(x) * torch.sigmoid(self.gate(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.blocks, self.head = nn.Embedding(9, 8), nn.Sequential(Block(), Block()), nn.Linear(8, 9)

    def forward(self, ids):
        return self.head(self.blocks(self.embed(ids)))


def workload():
    torch.manual_seed(0)
    return Workload(Net(), [torch.randint(9, (4, 5))], [torch.randint(9, (3, 5))], "causal_lm")


def sets(problem):
    names = list(problem.group_names)
    return [[names[g] for g in coupling.groups] for coupling in problem.couplings]


STREAM = ["embed"] + [f"blocks.{i}.{n}" for i in range(2) for n in ("attention.out_proj", "down")]
FUSED = [
    [f"blocks.{i}.{n}" for n in names]
    for i in range(2)
    for names in (["attention.q_proj", "attention.k_proj", "attention.v_proj"], ["up", "gate"])
]


def test_what_is_found_is_written_named_and_obeyed():
    problem = profile(workload(), SPACE, "weight_error", couple=("fused", "residual"))
    assert sets(problem) == [*FUSED, STREAM]
    told = problem.notes.meta["couplings"]
    assert [one["kind"] for one in told] == ["fused"] * 4 + ["residual"]
    assert told[1]["name"] == "blocks.0.up+gate"
    solution = allocator.solve(problem, budgets="weight_bytes=75%")
    for members in (*FUSED, STREAM):
        assert len({solution.choices[name] for name in members}) == 1
    assert len(set(solution.choices.values())) > 1


def test_nothing_is_coupled_unless_asked_for():
    problem = profile(workload(), SPACE, "weight_error")
    assert not problem.couplings
    assert "couplings" not in problem.notes.meta
    with pytest.raises(UsageError, match="no kind of coupling 'all'"):
        profile(workload(), SPACE, "weight_error", couple=["all"])


def test_spaces_couple_by_name_and_double_sets_are_written_once():
    space = Space(SPACE.rules, (Couple(modules=r"re:.*\.(q|k|v)_proj", per="parent", name="qkv"),))
    problem = profile(workload(), space, "weight_error", couple=["fused"])
    assert sets(problem) == [FUSED[0], FUSED[2], FUSED[1], FUSED[3]]
    assert [one["name"] for one in problem.notes.meta["couplings"]][:2] == [
        f"qkv of blocks.{i}.attention" for i in range(2)
    ]


def test_skipped_and_pinned_layers_are_in_no_set_that_is_found():
    rules = (Rule(modules="embed", choices="skip"), Rule(modules="blocks.0.down", choices="pin"), *SPACE.rules)
    problem = profile(workload(), Space(rules), "weight_error", couple=["residual"])
    assert sets(problem) == [[name for name in STREAM if name not in ("embed", "blocks.0.down")]]


def test_menus_without_a_common_label_are_refused():
    other = Rule(modules="*.gate", choices=tuple({"kind": "quantize", "bits": b} for b in (5, 6)))
    with pytest.raises(
        UsageError,
        match=r"'blocks.0.up\+gate' have no choice label in common \(blocks.0.up: int2.*; blocks.0.gate: int5, int6",
    ):
        profile(workload(), Space((other, *SPACE.rules)), "weight_error", couple=["fused"])


def test_the_pages_example_runs(tmp_path, monkeypatch, capsys):
    section = PAGE[PAGE.index("## Groups found for you") :]
    space, *_ = (msgspec.json.decode(block) for block in re.findall(r"^```json\n(.*?)^```", section, re.M | re.S))
    (tmp_path / "space.json").write_bytes(msgspec.json.encode(space))
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "coupled_example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = re.findall(r"^\$ allocator (profile .*)$", section, re.M)
    monkeypatch.setattr(sys, "argv", ["allocator", *command.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    shown = section[section.index(command) + len(command) :].split("```")[0].strip()
    assert capsys.readouterr().err.strip().endswith(shown)
    problem = allocator.load_problem("problem.json")
    assert len(problem.couplings) == len(shown.splitlines()) - 1
