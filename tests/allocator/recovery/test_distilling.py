"""recover(): nearer to the float network, as large as before, the same bytes again, and nothing else touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from allocator import load_compressed, recover
from allocator import recover as distilled
from allocator.applier import apply_, compress, load_provenance, units
from allocator.errors import UsageError
from allocator.recovery.checkpoints import recover_checkpoint
from allocator.recovery.samples import parted
from allocator.tasks.measurement import measure
from allocator.workload import Workload

Compressed = Callable[..., nn.Module]


def bytes_of(model: nn.Module) -> dict[str, tuple[torch.dtype, bytes]]:
    return {
        key: (value.dtype, value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for key, value in model.state_dict().items()
    }


def test_it_ends_nearer_on_held_back_and_on_other_data(workload: Workload, compressed: Compressed) -> None:
    packed = compressed(workload)
    packed.train()
    teacher, given, modes = bytes_of(workload.model), bytes_of(packed), [m.training for m in packed.modules()]
    random = torch.get_rng_state()
    found = recover(workload, packed, steps=60, lr=0.01)
    assert torch.equal(torch.get_rng_state(), random)
    assert bytes_of(workload.model) == teacher
    assert bytes_of(packed) == given
    assert [m.training for m in found.model.modules()] == modes
    assert [type(m) for m in found.model.modules()] == [type(m) for m in packed.modules()]
    flags = [{name: p.requires_grad for name, p in each.named_parameters()} for each in (found.model, packed)]
    assert flags[0] == flags[1]
    assert {key: (dtype, len(raw)) for key, (dtype, raw) in bytes_of(found.model).items()} == {
        key: (dtype, len(raw)) for key, (dtype, raw) in given.items()
    }
    assert found.kept.startswith("step ")
    assert found.after.value < 0.8 * found.before.value
    parts = parted(workload, None)
    for value, model in [(found.before, packed), (found.after, found.model)]:
        wanted = measure(parts, model, workload.model)["kl"]  # with closed attention: rounded otherwise
        assert (value.value, value.stderr) == pytest.approx((wanted.value, wanted.stderr), rel=1e-5)
    kl = [measure(workload, model, workload.model)["kl"].value for model in (packed, found.model)]
    assert kl[1] < 0.9 * kl[0]
    assert found.samples + found.held_back == sum(len(d) for d in [workload.digests()])
    assert json.loads(json.dumps(found.to_json()))["kl"]["after"]["value"] == found.after.value


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(workload: Workload, compressed: Compressed) -> None:
    packed = compressed(workload)
    first, again, other = (recover(workload, packed, steps=20, seed=seed) for seed in (3, 3, 4))
    assert bytes_of(first.model) == bytes_of(again.model)
    assert bytes_of(first.model) != bytes_of(other.model)
    assert first.after == again.after


@pytest.mark.parametrize("lr", [5e-3, 0.5])  # at .5 it goes back more than once
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    workload: Workload, compressed: Compressed, tmp_path: Path, lr: float
) -> None:
    packed = compressed(workload)
    recover = partial(distilled, lr=lr)
    whole = recover(workload, packed, steps=40)

    def kill(stage: str, done: int, total: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(workload, packed, steps=40, progress=kill, resume=tmp_path)
    seen: list[int] = []
    resumed = recover(workload, packed, steps=40, progress=lambda _, done, total: seen.append(done), resume=tmp_path)
    assert whole.steps > 26
    assert seen == list(range(24, whole.steps + 1))  # from the last measurement on
    assert bytes_of(resumed.model) == bytes_of(whole.model)
    assert (resumed.after, resumed.kept, resumed.steps) == (whole.after, whole.kept, whole.steps)
    seen.clear()
    recover(workload, packed, steps=40, seed=1, progress=lambda _, done, total: seen.append(done), resume=tmp_path)
    assert seen[0] == 1  # what belongs to another run is not taken


def test_what_gets_worse_on_held_back_is_not_kept(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    wild = recover(images, packed, steps=20, lr=1e3)
    assert wild.after.value <= wild.before.value
    assert wild.norms is not None
    assert wild.after.value == min(wild.before.value, wild.norms.value)
    assert wild.kept in ("given", "norms")
    still = bytes_of(packed)
    changed = {key for key, value in bytes_of(wild.model).items() if value != still[key]}
    assert all("running_" in key for key in changed)


def test_no_steps_only_take_the_statistics_anew(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    packed.norm.running_mean.add_(3)
    found = recover(images, packed, steps=0)
    assert (found.kept, found.steps) == ("norms", 0)
    still = bytes_of(packed)
    changed = {key for key, value in bytes_of(found.model).items() if value != still[key]}
    assert changed == {f"{norm}.running_{what}" for norm in ("stem.1", "norm") for what in ("mean", "var")}


def test_frozen_parameters_stay(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    for parameter in packed.parameters():
        parameter.requires_grad_(False)
    found = recover(images, packed, steps=20)
    still, now = bytes_of(packed), bytes_of(found.model)
    changed = {key for key in now if now[key] != still[key]}
    assert {key for key in changed if "running_" not in key} == {"stem.0.packed", "middle.packed", "hidden.packed"}
    assert not any(parameter.requires_grad for parameter in found.model.parameters())


def test_half_precision_runs_and_ends_nearer(texts: Workload, compressed: Compressed) -> None:
    half = Workload(texts.model.bfloat16(), texts.calibration, texts.evaluation, texts.task, texts.name)
    packed = compressed(half, torch.bfloat16)
    found = recover(half, packed, steps=40, lr=0.01)
    assert found.after.value < found.before.value
    assert {value.dtype for value in found.model.state_dict().values()} <= {torch.bfloat16, torch.uint8}


def test_without_gradients_all_around(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    wanted = recover(images, packed, steps=10)
    with torch.no_grad():
        found = recover(images, packed, steps=10)
    assert bytes_of(found.model) == bytes_of(wanted.model)


def test_own_data_are_read_once(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    x = torch.randn(60, 2, 9, 9)
    batches = ((x[at : at + 20], torch.zeros(20, dtype=torch.long)) for at in (0, 20, 40))
    found = recover(images, packed, batches, steps=4)
    assert (found.samples, found.held_back) == (54, 6)


def test_what_cannot_be_meant_is_refused(images: Workload, compressed: Compressed) -> None:
    packed = compressed(images)
    for options, told in [
        ({"data": list(images.evaluation)}, "40 of the samples to train on are evaluation samples"),
        ({"data": []}, "too few samples"),
        ({"steps": -1}, "steps must be"),
        ({"steps": 1.5}, "steps must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"lr": float("nan")}, "lr must be"),
    ]:
        with pytest.raises(UsageError, match=told):
            recover(images, packed, **options)
    with pytest.raises(UsageError, match="no packed weight"):
        recover(images, images.model)
    plain = apply_(copy.deepcopy(images.model), {"head": {"action": {"kind": "quantize", "bits": 4}}})
    with pytest.raises(UsageError, match="no packed weight"):
        recover(images, plain)
    circular = Workload(packed, images.calibration, images.evaluation, images.task)
    with pytest.raises(UsageError, match="float one as teacher"):
        recover(circular, packed)
    mixed = Workload(images.model, [*images.calibration, *images.evaluation], images.evaluation, images.task)
    with pytest.raises(UsageError, match="also calibration samples"):
        recover(mixed, packed)


@pytest.mark.parametrize("describe_itself", [True, False])
def test_a_recovered_checkpoint_is_as_long_and_says_what_it_is(
    describe_itself: bool,
    workload: Workload,
    allocated: Callable[[nn.Module], dict[str, Any]],
    tmp_path: Path,
) -> None:
    origin = {"command": "allocator apply"}
    first = compress(
        workload.model, allocated(workload.model), tmp_path / "small", describe_itself=describe_itself,
        provenance=origin,
    )  # fmt: skip
    found, info = recover_checkpoint(workload, first.path, tmp_path / "better", steps=20, seed=2)
    assert info.bytes - info.described == first.bytes - first.described
    assert (info.path / "solution.json").read_bytes() == (first.path / "solution.json").read_bytes()
    loaded = load_compressed(copy.deepcopy(workload.model), info.path)
    assert bytes_of(loaded) == bytes_of(found.model)
    said, before = load_provenance(info.path), load_provenance(first.path)
    if describe_itself:
        recovery = {"steps": 20, "kept": found.kept, "lr": 0.005, "seed": 2, "samples": found.samples}
        assert said == {**before, "recovery": recovery}
    else:
        assert said == before == {}
        assert info.bytes == first.bytes
    _, again = recover_checkpoint(workload, first.path, tmp_path / "again", steps=20, seed=2)
    files = [(folder / "model.safetensors").read_bytes() for folder in (info.path, again.path)]
    assert files[0] == files[1]


@pytest.mark.parametrize("lr", [0.1, 0.5])
def test_a_network_that_is_nearly_exact_is_recovered_at_any_rate(texts: Workload, lr: float) -> None:
    """Steps that are too long lead away from it; the training goes back and takes shorter ones."""
    exact = {
        unit.name: {"action": {"kind": "quantize", "bits": 6}, "modules": list(unit.modules)}
        for unit in units(texts.model)
    }
    packed = apply_(copy.deepcopy(texts.model), exact, packed=True)
    found = recover(texts, packed, steps=200, lr=lr)
    assert found.after.value < 0.5 * found.before.value
    assert found.steps == 200
