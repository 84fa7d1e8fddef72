"""Which forwards of a class's own can run a part of their layer: right ones are, all others are found out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import parse
from allocator.applier import units
from allocator.applier.modules import runs_in_parts
from allocator.applier.plan import require_doable
from allocator.applier.trial import lets_through
from allocator.errors import ActionError


def conv(change: Callable[[nn.Conv2d, Tensor], Tensor], *args: Any, **options: Any) -> nn.Conv2d:
    """A convolution whose class does what it is told on its forward."""

    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return change(self, x)

    return Own(*(args or (6, 8, 3)), **options)


def linear(change: Callable[[nn.Linear, Tensor], Tensor], **options: Any) -> nn.Linear:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return change(self, x)

    return Own(6, 8, **options)


def on(m: nn.Conv2d, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """A plain convolution, with another weight if one is given."""
    return functional.conv2d(x, m.weight if weight is None else weight, m.bias, m.stride, 0, m.dilation, m.groups)


class StaticSame(nn.Conv2d):
    """As ports of EfficientNet have it: padding that was worked out for one size of image, in a module of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.static_padding = nn.ZeroPad2d((0, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.static_padding(x)
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Step(nn.Conv2d):
    """Overrides torch's inner step in place of the forward."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        return functional.conv2d(functional.pad(input, (2, 0, 0, 2)), weight, bias)


class StandardisedStep(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        return super()._conv_forward(input, weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1), bias)


class WithArgument(nn.Conv2d):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return on(self, x) * scale


def standardised(m: nn.Conv2d, x: Tensor) -> Tensor:
    rows = m.weight.flatten(1)
    rows = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-5)
    return on(m, x, rows.view_as(m.weight))


def spectral(m: nn.Conv2d) -> Tensor:
    return torch.linalg.matrix_norm(m.weight.flatten(1), 2)


def renormed(m: nn.Conv2d, x: Tensor) -> Tensor:
    m.weight.data = torch.renorm(m.weight.data, 2, 0, 100.0)
    return on(m, x)


def clipped(m: nn.Conv2d, x: Tensor) -> Tensor:
    m.weight.data.clamp_(-1e7, 1e7).mul_(1.0)
    m.weight.data[0, 0, 0, 0] = 0
    return on(m, x)


def viewed(m: nn.Conv2d, x: Tensor) -> Tensor:
    y = on(m, x)
    return y.view(len(x), m.out_channels, *y.shape[2:])


def same_dynamic(m: nn.Conv2d, x: Tensor) -> Tensor:
    """Padding from the size of the input and of the weight."""
    ends: list[int] = []
    for size, kernel, stride in zip(x.shape[:1:-1], m.weight.shape[:1:-1], m.stride[::-1], strict=True):
        both = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        ends += [both // 2, both - both // 2]
    return on(m, functional.pad(x, ends))


BOTH, OUTPUTS = (True, True), (True, False)
RIGHT: Mapping[str, tuple[Callable[[], nn.Module], tuple[bool, bool]]] = {
    "static same padding": (lambda: StaticSame(6, 8, 3, stride=2), BOTH),
    "strided and dilated": (lambda: StaticSame(3, 8, (2, 3), stride=(2, 1), dilation=2, bias=False), BOTH),
    "of the sizes that are tried": (lambda: StaticSame(2, 2, 1), BOTH),
    "and of others": (lambda: StaticSame(2, 5, 2), BOTH),
    "grouped": (lambda: StaticSame(6, 12, 3, groups=3), OUTPUTS),
    "depthwise": (lambda: StaticSame(6, 6, 3, groups=6), OUTPUTS),
    "dynamic same padding": (lambda: conv(same_dynamic, stride=2), BOTH),
    "padding of ones": (lambda: conv(lambda m, x: on(m, functional.pad(x, (1, 1, 1, 1), value=1.0))), OUTPUTS),
    "an activation before": (lambda: conv(lambda m, x: on(m, torch.relu(x))), OUTPUTS),
    "a clamp before": (lambda: conv(lambda m, x: on(m, x.clamp(-100, 100))), OUTPUTS),
    "torch's own forward": (lambda: conv(lambda m, x: nn.Conv2d.forward(m, functional.pad(x, (0, 1)))), BOTH),
    "one number on the weight": (lambda: conv(lambda m, x: on(m, x, m.weight / 2)), BOTH),
    "the inner step": (lambda: Step(6, 8, 3), BOTH),
    "a matrix": (lambda: linear(lambda m, x: functional.linear(torch.tanh(x), m.weight, m.bias)), OUTPUTS),
    "a matrix without bias": (lambda: linear(lambda m, x: x @ m.weight.t(), bias=False), OUTPUTS),
}
WRONG: Mapping[str, Callable[[], nn.Module]] = {
    "standardised weight": lambda: conv(standardised),
    "standardised in the inner step": lambda: StandardisedStep(6, 8, 3),
    "weight over its norm": lambda: conv(lambda m, x: on(m, x, m.weight / spectral(m))),
    "clamped weight": lambda: conv(lambda m, x: on(m, x, m.weight.clamp(-1, 1))),
    "small weights dropped": lambda: conv(lambda m, x: on(m, x, m.weight * (m.weight.abs() > 1e-5))),
    "rounded weight": lambda: conv(lambda m, x: on(m, x, torch.round(m.weight * 64) / 64)),
    "largest norm": lambda: conv(renormed),
    "written to": lambda: conv(clipped),
    "as many outputs as it was made with": lambda: conv(viewed),
    "an activation behind": lambda: conv(lambda m, x: torch.relu(on(m, x))),
    "outputs over their size": lambda: conv(lambda m, x: functional.normalize(on(m, x))),
    "the input added": lambda: conv(lambda m, x: on(m, x) + x.mean()),
    "the bias left out": lambda: conv(lambda m, x: functional.conv2d(x, m.weight)),
    "twice the bias": lambda: conv(lambda m, x: on(m, x) + (0 if m.bias is None else m.bias.view(-1, 1, 1))),
    "dropout behind": lambda: conv(lambda m, x: functional.dropout(on(m, x), 0.3, m.training)),
    "less than float64": lambda: conv(lambda m, x: functional.conv2d(x.float(), m.weight.float()).double(), bias=False),
    "outputs turned": lambda: conv(lambda m, x: on(m, x).flip(1)),
    "nothing": lambda: conv(lambda m, x: 0 * on(m, x), bias=False),
    "not finite": lambda: conv(lambda m, x: on(m, x) * torch.inf, bias=False),
    "another argument": lambda: WithArgument(6, 8, 3),
    "rows and columns turned": lambda: linear(lambda m, x: functional.linear(x, m.weight, m.bias).transpose(-1, -2)),
    "a matrix of one input": lambda: linear(lambda m, x: functional.linear(x.flatten(1), m.weight, m.bias)),
}  # fmt: skip


def with_state(kind: type[nn.Module] | None = None, **state: Tensor) -> nn.Conv2d:
    """What only other parameters or buffers make wrong, and those at values at which nothing shows."""

    def change(m: nn.Conv2d, x: Tensor) -> Tensor:
        values = dict([*m.named_parameters(), *m.named_buffers()])
        y = on(m, x, m.weight * values["rows"].view(-1, 1, 1, 1) if "rows" in values else None)
        return y + values["added"] * x.mean() if "added" in values else y

    module = conv(change)
    for name, value in state.items():
        module.register_parameter(name, nn.Parameter(value)) if kind else module.register_buffer(name, value)
    return module


@pytest.mark.parametrize(("make", "wanted"), RIGHT.values(), ids=RIGHT)
def test_forwards_that_are_linear_in_the_rows_of_the_weight_run_a_part(
    make: Callable[[], nn.Module], wanted: tuple[bool, bool]
) -> None:
    module = make()
    assert not runs_in_parts(module)
    assert (lets_through(module, "outputs"), lets_through(module, "channels")) == wanted
    assert not lets_through(module, "none")


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_all_others_are_found_out(make: Callable[[], nn.Module]) -> None:
    module = make()
    assert not runs_in_parts(module)
    assert (lets_through(module, "outputs"), lets_through(module, "channels")) == (False, False)


@pytest.mark.parametrize("trained", [False, True])
def test_what_was_learnt_does_not_count(trained: bool) -> None:
    kind = nn.Parameter if trained else None
    assert not lets_through(with_state(kind, added=torch.zeros(())), "outputs")
    assert not lets_through(with_state(kind, rows=torch.ones(8)), "outputs")
    assert lets_through(with_state(kind, rows=torch.zeros(1)), "outputs")


def test_patches_and_hooks_before_the_layer_are_refused_at_any_time() -> None:
    module = StaticSame(6, 8, 3)
    assert lets_through(module, "outputs")
    handle = module.register_forward_pre_hook(lambda *_: None)
    assert not lets_through(module, "outputs")
    handle.remove()
    assert lets_through(module, "outputs")
    for name in ("forward", "_conv_forward"):
        setattr(module, name, getattr(module, name))
        assert not lets_through(module, "outputs")
        delattr(module, name)
    assert lets_through(module, "outputs")


def test_an_embedding_or_a_weight_of_the_class_is_not_tried() -> None:
    class Looked(nn.Embedding):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Held(StaticSame):
        @property
        def bias(self) -> Tensor | None:
            return self._parameters.get("bias")

    assert not lets_through(Looked(4, 3), "outputs")
    held = StaticSame(6, 8, 3)
    held.__class__ = Held
    assert not lets_through(held, "outputs")


def test_the_trial_touches_nothing_and_is_made_once() -> None:
    calls: list[bool] = []

    class Counted(StaticSame):
        def forward(self, x: Tensor) -> Tensor:
            self.register_buffer("seen", x.detach(), persistent=False)
            calls.append(self.training)
            torch.rand(1)
            return super().forward(x)

    module = Counted(6, 8, 3).eval()
    module.register_forward_hook(lambda *_: pytest.fail("a hook is called"))
    module.register_buffer("count", torch.zeros(2))
    module.weight.grad = torch.ones_like(module.weight)
    before = copy.deepcopy(module.state_dict()), sorted(vars(module)), type(module), torch.get_rng_state()
    assert lets_through(module, "channels")
    after = module.state_dict(), sorted(vars(module)), type(module), torch.get_rng_state()
    assert set(calls) == {False, True}
    assert not module.training
    assert all(torch.equal(before[0][key], after[0][key]) for key in after[0])
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    made = len(calls)
    assert lets_through(module, "outputs")
    assert len(calls) == made
    assert lets_through(copy.deepcopy(module), "outputs")
    assert len(calls) == 2 * made


def test_the_answer_is_the_same_without_memory_and_in_any_context() -> None:
    with torch.device("meta"):
        assert lets_through(StaticSame(6, 8, 3), "channels")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert lets_through(StaticSame(6, 8, 3), "channels")
    with torch.inference_mode():
        assert lets_through(StaticSame(6, 8, 3), "channels")
    assert lets_through(StaticSame(6, 8, 3).half(), "channels")


HALF = {"kind": "keep", "dtype": "float16"}
RANK = {"kind": "low_rank", "rank": 2, "left": HALF, "right": HALF}
TUCKER = {"kind": "tucker2", "rank_out": 3, "rank_in": 2, "parts": HALF}
KINDS: Mapping[str, tuple[dict[str, Any], set[str]]] = {
    "low_rank": (RANK, {"same", "rectified"}),
    "corrected": ({"kind": "corrected", "action": RANK}, {"same", "rectified"}),
    "tucker2": (TUCKER, {"same"}),
    "corrected tucker2": ({"kind": "corrected", "action": TUCKER}, {"same"}),
    "cp": ({"kind": "cp", "rank": 2, "kernel": "whole", "parts": HALF}, set()),
    "tt": ({"kind": "tt", "ranks": [3, 2, 2], "parts": HALF}, set()),
}


@pytest.mark.parametrize(("action", "doable"), KINDS.values(), ids=KINDS)
def test_each_kind_asks_for_what_its_part_changes_and_the_others_are_refused_by_name(
    action: dict[str, Any], doable: set[str]
) -> None:
    model = nn.ModuleDict(
        {
            "same": StaticSame(6, 8, 3),
            "rectified": conv(lambda m, x: on(m, torch.relu(x))),
            "standardised": conv(standardised),
        }
    )
    for unit in units(model):
        if unit.name in doable:
            require_doable(model, unit, parse(action))
            continue
        said = f"module '{unit.name}': (Own|StaticSame) has a forward of its own, so several layers cannot stand in"
        with pytest.raises(ActionError, match=said):
            require_doable(model, unit, parse(action))
