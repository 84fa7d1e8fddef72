"""Running statistics taken anew, against sums written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.recovery import norms
from allocator.workload import Workload


def test_the_mean_over_batches_of_their_means_and_variances(
    images: Workload, compressed: Callable[..., nn.Module]
) -> None:
    student = compressed(images)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    batches = list(images.calibration)
    found = norms.estimated(student, images.task, batches)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert [norm.momentum for norm in norms.batch_norms(student)] == [0.1, 0.3]
    assert not any(module.training for module in student.modules())
    assert len(found) == 2

    means, variances, deeper = [], [], []
    with torch.no_grad():
        for x, _ in batches:
            out = student.stem[0](x).double().transpose(0, 1).flatten(1)
            means.append(out.mean(1))
            variances.append(((out - out.mean(1, keepdim=True)) ** 2).sum(1) / (out.shape[1] - 1))
            # The next norm sees the first with the (biased) statistics of the batch.
            biased = student.stem[0](x).var((0, 2, 3), unbiased=False, keepdim=True)
            mean = student.stem[0](x).mean((0, 2, 3), keepdim=True)
            weight, bias = (each.view(1, -1, 1, 1) for each in (student.stem[1].weight, student.stem[1].bias))
            y = torch.relu((student.stem[0](x) - mean) / (biased + student.stem[1].eps).sqrt() * weight + bias)
            deeper.append(student.middle(y).mean((0, 2, 3)))
    for got, wanted in [(found[0][0], means), (found[0][1], variances), (found[1][0], deeper)]:
        assert torch.allclose(got.double(), torch.stack(wanted).mean(0).double(), rtol=1e-4, atol=1e-5)

    norms.write(student, found)
    changed = {key for key, value in student.state_dict().items() if not torch.equal(before[key], value)}
    assert changed == {f"{norm}.running_{what}" for norm in ("stem.1", "norm") for what in ("mean", "var")}


def test_a_single_value_per_channel_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    one = (torch.randn(1, 3), torch.zeros(1, dtype=torch.long))
    workload = Workload(model, [one], [one])
    with pytest.raises(UsageError, match="two samples or more"):
        norms.estimated(model, workload.task, [one])
    assert not model[1].training
    assert model[1].momentum == 0.1
