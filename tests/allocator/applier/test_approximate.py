"""Keep and low rank against numpy, dtypes, purity, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from allocator.actions import Action, Corrected, Keep, Layer, LowRank, Quantize
from allocator.applier import Approximator, approximate
from allocator.errors import ActionError

EXACT = Keep(dtype="float32")


def test_low_rank_is_the_truncated_svd_of_the_matrix() -> None:
    weight = torch.randn(6, 4, 3, 2)
    layer = Layer("conv2d", (6, 4, 3, 2))
    u, s, vt = np.linalg.svd(weight.double().numpy().reshape(6, 24), full_matrices=False)
    for rank in (1, 3, 6):
        got = approximate(weight, LowRank(rank=rank, left=EXACT, right=EXACT), layer)
        wanted = ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(6, 4, 3, 2)
        np.testing.assert_allclose(got.numpy(), wanted, atol=2e-6)


def test_the_scale_is_split_evenly_and_each_factor_has_its_own_action() -> None:
    weight = torch.randn(9, 5)
    approximator = Approximator(weight, Layer("linear", (9, 5)))
    left, right = approximator.parts(LowRank(rank=3, left=EXACT, right=EXACT)).values()
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))
    action = LowRank(rank=3, left=Quantize(bits=3), right=Keep(dtype="float16"))
    got_left, got_right = approximator.parts(action).values()
    assert torch.equal(got_left, approximate(left, action.left, Layer("linear", (9, 3))))
    assert torch.equal(got_right, right.half().float())
    assert torch.equal(approximator.approximate(action), got_left @ got_right)


def test_the_sign_of_a_singular_vector_is_fixed() -> None:
    weight = torch.randn(7, 5)
    left, right = Approximator(weight, Layer("linear", (7, 5))).parts(LowRank(rank=5, left=EXACT, right=EXACT)).values()
    assert bool((left.gather(0, left.abs().argmax(0, keepdim=True)) > 0).all())
    torch.testing.assert_close(left @ right, weight)


def test_many_ranks_cost_one_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    svd = torch.linalg.svd

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return svd(*args, **kwargs)

    monkeypatch.setattr(torch.linalg, "svd", counting)
    approximator = Approximator(torch.randn(8, 8), Layer("linear", (8, 8)))
    for rank in range(1, 9):
        approximator.approximate(LowRank(rank=rank, left=EXACT, right=EXACT))
    approximator.approximate(Quantize(bits=4))
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keep_rounds_and_saturates(dtype: torch.dtype) -> None:
    weight = torch.tensor([[0.1, -6e4, 7e37, 1 / 3]])
    got = approximate(weight, Keep(dtype=str(dtype).removeprefix("torch.")), Layer("linear", (1, 4)))
    top = torch.finfo(dtype).max
    assert torch.equal(got, weight.clamp(-top, top).to(dtype).float())
    assert got.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "action", [EXACT, Keep(dtype="float16"), Quantize(bits=4), LowRank(rank=2, left=EXACT, right=EXACT)]
)
def test_dtype_shape_and_purity(dtype: torch.dtype, action: Action) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6).to(dtype))
    before = weight.detach().clone()
    first = approximate(weight, action, Layer("linear", (4, 6)))
    first_again = approximate(weight, action, Layer("linear", (4, 6)))
    assert first.dtype == dtype
    assert first.shape == weight.shape
    assert not first.requires_grad
    assert torch.equal(first, first_again)
    first.zero_()
    assert torch.equal(weight, before)


def test_strides_do_not_matter() -> None:
    weight = torch.randn(6, 4, 3, 3)
    action = Quantize(bits=3, granularity="group", group_size=5)
    layer = Layer("conv2d", (6, 4, 3, 3))
    last = weight.to(memory_format=torch.channels_last)
    assert torch.equal(approximate(last, action, layer), approximate(weight, action, layer))


class _Unknown:
    """An action of a third party that the applier has no arithmetic for."""

    kind, usage = "sketch", ""

    def check(self, layer: Layer) -> None: ...

    def to_json(self) -> dict[str, Any]:
        return {}

    def stored_bytes(self, layer: Layer) -> int:
        return 0

    macs = bops = stored_bytes


@pytest.mark.parametrize(
    ("weight", "action", "said"),
    [
        (torch.randn(4, 4), LowRank(rank=5, left=EXACT, right=EXACT), "use at most 4"),
        (torch.randn(4, 4), Quantize(bits=4, method="gptq"), "input moment, which was not given"),
        (torch.randn(4, 4), Corrected(action=Quantize(bits=4)), "input mean, which was not given"),
        (torch.randn(4, 4), _Unknown(), "'sketch' has no arithmetic"),
        (torch.randn(4, 5), EXACT, r"shape \(4, 5\) but its layer says \(4, 4\)"),
        (torch.full((4, 4), torch.nan), EXACT, "NaN"),
        (torch.full((4, 4), -torch.inf), EXACT, "infinity"),
        (torch.full((4, 4), 3e38), EXACT, "beyond 2"),
        (torch.ones(4, 4, dtype=torch.int8), EXACT, "int8"),
        (torch.empty(4, 4, device="meta"), EXACT, "meta"),
    ],
)
def test_refusals(weight: torch.Tensor, action: Any, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        approximate(weight, action, Layer("linear", (4, 4)))
