"""Whether a class's own forward can run a part of its layer: tried on a few random numbers, never assumed."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from allocator.applier.kinds.own_forward import Convolution, OwnForward, Through, convolve

TOLERANCE = 1e-9
"""Largest relative difference that counts as none, in float64."""
_SAMPLES = (1e-3, 1.0, 1e3)
_ROWS = (-6.0, 6.0)
"""Sizes of the inputs, and decades between which the rows lie: a clamp or a threshold shows at one of them."""


@dataclass(frozen=True)
class _Verdict:
    outputs: bool
    channels: bool


_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, _Verdict]] = WeakKeyDictionary()


def lets_through(module: nn.Module, through: Through) -> bool:
    """Whether a module's class, with a forward of its own, can run a part of its layer (`convolve`).

    With y(x; W, b) what the forward gives for a weight and a bias, all of this must hold, in either mode:
    y(x; L·R, 0) = L·y(x; R, 0) for a kernel R of other numbers of rows, per group; y(x; W, b) = y(x; W, 0) + b where
    the layer has a bias; and for "channels" y(x; W·A, 0) = y(A·x; W, 0) for A to another number of input channels.
    It is tried on a copy whose other parameters and buffers are random, so that the answer depends on the class and
    its options alone, not on what was learnt. Standardised, normalised, masked, clamped, rounded weights fail, so does
    whatever needs the number of outputs that the layer was made with; a weight times one number does not fail. A
    forward that takes more than the input, or one under a pre-hook or a patch of its object, is not tried.

    The answer is kept with the module. It is of inputs little larger than the kernel: a forward that does something
    else to large ones is not found out.
    """
    if through == "none" or not isinstance(module, nn.Linear | Convolution):
        return False
    if vars(module).keys() & {"forward", "_conv_forward"} or module._forward_pre_hooks:
        return False
    state = type(module), module.bias is None
    known = _KNOWN.get(module)
    if known is None or known[0] != state:
        known = _KNOWN[module] = state, _tried(module)
    return known[1].channels if through == "channels" else known[1].outputs


def _tried(module: nn.Linear | Convolution) -> _Verdict:
    if not _takes_one_input(module) or any(hasattr(type(module), name) for name in ("weight", "bias")):
        return _Verdict(outputs=False, channels=False)
    own_random, plainly = torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False)
    with torch.device("cpu"), torch.no_grad(), own_random, plainly:
        outputs = _holds(module, _Trial.outputs)
        return _Verdict(outputs, outputs and _holds(module, _Trial.channels))


def _takes_one_input(module: nn.Module) -> bool:
    """Whether the forward takes the input and nothing else: nobody knows what the model would hand it."""
    try:
        parameters = list(inspect.signature(type(module).forward).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len(parameters) == 2 and all(one.kind in positional for one in parameters)


def _holds(module: nn.Linear | Convolution, equations: Any) -> bool:
    try:
        trial = _Trial(module)
        return all(_equal(*sides) for training in (False, True) for sides in equations(trial, training))
    except Exception:  # whatever a stranger's forward raises on other numbers of channels, it cannot run a part
        return False


class _Trial:
    """A copy of a module, and both sides of the equations that must hold of it, samples first and channels last."""

    def __init__(self, module: nn.Linear | Convolution) -> None:
        shape = tuple(module.weight.shape)
        self._draw = torch.Generator("cpu").manual_seed(0)
        self._groups: int = getattr(module, "groups", 1)
        self._rows, self._inputs, self._kernel = shape[0] // self._groups, shape[1], shape[2:]
        self._biased = module.bias is not None
        self._places: list[tuple[int, ...]] = [(), (2,)]  # a Linear's, which can be one or more dimensions
        if isinstance(module, Convolution):
            options = zip(self._kernel, module.dilation, module.stride, strict=True)
            self._places = [tuple((size - 1) * apart + 1 + stride for size, apart, stride in options)]
        self._channels_at = 1 if isinstance(module, Convolution) else -1
        self._twin = self._copy(module)

    def outputs(self, training: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Sums of rows, and the bias."""
        few, many = _other_than(self._rows, 2), _other_than(self._rows, 5)
        size = torch.logspace(*_ROWS, many, dtype=torch.float64)
        for x in self._examples(self._groups * self._inputs):
            right = self._random(self._groups, few, self._inputs, *self._kernel)
            left = self._random(self._groups, many, few) * size.unsqueeze(1)
            apart = self._apart(self._run(x, right.flatten(0, 1), training=training))
            whole = self._run(x, torch.einsum("gnm,gm...->gn...", left, right).flatten(0, 1), training=training)
            yield self._apart(whole) / size, torch.einsum("gnm,...gm->...gn", left, apart) / size
            if self._biased:
                bias = self._random(self._groups * few)
                yield self._run(x, right.flatten(0, 1), bias, training=training), apart.flatten(-2) + bias

    def channels(self, training: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Sums of input channels of a convolution without groups."""
        if self._groups > 1 or not self._kernel:
            raise ValueError("no part with other inputs runs here")
        few = _other_than(self._inputs, 2)
        for x in self._examples(self._inputs):
            first = self._random(few, self._inputs)
            core = self._random(_other_than(self._rows, 2), few, *self._kernel)
            whole = self._run(x, torch.einsum("oc...,ci->oi...", core, first), training=training)
            yield whole, self._run(torch.einsum("ci,ni...->nc...", first, x), core, training=training)

    def _run(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None, *, training: bool) -> Tensor:
        lent = kernel.clone()
        y = convolve(self._twin.train(training), x.clone(), lent, bias)
        if not torch.equal(lent, kernel) or y.shape[self._channels_at] != len(kernel):
            raise ValueError("it writes to its weight, or has other outputs")
        return y.movedim(self._channels_at, -1)

    def _apart(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:-1], self._groups, -1)

    def _examples(self, channels: int) -> Iterator[Tensor]:
        sizes = torch.tensor(_SAMPLES, dtype=torch.float64)
        for places in self._places:
            if self._channels_at == 1:
                yield self._random(len(sizes), channels, *places) * sizes.view(-1, 1, *[1] * len(places))
            else:
                yield self._random(len(sizes), *places, channels) * sizes.view(-1, *[1] * len(places), 1)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._draw, dtype=torch.float64)

    def _copy(self, module: nn.Module) -> nn.Module:
        """The module with other numbers and without weight or hooks, of a class to which both can be lent."""
        memo: dict[int, Any] = {id(hooks): OrderedDict() for name, hooks in vars(module).items() if "_hooks" in name}
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                numbers = torch.rand(tensor.shape, generator=self._draw, dtype=torch.float64) + 0.5
                memo[id(tensor)] = nn.Parameter(numbers) if isinstance(tensor, nn.Parameter) else numbers
        memo[id(module.weight)] = nn.Parameter(torch.empty(0))
        twin = copy.deepcopy(module, memo)
        del twin.weight
        twin.__class__ = type(type(module).__name__, (OwnForward, type(module)), {})
        return twin


def _other_than(taken: int, wanted: int) -> int:
    return wanted if wanted != taken else wanted + 1


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two results [samples, …] of float64 are, and are finite and not all zeros."""
    if one.shape != other.shape or {one.dtype, other.dtype} != {torch.float64}:
        return False
    one, other = one.flatten(1), other.flatten(1)
    size = one.abs().amax(1)
    return bool(size.isfinite().all() and size.any() and ((one - other).abs().amax(1) <= TOLERANCE * size).all())
