"""`slim` against its definition, its layout by hand, its least squares against a dense solver."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from allocator.actions import Keep, Kept, Layer, Quantize, Slim
from allocator.applier import Approximator, LayerStatistics, apply_, approximate, pack, units, unpack
from allocator.errors import ActionError

CONV = Layer("conv2d", (4, 3, 2, 2))
ROWS, COLUMNS = Kept(4, (0, 2, 3)), Kept(3, (0, 2))


def test_what_remains_is_stored_as_a_smaller_layer_and_the_rest_is_0() -> None:
    weight = torch.randn(4, 3, 2, 2)
    for values in (Keep(), Quantize(bits=3), Quantize(bits=4, granularity="group", group_size=3, method="mse")):
        got = approximate(weight, Slim(rows=ROWS, columns=COLUMNS, values=values), CONV).numpy()
        small = approximate(weight[[0, 2, 3]][:, [0, 2]].reshape(3, 8), values, Layer("linear", (3, 8))).numpy()
        wanted = np.zeros((4, 3, 2, 2), np.float32)
        for i, row in enumerate((0, 2, 3)):
            for j, channel in enumerate((0, 2)):
                wanted[row, channel] = small[i, 4 * j : 4 * j + 4].reshape(2, 2)
        np.testing.assert_array_equal(got, wanted)


def test_the_layout_by_hand() -> None:
    weight = torch.arange(1.0, 13).view(2, 6)
    action = Slim(rows=Kept(2, (1,)), columns=Kept(3, (0, 2)), values=Keep(dtype="float16"))
    buffer = pack(weight, action, Layer("linear", (2, 6)))
    numbers = torch.tensor([7.0, 8.0, 11.0, 12.0]).half().view(torch.uint8).tolist()
    assert buffer.tolist() == [0b10, 0b101, *numbers]
    assert unpack(buffer, action, Layer("linear", (2, 6))).tolist() == [[0] * 6, [7, 8, 0, 0, 11, 12]]


def test_a_damaged_map_is_refused() -> None:
    action = Slim(rows=ROWS, columns=COLUMNS, values=Keep())
    buffer = pack(torch.randn(4, 3, 2, 2), action, CONV)
    for place in (0, 1):
        broken = buffer.clone()
        broken[place] ^= 2
        with pytest.raises(ActionError, match="map of the kept channels is not the action's"):
            unpack(broken, action, CONV)


def test_for_scores_rows_that_nobody_reads_are_as_they_were() -> None:
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    made = Approximator(weight, CONV)
    action = Slim(rows=ROWS, columns=COLUMNS, values=Quantize(bits=3))
    scored, stored = made.as_scored(action), made.approximate(action)
    assert torch.equal(scored[1], weight.float().double()[1])
    assert torch.equal(stored[1], torch.zeros_like(stored[1]))
    assert torch.equal(scored[[0, 2, 3]], stored[[0, 2, 3]])
    assert scored.dtype == torch.float64
    only_rows = Slim(rows=ROWS, values=Keep())
    assert torch.equal(made.as_scored(only_rows), weight.float().double())
    assert torch.equal(made.as_scored(Keep()), weight.float().double())


@pytest.mark.parametrize("layer", [Layer("linear", (5, 12)), Layer("conv2d", (5, 3, 2, 2))], ids=lambda x: x.kind)
def test_the_columns_that_stay_take_over_what_they_can(layer: Layer) -> None:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    x = torch.randn(500, 12, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(layer.weight_shape, generator=generator)
    matrix = weight.view(5, 12).double()
    statistics = LayerStatistics(input_moment=(x.T @ x / len(x)).unsqueeze(0))
    kept = Kept(3, (0, 2))
    columns = [0, 1, 2, 3, 8, 9, 10, 11]
    plain, refitted = (
        approximate(weight, Slim(columns=kept, values=Keep(), weighting=weighting), layer, statistics).view(5, 12)
        for weighting in ("none", "input")
    )
    # Ridge regression by brute force: rows of √(εn) · I under the inputs.
    damping = 1e-4 * float((x[:, columns] ** 2).mean())
    seen = np.concatenate([x[:, columns].numpy(), np.sqrt(damping * len(x)) * np.eye(8)])
    # The kept weights themselves are where the damping pulls: only what is taken over is shrunk.
    target = np.concatenate([(x[:, 4:8] @ matrix[:, 4:8].T).numpy(), np.zeros((8, 5))])
    wanted = matrix[:, columns].numpy() + np.linalg.lstsq(seen, target, rcond=None)[0].T
    np.testing.assert_allclose(refitted[:, columns].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert not refitted[:, 4:8].any()
    wrong = [float(((x @ (m.double() - matrix).T) ** 2).sum()) for m in (plain, refitted)]
    best = np.linalg.lstsq(x[:, columns].numpy(), (x @ matrix.T).numpy(), rcond=None)[1].sum()
    assert best <= wrong[1] < best * 1.001 < wrong[0] / 2
    with pytest.raises(ActionError, match="input moment, which was not given"):
        approximate(weight, Slim(columns=kept, values=Keep(), weighting="input"), layer)


def test_inputs_that_are_always_0_take_over_nothing() -> None:
    layer, statistics = Layer("linear", (2, 4)), LayerStatistics(input_moment=torch.zeros(1, 4, 4))
    weight, kept = torch.randn(2, 4), Kept(4, (1, 3))
    got = approximate(weight, Slim(columns=kept, values=Keep(), weighting="input"), layer, statistics)
    assert torch.equal(got, approximate(weight, Slim(columns=kept, values=Keep()), layer))


def test_one_kept_column_is_solved_for_once() -> None:
    layer = Layer("linear", (4, 6))
    x = torch.randn(30, 6)
    made = Approximator(torch.randn(4, 6), layer, LayerStatistics(input_moment=(x.T @ x).unsqueeze(0)))
    for bits in (3, 4):
        made.approximate(Slim(columns=Kept(6, (1, 2)), values=Quantize(bits=bits), weighting="input"))
    assert made.worth_keeping
    assert len(made._weight.memory) == 1


class Doubled(nn.Conv2d):
    """With a forward of its own, which no smaller layer can stand in for."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight.abs().mean()


SOME, FEW = Kept(8, (0, 2, 3, 7)), Kept(6, (1, 4, 5))
ROWS_ALONE, BOTH = {"rows": SOME}, {"rows": SOME, "columns": FEW}
RUNS: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, Kept], float]] = {
    "linear": (nn.Linear(6, 8), (3, 2, 6), BOTH, 0.25),
    "channels of two": (nn.Linear(12, 8, bias=False), (3, 12), BOTH, 0.25),
    "columns": (nn.Conv2d(6, 8, 3, padding="same", padding_mode="circular"), (2, 6, 5, 5), {"columns": FEW}, 0.5),
    "rows": (nn.Conv1d(6, 8, 3, stride=2, dilation=2), (2, 6, 9), ROWS_ALONE, 0.5),
    "unbatched": (nn.Conv3d(6, 8, (1, 2, 2), padding=1), (6, 3, 4, 4), BOTH, 0.25),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", groups=8), (2, 8, 5, 5), ROWS_ALONE, 0.5),
    "groups": (nn.Conv2d(4, 8, 3, groups=2), (2, 4, 5, 5), ROWS_ALONE, 1.0),
    "a channel to several": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 5, 5), ROWS_ALONE, 1.0),
    "a forward of its own": (Doubled(6, 8, 3), (2, 6, 5, 5), BOTH, 1.0),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", RUNS.values(), ids=RUNS)
def test_it_runs_as_the_smaller_layer_that_remains(case: Any, packed: bool) -> None:
    module, shape, kept, share = case
    model = nn.Sequential(copy.deepcopy(module).double().eval())
    (unit,) = units(model)
    action = Slim(values=Quantize(bits=6), **kept)
    by_hand = copy.deepcopy(model)
    by_hand[0].weight.data.copy_(approximate(unit.weight, action, unit.layer))
    small = apply_(copy.deepcopy(model), {"0": {"action": action.to_json(), "modules": ["0"]}}, packed=packed)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(small(x), by_hand(x))
    assert torch.equal(small[0].weight, by_hand[0].weight)
    counts = []
    for one in (small, by_hand):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            one(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == share * counts[1]
