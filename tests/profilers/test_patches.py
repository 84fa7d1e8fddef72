import pytest
import torch
from torch import nn

from profilers import _patches
from profilers._patches import counts, patches, second_moment, second_moments

LAYERS = {
    "linear": (nn.Linear(5, 4, bias=False), (6, 5)),
    "linear_tokens": (nn.Linear(5, 4, bias=False), (6, 3, 5)),
    "conv": (nn.Conv2d(4, 6, 3, bias=False), (6, 4, 7, 8)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 2), dilation=(1, 2), bias=False), (6, 4, 7, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding="same", bias=False), (6, 4, 7, 8)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1, padding_mode="reflect", bias=False), (6, 4, 7, 8)),
    "even_same": (nn.Conv2d(2, 3, (2, 4), padding="same", dilation=(2, 1), bias=False), (6, 2, 7, 8)),
    "circular": (nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular", groups=2, bias=False), (6, 4, 9)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, bias=False), (6, 4, 9)),
}


@pytest.fixture(params=LAYERS)
def called(request):
    torch.manual_seed(0)
    layer, shape = LAYERS[request.param]
    return layer.double(), torch.randn(shape, dtype=torch.float64)


def test_the_layer_is_its_matrix_times_its_patches(called):
    layer, x = called
    found = patches(layer, x)
    matrix = layer.weight.reshape(_patches.groups_of(layer), -1, found.shape[-1])
    outputs = (found @ matrix.transpose(1, 2)).transpose(2, 3).flatten(1, 2)  # [rows, features, positions]
    wanted = layer(x)
    if isinstance(layer, nn.Linear):
        wanted = wanted.reshape(len(x), -1, layer.out_features).transpose(1, 2)
    torch.testing.assert_close(outputs, wanted.flatten(2) if wanted.dim() > 2 else wanted.unsqueeze(2))
    assert counts(layer, x, layer(x)) == len(x) * found.shape[2]


@pytest.mark.parametrize("at_once", [1, 1 << 23])
@pytest.mark.parametrize("samples", [6, 3, 1])
def test_second_moments_by_sample_and_in_total(called, samples, at_once, monkeypatch):
    monkeypatch.setattr(_patches, "ELEMENTS_AT_ONCE", at_once)
    layer, x = called
    found = patches(layer, x)
    runs = (found.transpose(2, 3) @ found).unflatten(0, (samples, -1)).sum(1)
    torch.testing.assert_close(torch.cat(list(second_moments(layer, x, samples))), runs)
    torch.testing.assert_close(second_moment(layer, x), runs.sum(0))


def test_inputs_without_rows():
    torch.manual_seed(0)
    for layer, shape in ((nn.Linear(5, 4), (5,)), (nn.Conv2d(4, 6, 3), (4, 7, 8)), (nn.Conv1d(4, 6, 3), (4, 9))):
        x = torch.randn(shape)
        torch.testing.assert_close(second_moment(layer, x), second_moment(layer, x.unsqueeze(0)))
        torch.testing.assert_close(next(second_moments(layer, x, 1))[0], second_moment(layer, x))
