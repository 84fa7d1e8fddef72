"""What is trained, its gradient against finite differences, and that nothing stays of the training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from allocator.applier.packed_units import packed_units
from allocator.recovery.adam import Adam
from allocator.recovery.course import Taught
from allocator.recovery.trainable import Trainable
from allocator.workload import Workload

Compressed = Callable[..., nn.Module]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def doubled(workload: Workload) -> Workload:
    def wide(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    batches = [
        {key: wide(value) for key, value in batch.items()} if isinstance(batch, dict) else tuple(map(wide, batch))
        for batch in workload.calibration
    ]
    return Workload(workload.model.double(), batches, workload.evaluation, workload.task, workload.name)


def test_the_gradient_is_that_of_finite_differences(workload: Workload, compressed: Compressed) -> None:
    wide = doubled(workload)
    student = compressed(wide, torch.float64)
    trainable, taught = Trainable(student), Taught(student, wide)
    draw = torch.Generator().manual_seed(2)
    vector = trainable.start + 0.05 * torch.randn(len(trainable.start), generator=draw, dtype=torch.float64)
    with trainable.at(vector) as leaves:
        found = trainable.gradient(taught.loss(0), leaves)

    def loss(at: Tensor) -> float:
        with torch.no_grad(), trainable.at(at):
            return float(taught.loss(0))

    assert len(found) == sum(leaf.numel() for leaf in leaves)
    step = 1e-5
    for place in range(0, len(vector), 3):
        direction = torch.zeros_like(vector)
        direction[place] = step
        slope = (loss(vector + direction) - loss(vector - direction)) / (2 * step)
        assert float(found[place]) == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert float(found.abs().max()) > 1e-3


def test_numbers_are_biases_norms_and_a_gain_per_row_that_can_be_stored(
    images: Workload, compressed: Compressed
) -> None:
    student = compressed(images)
    trainable = Trainable(student)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    assert {names[id(parameter)] for parameter in trainable.parameters} == {
        "stem.1.weight", "stem.1.bias", "middle.bias", "norm.weight", "norm.bias", "hidden.bias", "last.weight",
        "last.bias", "head.bias",
    }  # fmt: skip
    gained = {one.packed.name: one.log for one in trainable.gains}
    assert list(gained) == ["stem.0", "middle", "hidden", "head"]
    assert gained["head"] is None  # the powers of two of mxfp4
    assert len(trainable.start) == 8 * 4 + 8 + 12 * 3 + 5 + (8 + 8 + 12)
    assert not trainable.start[-28:].any()


def test_shared_weights_have_one_gain_and_frozen_parameters_none(texts: Workload, compressed: Compressed) -> None:
    student = compressed(texts)
    student.block.norm1.weight.requires_grad_(False)
    trainable = Trainable(student)
    assert next(one.packed.names for one in trainable.gains) == ("embed", "head")
    assert all(parameter is not student.block.norm1.weight for parameter in trainable.parameters)


def test_stored_and_running_say_the_same_but_for_rounding(workload: Workload, compressed: Compressed) -> None:
    student = compressed(workload)
    before = state(student)
    trainable = Trainable(student)
    batch = next(iter(workload.calibration))
    draw = torch.Generator().manual_seed(2)
    vector = trainable.start + 0.3 * torch.randn(len(trainable.start), generator=draw, dtype=torch.float64)
    with torch.no_grad():
        given = workload.task.logits(student, batch)
        with trainable.at(trainable.start):
            assert torch.equal(workload.task.logits(student, batch), given)
        with trainable.at(vector):
            meanwhile = workload.task.logits(student, batch)
        trainable.write(vector)
        stored = workload.task.logits(student, batch)
        assert float((stored - meanwhile).abs().max()) < 0.02 * float((stored - given).abs().max())
        trainable.write(trainable.start)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_packed_layers_are_what_they_were_even_after_an_error(workload: Workload, compressed: Compressed) -> None:
    student = compressed(workload)
    before = [(type(module), set(vars(module))) for module in student.modules()]
    buffers = [one.buffer for one in packed_units(student)]
    trainable = Trainable(student)

    def fail() -> None:
        with trainable.at(trainable.start):
            assert [type(module) for module in student.modules()] != [kind for kind, _ in before]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(type(module), set(vars(module))) for module in student.modules()] == before
    assert all(one.buffer is buffer for one, buffer in zip(packed_units(student), buffers, strict=True))


def test_adam_is_that_of_torch() -> None:
    target = torch.randn(6, dtype=torch.float64)
    own = Adam.begin(torch.zeros(6, dtype=torch.float64), 0.1, 30)
    theirs = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30)
    for _ in range(30):
        own.step(2 * (own.vector - target))
        optimiser.zero_grad()
        (theirs - target).square().sum().backward()
        optimiser.step()
        schedule.step()
    assert torch.allclose(own.vector, theirs.detach(), rtol=1e-9, atol=1e-12)
