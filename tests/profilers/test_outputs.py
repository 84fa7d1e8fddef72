"""One wide run of a layer says the same of all changes as gradients by sample do."""

import pytest
import torch
from torch import nn

from profilers import _outputs
from profilers._outputs import Outputs, wide, wide_is_cheaper
from profilers._project import Call, by_gradients, gradients_by_sample, projections

LAYERS = {
    "linear": (nn.Linear(5, 4), (6, 5)),
    "linear_tokens": (nn.Linear(5, 4), (6, 3, 5)),
    "conv": (nn.Conv2d(4, 6, 3), (6, 4, 7, 8)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 2), dilation=(1, 2)), (6, 4, 7, 8)),
    "circular": (nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (6, 4, 9)),
}


@pytest.fixture(params=LAYERS)
def called(request):
    torch.manual_seed(0)
    layer, shape = LAYERS[request.param]
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    return Call(layer, x, ((), {})), [torch.randn_like(layer(x)).detach() for _ in range(3)]


@pytest.mark.parametrize("samples", [6, 3])
@pytest.mark.parametrize("room", [1 << 20, 0, 3000])
def test_every_pass_gets_the_projections_of_its_gradients(called, samples, room, monkeypatch):
    call, cotangents = called
    monkeypatch.setattr(_outputs, "ELEMENTS_AT_ONCE", 200)
    monkeypatch.setattr(_outputs, "PRODUCTS_AT_ONCE", 100)
    monkeypatch.setattr(_outputs, "wide_is_cheaper", lambda *_: True)
    monkeypatch.setattr(_outputs, "by_gradients_is_cheaper", lambda *_: True)
    changes = torch.randn(5, *call.module.weight.shape, dtype=torch.float64)
    outputs, found = Outputs(len(cotangents)), {}
    for place, cotangent in enumerate(cotangents):
        outputs.left = len(cotangents) - 1 - place
        receive = lambda u, place=place: found.setdefault(place, u)  # noqa: E731
        outputs.project(call, cotangent, samples, changes, receive, room=room - outputs.held)
        assert (place in found) == (not room or not outputs.left or outputs.held < (place + 1) * cotangent.nbytes)
    for place, cotangent in enumerate(cotangents):
        parts = gradients_by_sample(call, cotangent, samples)
        wanted = torch.cat([by_gradients(call.module, part, changes) for part in parts])
        assert torch.allclose(found[place], wanted, rtol=1e-10, atol=1e-12)
        assert torch.allclose(projections(call, cotangent, samples, changes), wanted, rtol=1e-10, atol=1e-12)


def test_grouped_and_foreign_layers_are_not_run_wide():
    class Other(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).square()

    for layer, right in ((nn.Conv2d(4, 4, 3), True), (nn.Conv2d(4, 4, 3, groups=2), False), (Other(4, 4, 3), False)):
        x = torch.randn(2, 4, 5, 5)
        assert wide(Call(layer, x, ((), {})), layer(x)) == right


def test_the_more_passes_share_a_wide_run_the_sooner_it_pays():
    layer, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(4, 8, 14, 14)
    changes = torch.randn(7, *layer.weight.shape)
    pays = [wide_is_cheaper(Call(layer, x, ((), {})), layer(x), 4, changes, passes) for passes in (1, 2, 8)]
    assert pays == sorted(pays)
    assert pays[-1]
