"""Channels left out all the way, found, scored, coupled, solved and stored: against a network cut by hand."""

from __future__ import annotations

import copy
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import allocator
from allocator.actions import Action, Slim, parse
from allocator.applier import apply_, compress, load_compressed
from allocator.cli import main
from allocator.errors import UsageError
from allocator.faithfulness.weights import Weights
from allocator.formats.rows import problem_to_rows
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.refining.menus import menus_of
from allocator.space import Rule, Space
from allocator.workload import Workload

PAGE = (Path(__file__).parents[2] / "docs/channels.md").read_text(encoding="utf-8")
KEEP = {"kind": "keep"}
EIGHT = {"kind": "quantize", "bits": 8}


def share(keep: float, values: dict[str, Any] = KEEP, **more: Any) -> dict[str, Any]:
    return {"kind": "slim", "keep": keep, "values": values, **more}


def space(*choices: dict[str, Any], first: tuple[Rule, ...] = ()) -> Space:
    return Space((*first, Rule(choices=choices)))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.bn(self.a(x))))))


class Cnn(nn.Module):
    """A residual stream, a depthwise convolution inside the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.up, self.deep, self.down = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.down(torch.relu(self.deep(torch.relu(self.up(x)))))
        return self.head(x.mean((2, 3)))


class Joined(nn.Module):
    """Features side by side: nothing can go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


def workload(make: type[nn.Module], rows: int = 12) -> Workload:
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    shape = (2, 5, 5) if make is Cnn else (5,)
    data = [[(torch.randn(n, *shape), torch.randint(3, (n,)))] for n in (rows, 8)]
    return Workload(model.eval(), *data)


def inputs(work: Workload) -> Tensor:
    return torch.cat([batch[0] for batch in (*work.calibration, *work.evaluation)])


def taken_together(problem: Problem, choice: tuple[int, ...]) -> bool:
    """Whether an allocation keeps every coupling, by counting."""
    rows = {int(a) + k for a, k in zip(problem.indptr[:-1], choice, strict=True)}
    return all(len(rows & set(coupling.rows)) == coupling.count for coupling in problem.couplings)


def agree(problem: Problem, choice: tuple[int, ...], spaces: list[dict[str, Any]]) -> bool:
    """Whether all layers of each space keep the same channels, by their actions."""
    actions = {g.name: parse(dict(g.choices[k].action)) for g, k in zip(problem.groups, choice, strict=True)}

    def kept(name: str, side: str) -> object:
        return getattr(actions[name], side) if isinstance(actions[name], Slim) else None

    for one in spaces:
        held = {kept(name, "columns") for name in one["consumers"]} | {kept(name, "rows") for name in one["producers"]}
        if len(held) > 1:
            return False
    return True


@pytest.mark.parametrize("make", [Mlp, Cnn])
def test_the_couplings_say_that_all_layers_of_a_space_agree(make: type[nn.Module]) -> None:
    shares = (share(0.5), share(0.75)) if make is Mlp else (share(0.5),)
    problem = profile(workload(make), space(EIGHT, *shares), "weight_error")
    spaces = problem.notes.meta["channels"]
    names = [(one["producers"], one["consumers"]) for one in spaces]
    if make is Mlp:
        assert names == [(["a"], ["b"]), (["b"], ["c"])]
        assert [one["kept"] for one in spaces] == [[3, 4], [2, 3]]  # 0.75 · 6 = 4.5, half to even
    else:
        assert names == [(["stem", "down"], ["up", "head"]), (["up", "deep"], ["down"])]
    together = 0
    for choice in itertools.product(*map(range, problem.sizes.tolist())):
        kept = taken_together(problem, choice)
        assert kept == agree(problem, choice, spaces)
        together += kept
    # levels to the power of spaces, times two formats where a layer is whole
    assert together == 9 if make is Mlp else together == 4


def cut(work: Workload, actions: dict[str, Action]) -> nn.Module:
    """The Cnn without the channels that a solution leaves out, made anew layer by layer."""

    def kept(name: str, of: int) -> list[int]:
        own = getattr(actions[name], "columns", None)
        return list(range(of)) if own is None else list(own.kept)

    stream, inner = kept("head", 4), kept("down", 6)
    s, i = len(stream), len(inner)
    model = work.model
    applied = apply_(copy.deepcopy(model), {name: {"action": action.to_json()} for name, action in actions.items()})
    small = Cnn()
    small.stem, small.bn = nn.Conv2d(2, s, 3, padding=1), nn.BatchNorm2d(s)
    small.up, small.deep, small.down = (
        nn.Conv2d(s, i, 1), nn.Conv2d(i, i, 3, padding=1, groups=i), nn.Conv2d(i, s, 1),
    )  # fmt: skip
    small.head = nn.Linear(s, 3)
    every = list(range(3))
    for name, rows, columns in (
        ("stem", stream, [0, 1]), ("up", inner, stream), ("deep", inner, [0]), ("down", stream, inner),
        ("head", every, stream),
    ):  # fmt: skip
        getattr(small, name).weight.data = applied.get_submodule(name).weight.data[rows][:, columns]
        getattr(small, name).bias.data = model.get_submodule(name).bias.data[rows]
    state = small.bn.state_dict()
    for name, value in model.bn.state_dict().items():
        state[name].copy_(value[stream] if value.dim() else value)
    return small.eval()


@torch.no_grad()
def test_the_best_allocation_is_a_network_cut_by_hand(tmp_path: Path) -> None:
    work = workload(Cnn)
    choices = (EIGHT, {"kind": "quantize", "bits": 4}, share(0.5, EIGHT, weighting="none"))
    problem = profile(work, space(*choices), "kl")
    spaces, bounds = problem.notes.meta["channels"], problem.indptr[:-1]
    whole = list(itertools.product(*map(range, problem.sizes.tolist())))
    whole = [choice for choice in whole if agree(problem, choice, spaces)]
    bytes_of = [int(problem.cost("weight_bytes")[bounds + choice].sum()) for choice in whole]
    losses = [float(problem.unary[bounds + choice].sum()) for choice in whole]
    offset = int(problem.resources["weight_bytes"].offset)
    seen = set()
    for part in (0.05, 0.2, 0.4):
        budget = int(min(bytes_of) + part * (max(bytes_of) - min(bytes_of)))
        solution = allocator.solve(problem, budgets={"weight_bytes": budget + offset})
        best = min(loss for loss, size in zip(losses, bytes_of, strict=True) if size <= budget)
        assert solution.status == "optimal"
        assert solution.loss == pytest.approx(best, abs=1e-12)
        actions = {name: parse(dict(action)) for name, action in solution.actions.items()}
        seen |= {kept for name, kept in solution.choices.items() if kept.startswith("slim")}
        x, model = inputs(work), work.model
        small = cut(work, actions)(x)
        plain, packed = (apply_(copy.deepcopy(model), solution, packed=form) for form in (False, True))
        torch.testing.assert_close(plain(x), small)
        assert torch.equal(packed(x), plain(x))
        info = compress(model, solution, tmp_path / str(part))
        assert info.bytes - info.described == solution.totals["weight_bytes"]
        assert torch.equal(load_compressed(copy.deepcopy(model), info.path)(x), plain(x))
        # What scores take for the network: rows that nobody reads as they were.
        rows = bounds + solution.allocation.choice
        for change in Weights(model, problem).changes(rows):
            change.weight.data.copy_(change.other)
        torch.testing.assert_close(model(x), small)
        work = workload(Cnn)
    assert any("_r" in name for name in seen)
    assert any("_c" in name for name in seen)


def test_a_score_is_of_what_is_read() -> None:
    work = workload(Mlp)
    problem = profile(work, space(EIGHT, KEEP, share(0.5)), ["weight_error", "kl"])
    groups = {group.name: {choice.name: choice for choice in group.choices} for group in problem.groups}
    for group in groups.values():
        for name, choice in group.items():
            alone = name.startswith("slim_r") and "_c" not in name
            assert (choice.score["kl"] == choice.score["weight_error"] == 0) == (alone or name == "keep")
    rows, both = groups["b"]["slim_c3_keep_input"], groups["b"]["slim_r2_c3_keep_input"]
    assert both.score["weight_error"] < rows.score["weight_error"]
    assert both.cost["weight_bytes"] == 1 + 1 + 2 * 3 * 4
    assert both.cost["macs"] == 2 * 3
    assert groups["a"]["slim_r3_keep"].cost["macs"] == 3 * 5


def test_nothing_goes_where_features_are_joined() -> None:
    problem = profile(workload(Joined), space(EIGHT, share(0.5)), "weight_error")
    assert [[choice.name for choice in group.choices] for group in problem.groups] == [["int8"]] * 3
    assert not problem.couplings
    assert "channels" not in problem.notes.meta


def test_layers_that_a_rule_leaves_out() -> None:
    reader = Rule(modules="c", choices="skip")
    problem = profile(workload(Mlp), space(EIGHT, share(0.5), first=(reader,)), "weight_error")
    assert [one["producers"] for one in problem.notes.meta["channels"]] == [["a"]]
    writer = Rule(modules="a", choices="skip")
    problem = profile(workload(Mlp), space(EIGHT, share(0.5), first=(writer,)), "weight_error")
    assert [one["producers"] for one in problem.notes.meta["channels"]] == [["b"]]
    names = [[choice.name for choice in group.choices] for group in problem.groups]
    assert names[0] == ["int8", "slim_r2_keep", "slim_c3_keep_input", "slim_r2_c3_keep_input"]


def test_channels_named_by_hand_are_coupled_too_or_refused() -> None:
    def one(modules: str, **sides: dict[str, Any]) -> Rule:
        return Rule(modules=modules, choices=(EIGHT, {"kind": "slim", "values": KEEP, **sides}))

    kept = {"of": 6, "kept": [0, 4]}
    mine = (one("a", rows=kept), one("b", columns=kept))
    problem = profile(workload(Mlp), space(EIGHT, first=mine), "weight_error")
    assert [taken_together(problem, choice) for choice in itertools.product((0, 1), (0, 1), (0,))] == [
        True, False, False, True,
    ]  # fmt: skip
    other = (mine[0], one("b", columns={"of": 6, "kept": [0, 5]}))
    problem = profile(workload(Mlp), space(EIGHT, first=other), "weight_error")
    assert [taken_together(problem, choice) for choice in itertools.product((0, 1), (0, 1), (0,))] == [
        True, False, False, False,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="choices leave out rows of a, but layer b, which is skipped, reads them"):
        profile(workload(Mlp), space(EIGHT, first=(mine[0], Rule(modules="b", choices="skip"))), "weight_error")
    logits = one("c", rows={"of": 3, "kept": [0, 1]})
    with pytest.raises(UsageError, match="layer c leaves out rows, but its output channels are in no channel space"):
        profile(workload(Mlp), space(EIGHT, first=(logits,)), "weight_error")


def test_the_channels_that_stay_are_those_of_most_energy() -> None:
    work = workload(Mlp)
    problem = profile(work, space(EIGHT, share(0.5)), "weight_error")
    x = torch.cat([batch[0] for batch in work.calibration])
    with torch.no_grad():
        hidden = torch.relu(work.model.bn(work.model.a(x)))
        energy = (hidden**2).mean(0) * (work.model.b.weight**2).sum(0)
    wanted = tuple(sorted(energy.topk(3).indices.tolist()))
    action = parse(dict(problem.groups[0].choices[1].action))
    assert action.rows.kept == wanted
    assert parse(dict(problem.groups[1].choices[2].action)).columns.kept == wanted


def test_a_reader_that_takes_over_loses_less() -> None:
    scores = []
    for weighting in ("none", "input"):
        problem = profile(workload(Mlp, 128), space(EIGHT, share(0.5, weighting=weighting)), "kl")
        (place,) = (c for c in problem.groups[1].choices if c.name.startswith("slim_c"))
        scores.append(place.score["kl"])
    assert scores[1] < 0.5 * scores[0]


def test_equal_runs_give_equal_problems_and_leave_the_network_alone() -> None:
    work = workload(Cnn)
    before = {key: value.clone() for key, value in work.model.state_dict().items()}
    texts = [json.dumps(problem_to_rows(profile(work, space(EIGHT, share(0.5)), "ggn"))) for _ in range(2)]
    assert texts[0] == texts[1]
    assert all(torch.equal(before[key], value) for key, value in work.model.state_dict().items())


def test_the_choices_of_a_problem_can_be_measured_again() -> None:
    work = workload(Mlp)
    problem = profile(work, space(EIGHT, share(0.5)), "weight_error")
    again = profile(work, menus_of(problem, work.model, problem.free), "weight_error")
    assert again.scores["weight_error"].tolist() == problem.scores["weight_error"].tolist()


def test_the_command_line_tells_what_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE[PAGE.index("## Channels") :]
    blocks = re.findall(r"^```json\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "space.json").write_text(blocks[0], encoding="utf-8")
    code, _ = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "channels_example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shown = section[section.index("$ allocator profile") :].split("```")[0]
    for command, wanted in re.findall(r"^\$ allocator (.*)\n((?:[^$].*\n)*)", shown, re.M):
        monkeypatch.setattr(sys, "argv", ["allocator", *command.split()])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        said = capsys.readouterr()
        assert (said.out + said.err).strip() == wanted.strip()
