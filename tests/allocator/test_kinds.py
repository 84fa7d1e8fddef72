"""Menus by kind: every choice can be done somewhere, and a space of several kinds is solved, written and read back."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from allocator import Workload, compress, layer_statistics, load_compressed, profile, solve
from allocator.actions import Kept, Layer, LowRank, TensorFormat, statistics_of
from allocator.errors import UsageError
from allocator.grouping.shares import Levels, Share
from allocator.kinds import EIGHT, JOINT, KINDS, menu, without_inputs
from allocator.menu_items import resolved
from allocator.space import Rule, Space

LAYERS = {
    "conv": Layer("conv2d", (64, 48, 3, 3)),
    "linear": Layer("linear", (96, 128)),
    "depthwise": Layer("conv2d", (32, 1, 3, 3), groups=32),
    "signal": Layer("conv1d", (24, 40, 5)),
    "table": Layer("embedding", (200, 64)),
    "one": Layer("linear", (1, 3)),
}
SLOW = ("cp", "tucker2", "prune")


def items(kinds, layer, **options):
    return Space.of_kinds(kinds, keep=False, **options).menu(["m"], LAYERS[layer])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "channels"])
def test_every_choice_is_one_of_some_layer_and_has_a_name_of_its_own(kind):
    found = [resolved(choice, KINDS[kind], LAYERS["conv"], Levels()) for choice in KINDS[kind]]
    assert [len(one) for one in found] == [1] * len(found)
    assert len({one[0].name for one in found} | {"int8_gptq"}) == len(found) + 1


def test_channels_are_pairs_of_what_a_layer_writes_and_reads():
    most, half = Share(0.75), Share(0.5)
    rows = {most: Kept(64, tuple(range(48))), half: Kept(64, tuple(range(32)))}
    columns = {most: Kept(48, tuple(range(36))), half: Kept(48, tuple(range(24)))}
    found = Space.of_kinds("channels", keep=False).menu(["m"], LAYERS["conv"], Levels(rows, columns))
    assert len({item.name for item in found}) == len(found) == 3 * 8 + 1
    assert [item.name for item in items("channels", "conv")] == ["int8_gptq"]
    shares = Space.of_kinds("channels", multiple=8, keep=False).rules[-1].choices
    assert {choice["multiple"] for choice in shares if choice != EIGHT} == {8}


def test_joint_is_all_kinds_but_channels_each_once():
    assert menu() == menu(JOINT) == menu([JOINT, "bits", JOINT])
    assert list(menu()) == [one for kind, own in KINDS.items() if kind != "channels" for one in own] + [EIGHT]
    assert menu([JOINT, "channels"])[: len(menu()) - 1] == menu()[:-1]
    assert menu(["ranks", "bits"]) == (*KINDS["ranks"], *KINDS["bits"], EIGHT)
    assert [one["kind"] for one in menu("bits", keep=True)[-2:]] == ["quantize", "keep"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("kinds", "fast"), [(kinds, fast) for kinds in (*KINDS, JOINT) for fast in (False, kinds != "sparsity")]
)
def test_every_layer_has_choices_and_8_bits_among_them(layer, kinds, fast):
    found = {item.name: item.action for item in items(kinds, layer, fast=fast)}
    assert ("int8_mse" if layer == "table" else "int8_gptq") in found
    for action in found.values():
        action.check(LAYERS[layer])
        assert layer != "table" or not statistics_of(action)


def test_an_embedding_has_what_needs_no_inputs():
    names = {item.name for item in items(JOINT, "table")}
    assert {"int3_asym_mse", "ternary", "nf4_channel_mse", "mxfp4_mse", "rank19_int5_mse", "kept0.3_int4_mse"} <= names
    assert without_inputs(KINDS["channels"][0]) is None
    only = Space.of_menu([KINDS["channels"][0], {"kind": "corrected", "action": EIGHT}])
    assert [rule.kinds for rule in only.rules] == [()]


def test_ranks_are_multiples():
    found = [item.action for item in items(["ranks", "tensors"], "conv", multiple=8)]
    ranks = [action.rank for action in found if isinstance(action, LowRank)]
    for action in found:
        if isinstance(action, TensorFormat):
            own = action.to_json()
            ranks += [*own.get("ranks", ()), *(own[key] for key in ("rank", "rank_out", "rank_in") if key in own)]
    assert len(ranks) > 20
    assert all(rank % 8 == 0 for rank in ranks)
    assert menu("bits", multiple=8) == menu("bits")


def test_fast_leaves_out_what_is_slow():
    found, everything = menu([JOINT, "channels"], fast=True), menu([JOINT, "channels"])
    assert set(SLOW) == {choice["kind"] for choice in everything} - {choice["kind"] for choice in found}
    assert list(found) == [choice for choice in everything if choice["kind"] not in SLOW]
    assert [choice["kind"] for choice in menu("tensors", fast=True)] == ["tt", "quantize"]


def test_rules_that_skip_or_pin_come_first():
    outside = Rule(modules="head", choices="skip"), Rule(modules="stem", choices="pin")
    space = Space.of_kinds("bits", rules=(outside[0], Rule(choices=(EIGHT,)), outside[1]))
    assert space.rules[:2] == outside
    assert [rule.kinds for rule in space.rules[2:]] == [("embedding",), ()]
    assert space.menu(["head"], LAYERS["linear"]) is None
    assert [item.name for item in space.menu(["stem"], LAYERS["linear"])] == ["keep"]
    assert space.menu(["other"], LAYERS["linear"])[-1].name == "keep"


@pytest.mark.parametrize("options", [{}, {"multiple": 16, "keep": False}, {"fast": True}])
def test_json_both_ways(options):
    space = Space.of_kinds([JOINT, "channels"], rules=(Rule(modules="head", choices="skip"),), **options)
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("kinds", "options", "said"),
    [
        ("rank", {}, "no kind of compression 'rank': take joint, or some of bits, formats, ranks"),
        (["bits", ""], {}, "no kind of compression ''"),
        ([], {}, "no kind of compression is given: take joint"),
        (["bits", "sparsity"], {"fast": True}, "nothing of the kind sparsity is fast: leave sparsity out, or"),
        ("ranks", {"multiple": 0}, "multiple=0: ranks are multiples of a whole number"),
        ("ranks", {"multiple": True}, "multiple=True"),
        ("ranks", {"multiple": 1.5}, "multiple=1.5"),
    ],
)
def test_what_cannot_be_meant(kinds, options, said):
    with pytest.raises(UsageError, match=said):
        Space.of_kinds(kinds, **options)


PAGE = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")


def test_the_page_has_every_menu():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| .*\|$", PAGE.partition("## An example")[0], re.M)
    assert {kind: int(count) for kind, count in rows} == {kind: len(own) for kind, own in KINDS.items()}


def test_the_pages_own_menu_is_a_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = [block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "space.json" in block]
    exec(code, {})
    space = Space.from_json(json.loads(Path("space.json").read_text()))
    assert space.menu(["head"], LAYERS["linear"]) is None
    assert {"int4_g64_asym", "rank19_int8_mse_input"} <= {item.name for item in space.menu(["fc"], LAYERS["linear"])}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 24)
        self.near, self.far = nn.Conv1d(24, 24, 5, padding=2), nn.Conv1d(24, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.near(self.words(x).mT))
        return self.head(torch.relu(self.far(x)).mean(-1))


@pytest.mark.parametrize("fast", [False, True])
def test_a_network_of_all_kinds_is_solved_written_and_read_back(tmp_path, fast):
    torch.manual_seed(0)
    data = [(torch.randint(40, (16, 12)), torch.randint(5, (16,))) for _ in range(3)]
    workload = Workload(Net().eval(), data[:2], data[2:])
    problem = profile(workload, Space.of_kinds([JOINT, "channels"], fast=fast, keep=False), "weight_error")
    kinds = {choice.action["kind"] for group in problem.groups for choice in group.choices}
    assert kinds >= {"quantize", "corrected", "number_format", "low_rank", "tt", "unify", "slim"}
    assert kinds.isdisjoint(SLOW) == fast
    solution = solve(problem, budgets={"weight_bytes": "40%"}, time_limit=20.0)
    known = layer_statistics(workload, solution)
    written = compress(workload.model, solution, tmp_path, known, describe_itself=False)
    assert written.bytes == solution.totals["weight_bytes"]
    assert torch.isfinite(load_compressed(Net().eval(), tmp_path)(data[2][0])).all()
