"""Models opened so that every matrix is a layer of its own: for a while, or to stay so.

torch's multi-head attention holds [W_q; W_k; W_v] as one bare parameter `in_proj_weight` (or three), and reads
`out_proj.weight` without calling `out_proj`. Opened, it has the layers `q_proj`, `k_proj`, `v_proj` and `out_proj`,
see `OpenAttention`. While a model is open for a while the new layers' weights are views of the old parameters' memory:
what is written there stays when the model is closed again, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, SupportsIndex, TypeGuard

from torch import Tensor, nn

from allocator.applier.attention import OpenAttention
from allocator.applier.made_classes import reduced

_PARTS = ("q", "k", "v")
_OPENED: dict[type[nn.Module], type[OpenAttention]] = {nn.MultiheadAttention: OpenAttention}


@dataclass(frozen=True, eq=False)
class _Closed:
    """What a module was before it was opened."""

    module: nn.Module
    kind: type[nn.Module]
    parameters: dict[str, Any]
    modules: dict[str, Any]
    same_widths: bool


class Opening:
    """Context in which a model's attention is open; see the module. Closed attention inside others is found too.

    nn.TransformerEncoder must not take its fast path meanwhile, which reads weights past their modules and hands nested
    tensors down: its layers see that their attention has changed, its own flag `use_nested_tensor` is put down. On that
    path torch returns zeros at padded positions; on the ordinary one, as in training, it returns what comes out there.

    >>> model = nn.Sequential(nn.MultiheadAttention(4, 2))
    >>> with Opening(model):
    ...     [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    ['0.q_proj', '0.k_proj', '0.v_proj', '0.out_proj']
    >>> type(model[0]) is nn.MultiheadAttention
    True
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._closed: list[_Closed] = []
        self._nested: list[nn.TransformerEncoder] = []
        self._made: dict[tuple[int, int], nn.Parameter] = {}
        """Parameter of (id of the old one, third), so that tied ones stay tied."""

    def __enter__(self) -> Opening:
        for module in list(self._model.modules()):
            if opens(module):
                self._open(module)
        self._put_flags_down()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_flags_up()
        for closed in self._closed:
            _close(closed)
        self._closed.clear()

    def narrow(self, modules: Iterable[str]) -> None:
        """Close again all attention of which none of the named modules is a part."""
        wanted = {id(self._model.get_submodule(name)) for name in modules}
        others = [c for c in self._closed if not any(id(part) in wanted for part in c.module.children())]
        self._put_flags_up()
        for closed in others:
            _close(closed)
        self._closed = [closed for closed in self._closed if closed not in others]
        self._put_flags_down()

    def stay(self) -> None:
        """Leave open what is open now; the new layers' weights get memory of their own and keep their identity."""
        alive = {id(parameter) for closed in self._closed for parameter in closed.module.parameters()}
        for parameter in self._made.values():
            if id(parameter) in alive:
                parameter.data = parameter.data.clone()
        self._closed.clear()
        self._nested.clear()

    def _open(self, module: nn.MultiheadAttention) -> None:
        same_widths = module._qkv_same_embed_dim
        self._closed.append(_Closed(module, type(module), dict(module._parameters), dict(module._modules), same_widths))
        names = ["in_proj_weight"] * 3 if same_widths else [f"{part}_proj_weight" for part in _PARTS]
        biased = module.in_proj_bias is not None
        projections: dict[str, nn.Module] = {}
        for place, (part, name) in enumerate(zip(_PARTS, names, strict=True)):
            weight = self._part(module._parameters[name], place if same_widths else None, module.embed_dim)
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=biased, device="meta")
            linear.weight = weight
            if biased:
                linear.bias = self._part(module._parameters["in_proj_bias"], place, module.embed_dim)
            projections[f"{part}_proj"] = linear.train(module.training)
        for name in ("in_proj_weight", *(f"{part}_proj_weight" for part in _PARTS), "in_proj_bias"):
            del module._parameters[name]
        others = dict(module._modules)
        module._modules.clear()
        module._modules.update({**projections, **others})
        module.__class__ = _opened(type(module))
        module._qkv_same_embed_dim = False  # the encoder layer's fast path, which reads weights, asks for this

    def _part(self, parameter: Tensor | None, place: int | None, width: int) -> nn.Parameter:
        """A third of a parameter, or all of it, as a parameter in the same memory."""
        assert parameter is not None, "opens() has seen that it is there"
        if place is None:
            assert isinstance(parameter, nn.Parameter)
            return parameter
        key = id(parameter), place
        if key not in self._made:
            view = parameter.detach()[place * width : (place + 1) * width]
            self._made[key] = nn.Parameter(view, requires_grad=parameter.requires_grad)
        return self._made[key]

    def _put_flags_down(self) -> None:
        encoders = [module for module in self._model.modules() if isinstance(module, nn.TransformerEncoder)]
        for encoder in encoders:
            opened = any(isinstance(inner, OpenAttention) for inner in encoder.modules())
            if opened and getattr(encoder, "use_nested_tensor", False):
                encoder.use_nested_tensor = False
                self._nested.append(encoder)

    def _put_flags_up(self) -> None:
        for encoder in self._nested:
            encoder.use_nested_tensor = True
        self._nested.clear()


def opens(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether a module is attention of torch that can be opened: its forward and its parameters are torch's own."""
    if not isinstance(module, nn.MultiheadAttention) or isinstance(module, OpenAttention):
        return False
    own_forward = type(module).forward is not nn.MultiheadAttention.forward or "forward" in vars(module)
    names = ["in_proj_weight"] if module._qkv_same_embed_dim else [f"{part}_proj_weight" for part in _PARTS]
    held = all(module._parameters.get(name) is not None for name in names) and "in_proj_bias" in module._parameters
    taken = any(f"{part}_proj" in module._modules for part in _PARTS)
    return held and not own_forward and not taken and isinstance(module.out_proj, nn.Linear)


def _opened(base: type[nn.Module]) -> type[OpenAttention]:
    """The class of an opened `base`, made once; a subclass of torch's attention stays one of its own."""
    if base not in _OPENED:
        namespace = {"__module__": __name__, "__reduce_ex__": _reduced}
        _OPENED[base] = type(f"Open{base.__name__}", (OpenAttention, base), namespace)
    return _OPENED[base]


def _reduced(module: OpenAttention, protocol: SupportsIndex) -> Any:
    return reduced(super(OpenAttention, module).__reduce_ex__(2), type(module).__bases__[1:], _opened)


def _close(closed: _Closed) -> None:
    module = closed.module
    module.__class__ = closed.kind
    module._qkv_same_embed_dim = closed.same_widths  # type: ignore[assignment]  # nn.Module declares Tensor | Module
    for held, before in ((module._parameters, closed.parameters), (module._modules, closed.modules)):
        held.clear()
        held.update(before)
