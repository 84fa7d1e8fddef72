"""Compressed models copied and pickled, though their layers' classes were made as they were compressed."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.actions import parse
from allocator.applier import apply_
from allocator.testing.actions import done_to, network

HALF = {"kind": "keep", "dtype": "float16"}
ACTIONS: tuple[dict[str, Any], ...] = (
    {"kind": "quantize", "bits": 3},
    {"kind": "low_rank", "rank": 1, "left": HALF, "right": {"kind": "quantize", "bits": 4}},
)


class Attention(nn.MultiheadAttention):
    """A subclass, whose opened class has to be made."""


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = Attention(8, 2, batch_first=True)
        self.plain = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x, x, x)[0]
        return self.plain(x, x, x)[0]


def attentive() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return Attentive().eval(), (torch.randn(2, 3, 8),)


def through_torch(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "deepcopy": copy.deepcopy,
    "torch": through_torch,
    **{f"pickle {n}": lambda model, n=n: pickle.loads(pickle.dumps(model, n)) for n in range(6)},
}


@pytest.mark.parametrize("make", [network, attentive])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("described", ACTIONS, ids=lambda described: described["kind"])
def test_copies_are_alike_and_share_nothing(make: Any, packed: bool, described: Any) -> None:
    model, inputs = make()
    action = parse(described)
    solution = {unit.name: {"action": described, "modules": list(unit.modules)} for unit in done_to(model, action)}
    apply_(model, solution, packed)
    wanted = model(*inputs)
    for name, way in WAYS.items():
        made = way(model)
        assert [type(module) for module in made.modules()] == [type(module) for module in model.modules()], name
        assert len(list(made.parameters())) == len(list(model.parameters())), "a tied weight came apart"
        assert not {id(one) for one in made.parameters()} & {id(one) for one in model.parameters()}
        assert torch.equal(made(*inputs), wanted), name
        assert list(made.state_dict()) == list(model.state_dict())
        again = copy.deepcopy(made)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
        assert torch.equal(model(*inputs), wanted)
        assert torch.equal(again(*inputs), wanted)


class Stateful(nn.Linear):
    """Says itself how it is pickled."""

    def __reduce__(self) -> Any:
        return rebuilt, (self.in_features,)


def rebuilt(size: int) -> str:
    return f"rebuilt {size}"


def test_a_class_that_says_itself_how_it_is_pickled_is_left_to_that() -> None:
    model = apply_(nn.Sequential(Stateful(4, 4)), {"0": {"action": ACTIONS[0]}}, packed=True)
    assert pickle.loads(pickle.dumps(model[0])) == "rebuilt 4"
