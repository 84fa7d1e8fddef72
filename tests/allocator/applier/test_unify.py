"""`unify` against its definition written block by block, and its layout by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from allocator.actions import Keep, Layer, NumberFormat, Quantize, Unify
from allocator.applier import LayerStatistics, approximate, pack, unpack
from allocator.errors import ActionError

KEEP = Keep()


def reference(weights: np.ndarray, action: Unify, importance: np.ndarray) -> np.ndarray:
    """The definition in Unify's docstring; weights [rows, columns], the rest by `approximate`."""
    rows, columns = weights.shape
    found = []
    for row in range(rows):
        for start in range(0, columns - action.block + 1, action.block):
            at = slice(start, start + action.block)
            size, v = np.abs(weights[row, at].astype(np.float64)), importance[row, at]
            mean = (v * size).sum() / v.sum()
            found.append(((v * (size - mean) ** 2).sum(), row, at, mean))
    found.sort(key=lambda one: one[0])  # stable
    out, rest = np.zeros_like(weights), np.ones(weights.shape, dtype=bool)
    for _, row, at, mean in found[: round(action.share * len(found))]:
        magnitude = np.float32(np.float16(np.float32(min(mean, 65504))))
        out[row, at] = np.where(weights[row, at] >= 0, magnitude, -magnitude)
        rest[row, at] = False
    if rest.any():
        others = torch.from_numpy(weights[rest][None])
        out[rest] = approximate(others, action.values, Layer("linear", tuple(others.shape))).numpy()[0]
    return out


VALUES = [KEEP, Quantize(bits=4, granularity="group", group_size=5, method="mse"), NumberFormat(format="mxfp4")]


@pytest.mark.parametrize("magnitude", [1.0, 1e-7, 1e-30, 1e30], ids=str)
@pytest.mark.parametrize("columns", [8, 19])
def test_against_the_reference(columns: int, magnitude: float) -> None:
    weights = np.random.default_rng(0).standard_t(3, (7, columns)).astype(np.float32) * np.float32(magnitude)
    weights[2] = 0
    layer = Layer("linear", weights.shape)
    for values in VALUES:
        for block, share in ((2, 0.3), (8, 0.5), (4, 1.0), (3, 0.01)):
            action = Unify(block=block, share=share, values=values)
            if action.rest(layer) is not None and action.rest(layer).columns < 5:
                continue
            got = approximate(torch.from_numpy(weights), action, layer).numpy()
            np.testing.assert_array_equal(got, reference(weights, action, np.ones_like(weights)), err_msg=repr(action))


@pytest.mark.parametrize("layer", [Layer("linear", (5, 18)), Layer("conv2d", (6, 2, 3, 3), groups=3)], ids=str)
def test_weighted_by_the_inputs(layer: Layer) -> None:
    x = torch.randn(layer.groups, 50, layer.columns, dtype=torch.float64) * torch.linspace(-3, 3, layer.columns).exp()
    moment = x.transpose(1, 2) @ x / 50
    each = moment.diagonal(dim1=1, dim2=2)
    importance = (each / each.mean()).float().repeat_interleave(layer.rows // layer.groups, 0).double().numpy()
    weight = torch.randn(layer.weight_shape)
    statistics = LayerStatistics(input_moment=moment)
    action = Unify(block=4, share=0.5, values=KEEP, weighting="input")
    got = approximate(weight, action, layer, statistics).view(layer.rows, -1).numpy()
    np.testing.assert_array_equal(got, reference(weight.view(layer.rows, -1).numpy(), action, importance))
    errors = [
        float(
            (importance * (approximate(weight, a, layer, statistics) - weight).view(layer.rows, -1).numpy() ** 2).sum()
        )
        for a in (action, Unify(block=4, share=0.5, values=KEEP))
    ]
    assert errors[0] < errors[1]
    with pytest.raises(ActionError, match="input moment, which was not given"):
        approximate(weight, action, layer)


def test_the_layout_by_hand() -> None:
    # blocks of 2: (2, −2) and (0, 0) cost nothing, (1, 3) and (1, −5) do, and 7 and 9 are in no block
    weight = torch.tensor([[1.0, 3.0, 2.0, -2.0, 7.0], [0.0, 0.0, 1.0, -5.0, 9.0]])
    layer = Layer("linear", (2, 5))
    action = Unify(block=2, share=0.5, values=Quantize(bits=8, scheme="asymmetric", scale_dtype="float32"))
    rest = torch.tensor([[1.0, 3.0, 7.0, 1.0, -5.0, 9.0]])
    wanted = pack(rest, action.values, Layer("linear", (1, 6))).tolist()
    half = torch.tensor([2.0, 0.0]).half().view(torch.uint8).tolist()
    buffer = pack(weight, action, layer)
    assert buffer.tolist() == [0b0110, *half, 0b1101, *wanted]
    torch.testing.assert_close(unpack(buffer, action, layer), weight, atol=0.03, rtol=0)


def test_all_blocks_may_be_unified_and_nothing_left() -> None:
    layer = Layer("linear", (3, 8))
    action = Unify(block=4, share=1, values=KEEP)
    assert action.rest(layer) is None
    weight = torch.randn(3, 8)
    blocks = approximate(weight, action, layer).view(6, 4)
    torch.testing.assert_close(
        blocks.abs(), weight.view(6, 4).abs().mean(1, keepdim=True).expand(6, 4), rtol=1e-3, atol=0
    )
    assert torch.equal(blocks.sign(), weight.view(6, 4).sign())


def test_a_damaged_map_is_refused() -> None:
    layer = Layer("linear", (4, 8))
    action = Unify(block=2, share=0.5, values=KEEP)
    buffer = pack(torch.randn(4, 8), action, layer)
    buffer[0] ^= 1
    with pytest.raises(ActionError, match=r"the map marks \d blocks where 8 are unified; it is damaged"):
        unpack(buffer, action, layer)
