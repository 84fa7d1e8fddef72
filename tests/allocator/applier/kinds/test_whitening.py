"""Statistics of any scale, and groups that saw nothing: factors stay numbers, and errors are those of the weighting."""

import pytest
import torch

from allocator.actions import Keep, Layer, LowRank
from allocator.applier import LayerStatistics, approximate

GROUPED = Layer("conv2d", (8, 6, 2, 2), groups=2)


def statistics(scale: float, dead: bool, fisher: float = 1.0) -> LayerStatistics:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 100, 24, generator=generator) * torch.linspace(0.1, 3, 24)
    moment = scale * x.transpose(1, 2) @ x / 100
    if dead:
        moment[1] = 0
    return LayerStatistics(moment, torch.zeros(2, 24), fisher * torch.rand(8, generator=generator))


def made(weighting: str, known: LayerStatistics) -> torch.Tensor:
    weight = torch.randn(GROUPED.weight_shape, generator=torch.Generator().manual_seed(1))
    action = LowRank(rank=2, left=Keep(), right=Keep(), weighting=weighting)
    return approximate(weight, action, GROUPED, known)


@pytest.mark.parametrize("weighting", ["input", "fisher"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_scale_of_the_statistics_does_not_matter(weighting: str, scale: float) -> None:
    torch.testing.assert_close(made(weighting, statistics(scale, False, scale)), made(weighting, statistics(1, False)))


@pytest.mark.parametrize("weighting", ["input", "fisher"])
def test_a_group_whose_inputs_are_always_zero_is_factored_as_if_unweighted(weighting: str) -> None:
    known, plain = made(weighting, statistics(1, True)), made("none", statistics(1, True))
    assert bool(torch.isfinite(known).all())
    torch.testing.assert_close(known[:4], made(weighting, statistics(1, False))[:4])
    if weighting == "input":
        torch.testing.assert_close(known[4:], plain[4:])


def test_outputs_that_nothing_depends_on_are_all_alike() -> None:
    torch.testing.assert_close(made("fisher", statistics(1, False, 0.0)), made("input", statistics(1, False)))
