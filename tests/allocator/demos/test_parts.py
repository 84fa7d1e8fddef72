"""The parts of the larger demos that need none of their packages."""

import pytest
import torch
from scipy import stats
from torch import nn

from allocator.demos import efficientnet_lite0, minilm, packages, smollm2
from allocator.errors import UnavailableError
from allocator.tasks.measurement import measure
from allocator.tasks.protocol import Task
from allocator.workload import Workload
from profilers._plan import plan
from profilers.ggn import Ggn


def test_folder_of_a_package():
    assert (packages.folder("torch") / "nn").is_dir()
    with pytest.raises(UnavailableError, match="'no_such_package' is not installed"):
        packages.folder("no_such_package")
    with pytest.raises(UnavailableError, match="minilm needs no_such_package, nor_this; `make demo-minilm` installs"):
        packages.require("minilm", "torch", "no_such_package", "nor_this")


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_views_take_the_photo_as_the_sample():
    torch.manual_seed(0)
    x, y = torch.randn(5, 3, 6), torch.randint(4, (5,))
    other = torch.randn(2, 3, 6), torch.randint(4, (2,))
    task = efficientnet_lite0.Views()
    assert isinstance(task, Task)
    workload = Workload(Pixels(), [other], [(x, y)], task)
    right = workload.model(x.flatten(0, 1)).argmax(1).view(5, 3) == y.unsqueeze(1)
    found = measure(workload)
    assert found["accuracy"].value == pytest.approx(right.double().mean().item())
    assert found["accuracy"].stderr == pytest.approx(stats.sem(right.double().mean(1).numpy()))
    assert task.loss(task.logits(workload.model, (x, y)), (x, y)).item() == pytest.approx(found["loss"].value)
    problem = Ggn().profile(workload, efficientnet_lite0.space())
    assert problem.score_specs["ggn"]["per"] == "view"


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(9, 4)
        self.embeddings.position_embeddings = nn.Embedding(5, 4)

    def forward(self, input_ids, attention_mask):
        self.last_hidden_state = self.embeddings.word_embeddings(input_ids)
        return self


def test_sentence_encoder_averages_over_tokens_that_are_there():
    encoder = minilm.SentenceEncoder(Transformer())
    ids, mask = torch.tensor([[1, 2, 0], [3, 3, 4]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    table = encoder.transformer.embeddings.word_embeddings.weight
    expected = torch.stack([(table[1] + table[2]) / 2, (2 * table[3] + table[4]) / 3])
    torch.testing.assert_close(encoder(ids, mask), expected)


def test_spaces_leave_alone_what_their_docstrings_say():
    texts = ({"input_ids": torch.ones(2, 2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 2, 3)}, torch.ones(2))
    workload = Workload(minilm.SentenceEncoder(Transformer()), [texts], [texts], "embedding")
    found = plan(workload, minilm.space())
    assert [target.name for target in found.targets] == ["transformer.embeddings.word_embeddings"]
    rules = smollm2.space()
    assert rules.rule_for(["model.embed_tokens", "lm_head"], "linear").choices == "skip"
    assert len(rules.rule_for(["model.layers.0.mlp.up_proj"], "linear").choices) > 3


def test_views_of_a_photo(tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 400), (124, 116, 104)).save(tmp_path / "grey.png")
    views = efficientnet_lite0.views(tmp_path / "grey.png")
    assert views.shape == (10, 3, 224, 224)
    assert views.abs().max() < 0.02  # ImageNet's mean colour is zero
