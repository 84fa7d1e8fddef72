"""Products of vectors with the second derivatives of a loss, by differentiating twice.

A graph is built once per piece of data, and as many products as wanted are taken from it. Differences of gradients
are no substitute: with ReLU their error is of the order of the result, at any step and in any precision. Everything is
summed over positions and in nats; whoever adds up pieces divides by all their positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from allocator.errors import UsageError
from allocator.tasks.positions import per_sample
from allocator.tasks.protocol import Batch
from profilers._plan import Plan, Target
from profilers._switch import switched

Matrix: TypeAlias = Literal["hessian", "ggn"]

UNABLE = ("not implemented", "once_differentiable", "inference tensor", "use_reentrant")
"""What torch's messages have in common when an operation has no second derivative."""


class Graph(Protocol):
    """A curvature matrix over some weights, as the operation of multiplying with it."""

    @property
    def positions(self) -> float:
        """Over which the matrix is a sum."""
        ...

    @property
    def pulled(self) -> Sequence[Tensor | None]:
        """What is differentiated a second time, per weight; None for a weight that no gradient reaches."""
        ...

    def product(self, vectors: Mapping[int, Tensor], onto: Sequence[int]) -> list[Tensor]:
        """The rows ``onto`` of matrix · vector; weights that ``vectors`` does not name have zeros there."""
        ...


@contextmanager
def differentiable(plan: Plan, targets: Sequence[Target]) -> Iterator[None]:
    """Gradients for the weights of these targets and nothing else, through kernels that can be differentiated twice.

    Raises:
        UsageError: an operation of the network has no second derivative, or a weight can have no gradient at all.
    """
    plan.workload.model.requires_grad_(False)
    weights = [target.unit.weight for target in targets]
    try:
        with torch.enable_grad(), sdpa_kernel([SDPBackend.MATH]):
            for weight in weights:
                weight.requires_grad_()
            yield
    except RuntimeError as error:
        if any(
            sign in str(error)
            for sign in ("not implemented", "once_differentiable", "inference tensor", "use_reentrant")
        ):
            raise UsageError(
                f"the network of {plan.workload.name} cannot be differentiated twice ({error}): build that part from "
                "plain operations, outside of inference mode, or use the profiler ggn, which differentiates once"
            ) from error
        raise
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def build(plan: Plan, targets: Sequence[Target], piece: Batch, matrix: Matrix) -> Graph:
    """The graph of one piece over the weights of these targets; call it, and use it, inside `differentiable`."""
    task = plan.workload.task
    logits = task.logits(plan.workload.model, piece)
    if not logits.requires_grad:
        raise UsageError(
            f"no gradient reaches layer {targets[0].name} from the logits: the forward pass cuts it (detach, no_grad, "
            "inference mode). Remove that, or use the profiler kl, which needs none"
        )
    mask = task.mask(piece)
    positions = float(per_sample(torch.ones(logits.shape[:-1]), mask)[1].sum())
    weights = [target.unit.weight for target in targets]
    if matrix == "ggn":
        return GgnGraph(weights, logits, mask, positions)
    loss = task.loss(logits, piece)
    if not loss.requires_grad:
        raise UsageError(
            f"the loss of task {task.name} lets no gradient through to the logits: its loss(logits, batch) detaches, "
            "or computes outside of torch. Take the profiler ggn, or a task whose loss can be differentiated"
        )
    return HessianGraph(weights, loss * positions, positions)


class HessianGraph:
    """H = ∂²(Σ positions loss)/∂W², through the gradient's own graph."""

    def __init__(self, weights: Sequence[Tensor], loss: Tensor, positions: float) -> None:
        self.positions = positions
        self._weights = weights
        self.pulled = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)

    def product(self, vectors: Mapping[int, Tensor], onto: Sequence[int]) -> list[Tensor]:
        """See `Graph`."""
        pairs = [(self.pulled[place], vector) for place, vector in vectors.items()]
        return _back(pairs, [self._weights[place] for place in onto])


class GgnGraph:
    """G = Jᵀ (diag p − p pᵀ) J: the Hessian of KL(p ‖ ·), or that of the loss without the network's own curvature.

    Jᵀu is linear in u, so that differentiating it once more, in u, gives Jv: no forward mode is needed.
    """

    def __init__(self, weights: Sequence[Tensor], logits: Tensor, mask: Tensor | None, positions: float) -> None:
        self.positions = positions
        self._weights, self._logits, self._mask = weights, logits, mask
        self._p = torch.softmax(logits.detach(), -1)
        self._dummy = torch.zeros_like(logits, requires_grad=True)
        self.pulled = torch.autograd.grad(logits, weights, self._dummy, create_graph=True, allow_unused=True)

    def product(self, vectors: Mapping[int, Tensor], onto: Sequence[int]) -> list[Tensor]:
        """See `Graph`."""
        moved = _back([(self.pulled[place], vector) for place, vector in vectors.items()], [self._dummy])[0]
        moved = self._p * (moved - (self._p * moved).sum(-1, keepdim=True))
        if self._mask is not None:
            moved = moved * self._mask.unsqueeze(-1)
        return _back([(self._logits, moved)], [self._weights[place] for place in onto])


def _back(pairs: Sequence[tuple[Tensor | None, Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Σ ⟨output, vector⟩ differentiated in the inputs; zeros where nothing depends on them."""
    live = [(output, vector) for output, vector in pairs if output is not None and output.requires_grad]
    if not live:
        return [torch.zeros_like(tensor) for tensor in inputs]
    outputs, vectors = zip(*live, strict=True)
    found = torch.autograd.grad(outputs, inputs, vectors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g.detach() for x, g in zip(inputs, found, strict=True)]


def check(plan: Plan, piece: Batch, matrix: Matrix) -> None:
    """Make sure that nothing cuts what is differentiated: the engine takes a cut for a zero and says nothing.

    Raises:
        UsageError: the logits move with a weight, but the forward pass lets no gradient through to it; or an
            operation says of itself that it can be differentiated only once.
    """
    task, model = plan.workload.task, plan.workload.model
    with differentiable(plan, plan.targets):
        pulled = build(plan, plan.targets, piece, matrix).pulled
    if _has_error([tensor.grad_fn for tensor in pulled if tensor is not None]):
        raise UsageError(
            f"the network of {plan.workload.name} cannot be differentiated twice: it holds a function marked "
            "once_differentiable. Build that part from plain operations, or use the profiler ggn, which differentiates "
            "once"
        )
    with torch.no_grad():
        logits = task.logits(model, piece)
    for target, gradient in zip(plan.targets, pulled, strict=True):
        if gradient is not None:
            continue
        weight = target.unit.weight
        with torch.no_grad(), switched(weight, weight * 2 + 1):
            moved = task.logits(model, piece)
        if not torch.equal(moved, logits):
            raise UsageError(
                f"no gradient reaches layer {target.name}, on which the logits depend: the forward pass cuts it "
                "(detach, no_grad, inference mode). Remove that, skip the layer with a rule "
                f'{{"modules": "{target.unit.modules[0]}", "choices": "skip"}}, or use the profiler kl, which needs '
                "no gradient"
            )


def _has_error(roots: Sequence[Node | None]) -> bool:
    """Whether a graph holds the node that torch puts where there is no second derivative."""
    seen: set[Node] = set()
    ahead = [root for root in roots if root is not None]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            return True
        ahead += [further for further, _ in node.next_functions if further is not None]
    return False
