"""Times are checked with layers that move the clock by a known amount; tables, by hand."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import profilers.latency
from allocator.errors import ActionError, AllocatorError, UsageError
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.workload import Workload
from profilers._calls import calls_of
from profilers.latency import Latency
from profilers.weight_error import WeightError

BITS = Space.simple(bits=(2, 4), ranks=())


class Clock:
    now = 0.0
    seen: list  # class names of the layers that ran

    def __call__(self):
        return self.now


class Timed(nn.Linear):
    """Takes a millisecond per sample: the clock says so. Two while its weight is packed."""

    def forward(self, input):  # noqa: A002 - torch's own name
        name = type(self).__name__
        clock.seen.append(name)
        clock.now += 1e-3 * len(input) * (2 if name.startswith("Packed") else 1)
        return super().forward(input)


class Net(nn.Module):
    """Two layers, one of which is called twice; half a millisecond of its own."""

    def __init__(self):
        super().__init__()
        self.twice, self.head = Timed(4, 4), Timed(4, 3)

    def forward(self, x):
        clock.now += 5e-4
        return self.head(self.twice(torch.tanh(self.twice(x))))


@pytest.fixture
def timed(monkeypatch):
    clock.now, clock.seen = 0.0, []
    monkeypatch.setattr(profilers.latency.time, "perf_counter", clock)
    torch.manual_seed(0)
    rows = [(torch.randn(n, 4), torch.zeros(n, dtype=torch.long)) for n in (6, 5, 3)]
    return Workload(Net(), rows[:2], rows[2:])


clock = Clock()


def columns(problem):
    """{group: {choice: ms}}"""
    return {g.name: {c.name: pytest.approx(c.cost["latency_ms"], rel=1e-9) for c in g.choices} for g in problem.groups}


@pytest.mark.parametrize(("batch", "samples"), [(0, 6), (1, 1), (4, 4)])
def test_calls_add_up_and_packed_layers_are_timed(timed, batch, samples):
    problem = profile(timed, BITS, [WeightError(), Latency(batch=batch, repeats=3)])
    one = samples * 1.0
    assert columns(problem) == {
        "twice": {"int2": 4 * one, "int4": 4 * one, "keep": 2 * one},
        "head": {"int2": 2 * one, "int4": 2 * one, "keep": one},
    }
    resource = problem.resources["latency_ms"]
    assert (resource.unit, resource.aggregate) == ("ms", "sum")
    assert resource.offset == pytest.approx(0.5)
    notes = problem.notes.meta["profilers"]["latency"]
    assert (notes["samples"], notes["repeats"], notes["threads"]) == (samples, 3, torch.get_num_threads())
    assert notes["quartiles_ms"]["head"]["keep"] == pytest.approx([one] * 3)
    assert "PackedTimed" in clock.seen
    assert type(timed.model.head) is Timed


def test_median_and_quartiles_are_over_repeats(timed, monkeypatch):
    steps = iter(float(i * i) for i in range(10_000))  # every reading of the clock: i² seconds, so spans grow
    monkeypatch.setattr(profilers.latency.time, "perf_counter", lambda: next(steps))
    problem = profile(timed, BITS, [WeightError(), Latency(repeats=5)])
    for rows in problem.notes.meta["profilers"]["latency"]["quartiles_ms"].values():
        for low, middle, high in rows.values():
            assert low < middle < high
    for group in problem.groups:
        rows = problem.notes.meta["profilers"]["latency"]["quartiles_ms"][group.name]
        assert [c.cost["latency_ms"] for c in group.choices] == [rows[c.name][1] for c in group.choices]


def test_offset_is_not_negative(timed):
    class Hurried(Net):
        def forward(self, x):
            out = super().forward(x)
            clock.now -= 0.05  # as if layers were quicker together than alone
            return out

    timed.model.__class__ = Hurried
    problem = profile(timed, BITS, [WeightError(), Latency(repeats=3)])
    assert problem.resources["latency_ms"].offset == 0


def test_every_network_can_be_timed(workload, space):
    fits = BITS if workload.name == "twice" else space  # one layer there has a forward of its own
    problem = profile(workload, fits, [WeightError(), Latency(repeats=2)])
    assert (problem.costs["latency_ms"] > 0).all()
    assert not any(type(m).__name__.startswith("Packed") for m in workload.model.modules())


def test_what_cannot_be_applied_or_timed_is_refused(timed, workload_of, space):
    ranks = Space((Rule(modules="head", choices=({"kind": "low_rank", "fraction": 0.5},)), *space.rules))
    with pytest.raises(ActionError, match=r"layer head .*Standardised has a forward of its own"):
        profile(workload_of("twice"), ranks, [WeightError(), Latency()])
    with pytest.raises(UsageError, match="7 samples, and the first calibration batch has 6"):
        profile(timed, BITS, [WeightError(), Latency(batch=7)])
    with pytest.raises(UsageError, match="repeats=0"):
        profile(timed, BITS, [WeightError(), Latency(repeats=0)])
    with pytest.raises(UsageError, match="none of them gives a score"):
        profile(timed, BITS, Latency(repeats=1))


def test_inputs_are_those_of_the_call_though_overwritten_later():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            y = self.layer(input=x)
            x.zero_()
            return y

    class Plain:
        def logits(self, model, batch):
            return model(batch.clone())

    model = Overwriting()
    (call,) = calls_of(Plain(), model, torch.ones(3, 2), [model.layer])
    assert call.args == ()
    assert torch.equal(call.kwargs["input"], torch.ones(3, 2))
    assert not model.layer._forward_pre_hooks


def test_parts_of_a_measurement_are_taken_again(timed, tmp_path):
    first = profile(timed, BITS, [WeightError(), Latency(repeats=3)], resume=tmp_path)
    clock.seen.clear()
    again = profile(timed, BITS, [WeightError(), Latency(repeats=3)], resume=tmp_path)
    assert np.array_equal(first.costs["latency_ms"], again.costs["latency_ms"])
    assert "PackedTimed" not in clock.seen


TABLE = {
    ("embed", "int2"): 1.5, ("embed", "int4"): 2, ("embed", "keep"): 4,
    ("head", "int2"): 0.5, ("head", "int4"): 0.25, ("head", "keep"): 1,
    **{(f"layers.{i}.{part}", name): ms for i in (0, 1) for part in ("qkv", "out")
       for name, ms in (("int2", 0.125), ("int4", 0), ("keep", 3))},
}  # fmt: skip


def written(path, table):
    path.write_text("module;choice;ms\n" + "".join(f"{m};{c};{ms}\n" for (m, c), ms in table.items()))
    return str(path)


def test_a_table_is_read_and_tied_modules_add_up(workload_of, tmp_path):
    path = written(tmp_path / "t.csv", TABLE)
    problem = profile(workload_of("lm"), BITS, [WeightError(), Latency(table=path)])
    found = columns(problem)
    assert found["embed"] == {"int2": 2, "int4": 2.25, "keep": 5}
    assert found["layers.1.out"] == {"int2": 0.125, "int4": 0, "keep": 3}
    assert problem.resources["latency_ms"].offset == 0
    assert len(problem.notes.meta["profilers"]["latency"]["sha256"]) == 64


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_actions_stand_for_choices(workload_of, tmp_path, suffix):
    menu = {c.name: c.action for c in profile(workload_of("lm"), BITS, WeightError()).groups[0].choices}
    path = tmp_path / f"t{suffix}"
    rows = [{"module": m, "action": menu[c], "ms": ms} for (m, c), ms in TABLE.items()]
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        quoted = [json.dumps(row["action"]).replace('"', '""') for row in rows]
        lines = [f'{row["module"]},"{action}",{row["ms"]}' for row, action in zip(rows, quoted, strict=True)]
        path.write_text("\n".join(["module,action,ms", *lines]))
    problem = profile(workload_of("lm"), BITS, [WeightError(), Latency(table=str(path))])
    assert columns(problem)["embed"] == {"int2": 2, "int4": 2.25, "keep": 5}


def test_missing_and_surplus_rows_are_one_error(workload_of, tmp_path):
    table = {key: ms for key, ms in TABLE.items() if key[0] not in ("layers.0.qkv", "layers.1.qkv")}
    table |= {("embed", "int3"): 1, ("norm", "keep"): 2}
    path = written(tmp_path / "t.csv", table)
    with pytest.raises(UsageError) as error:
        profile(workload_of("lm"), BITS, [WeightError(), Latency(table=path)])
    text = str(error.value)
    assert "no row for layers.0.qkv: int2, layers.0.qkv: int4" in text
    assert "and 1 more" in text
    assert "no choice of a layer here: embed: int3 (line 14), norm: keep (line 15)" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("module,choice,ms\nembed,int2,1\nembed,int2,1\n", "embed and int2 stand twice"),
        ("module,choice,ms\nembed,int2,-1\n", "line 2: ms is '-1'"),
        ("module,choice,ms\nembed,int2,nan\n", "line 2: ms is 'nan'"),
        ("module,choice,ms\nembed,int2,1,4\n", "line 2 has 4 cells under 3 headings"),
        ("module,choice,ms\nembed,int2,\n", "line 2 has module, choice: give module, ms"),
        ("module,choice,ms,note\nembed,int2,1,x\n", "give module, ms and either choice or action"),
        ("module,action,ms\nembed,{,1\n", "line 2: action cannot be read"),
        ('[{"module": "embed", "choice": "int2", "ms": 1}', "is no JSON"),
        ('{"module": "embed"}', "is no list of objects"),
        ("", "no row for embed: int2"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(workload_of, tmp_path, content, message):
    path = tmp_path / ("t.json" if content.startswith(("[", "{")) else "t.csv")
    path.write_text(content)
    with pytest.raises(AllocatorError) as error:
        profile(workload_of("lm"), BITS, [WeightError(), Latency(table=str(path))])
    assert message in str(error.value)


def test_there_is_no_table(workload_of):
    with pytest.raises(UsageError, match="there is no such file"):
        profile(workload_of("lm"), BITS, [WeightError(), Latency(table="nowhere.csv")])
