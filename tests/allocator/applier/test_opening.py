"""Opened attention computes what torch's does, for all options; closed again, nothing shows."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from allocator.actions import parse
from allocator.applier import apply_, approximate, compress, load_compressed, outside_bytes, uncovered, units
from allocator.applier.attention import OpenAttention
from allocator.applier.opening import Opening
from allocator.errors import ActionError, UsageError

PARTS = ("q_proj", "k_proj", "v_proj", "out_proj")
INT4 = {"kind": "quantize", "bits": 4}
RANK = {
    "kind": "low_rank",
    "rank": 3,
    "left": {"kind": "quantize", "bits": 8},
    "right": {"kind": "quantize", "bits": 8},
}
OPTIONS = [
    dict(zip(("bias", "add_bias_kv", "add_zero_attn", "batch_first", "other_widths"), flags, strict=True))
    for flags in itertools.product((False, True), repeat=5)
]


def attention(options: dict[str, bool]) -> nn.MultiheadAttention:
    options = dict(options)
    widths = {"kdim": 5, "vdim": 7} if options.pop("other_widths") else {}
    made = nn.MultiheadAttention(8, 2, dropout=0.3, **options, **widths)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def calls(module: nn.MultiheadAttention, dtype: torch.dtype) -> list[tuple[tuple[Tensor, ...], dict[str, object]]]:
    """Arguments of many kinds: self and cross attention, one sample and several, every mask."""
    n, t = 3, 4
    found: list[tuple[tuple[Tensor, ...], dict[str, object]]] = []
    kinds = itertools.product((True, False), (True, False), (True, False), (True, False))
    for batched, weights, average, itself in kinds:
        if itself and not module._qkv_same_embed_dim:
            continue
        s = t if itself else 6
        shapes = [(t, 8), (s, module.kdim), (s, module.vdim)]
        rows = [torch.randn(n, *shape, dtype=dtype) if batched else torch.randn(shape, dtype=dtype) for shape in shapes]
        if batched and not module.batch_first:
            rows = [row.transpose(0, 1) for row in rows]
        inputs = (rows[0],) * 3 if itself else tuple(rows)
        ordered = {"need_weights": weights, "average_attn_weights": average}
        causal = torch.ones(t, s, dtype=torch.bool).triu(1)
        padding = torch.zeros(n, s, dtype=torch.bool) if batched else torch.zeros(s, dtype=torch.bool)
        padding[..., -2:] = True
        added = torch.zeros(padding.shape, dtype=dtype).masked_fill(padding, -torch.inf)
        heads = 2 * n if batched else 2
        masks: list[dict[str, object]] = [
            {},
            {"attn_mask": causal},
            {"attn_mask": torch.randn(t, s, dtype=dtype), "key_padding_mask": added},
            {"attn_mask": torch.randn(heads, t, s, dtype=dtype)},
            {"key_padding_mask": padding},
            {"attn_mask": causal, "is_causal": True},
            {"attn_mask": causal, "is_causal": True, "key_padding_mask": padding},
        ]
        found += [(inputs, {**ordered, **mask}) for mask in masks]
    return found


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(k for k, v in o.items() if v) or "plain")
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_outputs_are_torchs(options: dict[str, bool], dtype: torch.dtype, close: float) -> None:
    module = attention(options).to(dtype)
    for inputs, named in calls(module, dtype):
        with torch.no_grad():
            wanted = module(*inputs, **named)
            with Opening(module):
                found = module(*inputs, **named)
        for mine, torchs in zip(found, wanted, strict=True):
            assert (mine is None) == (torchs is None)
            if torchs is not None:
                assert mine.shape == torchs.shape
                torch.testing.assert_close(mine, torchs, atol=close, rtol=close)


def test_gradients_and_dropout_in_training_are_torchs() -> None:
    options = dict.fromkeys(OPTIONS[0], True) | {"other_widths": False}
    module, x = attention(options).double().train(), torch.randn(3, 4, 8, dtype=torch.float64)
    module.dropout = 0.0
    module(x, x, x)[0].square().sum().backward()
    opened = copy.deepcopy(module)
    opened.zero_grad()
    with Opening(opened) as opening:
        opening.stay()
    opened(x, x, x)[0].square().sum().backward()
    for place, part in enumerate(PARTS[:3]):
        torch.testing.assert_close(getattr(opened, part).weight.grad, module.in_proj_weight.grad[8 * place :][:8])
    torch.testing.assert_close(opened.bias_k.grad, module.bias_k.grad)
    opened.dropout = 0.9
    assert not torch.equal(opened(x, x, x)[0], opened(x, x, x)[0])


def state(model: nn.Module) -> list[object]:
    """All that an opening could leave behind, by identity."""
    return [
        [(name, type(module), sorted(vars(module))) for name, module in model.named_modules()],
        [(name, id(p), p.data_ptr(), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)],
        [list(module._parameters) + list(module._modules) for module in model.modules()],
        [getattr(module, "use_nested_tensor", None) for module in model.modules()],
        torch.get_rng_state().tolist(),
    ]


def encoder(**options: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2, **options).eval()


def test_a_closed_model_shows_nothing_even_after_an_error() -> None:
    model = nn.Sequential(encoder(), nn.MultiheadAttention(8, 2, kdim=3, bias=False))
    model[0].layers[0].self_attn.in_proj_weight.requires_grad_(False)
    before = state(model)
    with Opening(model):
        assert state(model) != before
        assert [n for n, m in model.named_modules() if n.endswith("q_proj")][-1] == "1.q_proj"
        assert not model[0].layers[0].self_attn.k_proj.weight.requires_grad
    assert state(model) == before
    with pytest.raises(KeyError), Opening(model):
        raise KeyError
    assert state(model) == before


def test_what_is_written_while_open_is_there_when_closed() -> None:
    model = nn.MultiheadAttention(4, 2)
    with Opening(model), torch.no_grad():
        model.k_proj.weight.fill_(2)
        model.v_proj.bias.fill_(3)
        assert torch.equal(model.in_proj_bias[8:], torch.full((4,), 3.0))
        assert model.in_proj_weight.shape == (12, 4)
    assert torch.equal(model.in_proj_weight[4:8], torch.full((4, 4), 2.0))
    assert torch.equal(model.in_proj_bias[8:], torch.full((4,), 3.0))


@pytest.mark.parametrize("nested", [True, False])
def test_the_fast_path_is_not_taken(nested: bool) -> None:
    model, x = encoder(enable_nested_tensor=nested), torch.randn(3, 5, 8)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    called: list[str] = []
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=padding)
        with Opening(model):
            slow = model(x, src_key_padding_mask=padding)
            names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
            forwards = {name: model.get_submodule(name) for name in names}
            for name, module in forwards.items():  # hooks would turn the fast path off by themselves
                module.forward = lambda x, m=module, n=name: (called.append(n), type(m).forward(m, x))[1]
            model(x, src_key_padding_mask=padding)
            model(x)
            for module in forwards.values():
                del module.__dict__["forward"]
    assert called == names * 2
    torch.testing.assert_close(slow[~padding], fast[~padding], atol=1e-5, rtol=1e-5)


class Foreign(nn.MultiheadAttention):
    """A forward of its own, so nobody knows what it reads."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().forward(*args, **kwargs)


class Named(nn.MultiheadAttention):
    """A subclass without one."""

    def hello(self) -> str:
        return "hello"


def test_what_cannot_be_opened_is_reported() -> None:
    normed = weight_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")
    model = nn.ModuleList([Foreign(4, 2), normed, Named(4, 2)])
    assert [u.name for u in units(model)] == ["0.out_proj", "1.out_proj", *(f"2.{part}" for part in PARTS)]
    reasons = {u.name: u.reason for u in uncovered(model)}
    assert "cannot be opened" in reasons["0.in_proj_weight"]
    assert "parametri" in reasons["1.parametrizations.in_proj_weight.original1"]
    with Opening(model):
        assert model[2].hello() == "hello"
        assert isinstance(model[2], Named)
        with pytest.raises(UsageError, match="give the mask"):
            model[2](torch.zeros(1, 2, 4), *[torch.zeros(1, 2, 4)] * 2, is_causal=True)


def test_tied_attention_stays_tied() -> None:
    one, two = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
    two.in_proj_weight = one.in_proj_weight
    model = nn.ModuleList([one, two])
    assert units(model)[0].modules == ("0.q_proj", "1.q_proj")
    apply_(model, {"0.q_proj": {"action": INT4}})
    assert isinstance(two, OpenAttention)
    assert two.q_proj.weight is one.q_proj.weight
    assert two.v_proj.weight is one.v_proj.weight


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("action", [INT4, RANK], ids=["int4", "rank"])
def test_a_solution_opens_what_it_names(action: dict[str, object], packed: bool) -> None:
    model, x = encoder(), torch.randn(3, 5, 8)
    by_hand = copy.deepcopy(model)
    solution = {f"layers.1.self_attn.{part}": {"action": action} for part in ("k_proj", "out_proj")}
    attention = by_hand.layers[1].self_attn
    with torch.no_grad(), Opening(by_hand):
        for part in ("k_proj", "out_proj"):
            unit = next(u for u in units(by_hand) if u.name == f"layers.1.self_attn.{part}")
            unit.weight.copy_(approximate(unit.weight, parse(action), unit.layer))
    with torch.no_grad():
        wanted = by_hand(x)
        compressed = apply_(model, solution, packed=packed)
        found = compressed(x)
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.allclose(model.layers[1].self_attn.in_proj_weight, attention.in_proj_weight, atol=1e-6)
    assert model.layers[1].self_attn.v_proj.weight.untyped_storage().nbytes() == 4 * 64  # no view of the old matrix
    assert not model.use_nested_tensor
    assert copy.deepcopy(model)(x).shape == x.shape


def test_nothing_is_opened_by_a_solution_that_cannot_be_done() -> None:
    model = encoder()
    before = state(model)
    bad = {
        "layers.0.self_attn.q_proj": {"action": INT4},
        "layers.0.self_attn.k_proj": {"action": {"kind": "low_rank", "rank": 99, "left": INT4, "right": INT4}},
    }
    with pytest.raises(ActionError):
        apply_(model, bad)
    with pytest.raises(ActionError, match="q_proj, k_proj, v_proj and out_proj"):
        apply_(model, {"layers.0.self_attn.in_proj": {"action": INT4}})
    assert state(model) == before


def test_checkpoints_hold_opened_attention_and_predict_their_size(tmp_path: Path) -> None:
    model, x = nn.Sequential(encoder(), nn.MultiheadAttention(8, 2, kdim=8)), torch.randn(3, 5, 8)
    names = [*(f"0.layers.0.self_attn.{part}" for part in PARTS), "0.layers.1.linear1"]
    solution = {name: {"action": INT4} for name in names}
    chosen = [u for u in units(model) if u.name in names]
    before = state(model)
    info = compress(model, solution, tmp_path)
    assert state(model) == before
    stored = sum(parse(INT4).stored_bytes(u.layer) for u in chosen)
    assert info.bytes - info.described == stored + outside_bytes(model, chosen)
    fresh = load_compressed(nn.Sequential(encoder(), nn.MultiheadAttention(8, 2, kdim=8)), tmp_path)
    apply_(model, solution)
    with torch.no_grad():
        assert torch.equal(fresh[0](x), model[0](x))
    assert type(fresh[0].layers[1].self_attn) is nn.MultiheadAttention
    keys = set(fresh.state_dict())
    assert "0.layers.0.self_attn.q_proj.packed" in keys
    assert "0.layers.1.self_attn.in_proj_weight" in keys


def test_opened_models_can_be_sent_to_another_process() -> None:
    model = encoder()
    with Opening(model):
        there = pickle.loads(pickle.dumps(model))
    assert isinstance(there.layers[0].self_attn, OpenAttention)
