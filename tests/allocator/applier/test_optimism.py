"""What a fit looks like on the inputs that it was fitted to, against what it does to others."""

import pytest
import torch

from allocator.actions import Layer
from allocator.applier.optimism import optimism
from allocator.applier.statistics import LayerStatistics

COLUMNS = 40


def moment(positions, g, scale=1.0, groups=1):
    x = scale * torch.randn(groups, positions, COLUMNS, generator=g)
    return LayerStatistics(input_moment=x.transpose(1, 2) @ x / positions)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_it_is_large_with_few_positions_and_1_with_many(scale):
    g = torch.Generator().manual_seed(0)
    layer, weight = Layer("linear", (16, COLUMNS)), torch.randn(16, COLUMNS, generator=g)
    few, some, many = (
        optimism(weight, layer, moment(n, g), moment(n, g, scale)) for n in (COLUMNS // 2, 3 * COLUMNS, 500 * COLUMNS)
    )
    assert few > 5
    assert 1.2 < some < few
    assert many == pytest.approx(1, abs=0.02)


def test_each_group_of_a_convolution_counts_by_itself():
    g = torch.Generator().manual_seed(0)
    layer = Layer("conv2d", (8, 10, 2, 2), groups=2)
    weight = torch.randn(layer.weight_shape, generator=g)
    seen, unseen = (moment(4000, g, groups=2) for _ in range(2))
    assert optimism(weight, layer, seen, unseen) == pytest.approx(1, abs=0.1)


def test_where_nothing_is_to_be_fitted_it_is_1():
    g = torch.Generator().manual_seed(0)
    layer, none = Layer("linear", (3, COLUMNS)), LayerStatistics(input_moment=torch.zeros(1, COLUMNS, COLUMNS))
    assert optimism(torch.randn(3, COLUMNS, generator=g), layer, none, moment(99, g)) == 1
    assert optimism(torch.zeros(3, COLUMNS), layer, moment(99, g), moment(99, g)) == 1
