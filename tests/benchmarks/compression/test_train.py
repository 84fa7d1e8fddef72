"""Training: what a kill leaves is taken up, what does not belong to it is refused."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from allocator.demos import checkpoints, fashion_mnist
from allocator.errors import AllocatorError
from benchmarks.compression import recipe, train, training
from benchmarks.compression.recipe import RECIPES, Recipe
from benchmarks.compression.training import Run

NAME = "fashion-resnet34"


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 5, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.classes = nn.Linear(6, 10)

    def forward(self, x):
        return self.classes(self.layers(x).mean((2, 3)))


RECIPE = Recipe(make=Tiny, epochs=4, rate=0.05, decay=1e-3, batch=20)


def pictures(count, seed):
    """Brighter where the class is higher."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(10, (count,), generator=generator)
    return torch.randn(count, 1, 28, 28, generator=generator) + classes.float()[:, None, None, None] / 2 - 2, classes


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "VALIDATION", 40)
    monkeypatch.setattr(fashion_mnist, "data", lambda split: pictures(*{"train": (400, 0), "t10k": (60, 1)}[split]))
    return fashion_mnist.all_but_validation(), fashion_mnist.validation()


def trained(run, data, say=lambda _: None):
    with training.threads(1):
        return run.train(*data[0], data[1], say).state_dict()


def stop_after(epochs):
    def say(text):
        if text.startswith(f"epoch {epochs} of"):
            raise KeyboardInterrupt

    return say


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(tmp_path, data):
    state = torch.get_rng_state()
    whole = trained(Run(RECIPE, tmp_path / "whole.pt"), data)
    with pytest.raises(KeyboardInterrupt):
        trained(Run(RECIPE, tmp_path / "deep" / "cut.pt"), data, stop_after(2))
    said = []
    run = Run(RECIPE, tmp_path / "deep" / "cut.pt")
    seconds = run.seconds
    cut = trained(run, data, said.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert [text.split(":")[0] for text in said] == ["epoch 3 of 4", "epoch 4 of 4"]
    assert "validation accuracy" in said[0]
    assert said[-1].endswith(", 0.0 min left")
    assert run.seconds > seconds > 0
    for key, tensor in whole.items():
        assert torch.equal(tensor, cut[key]), key
        assert tensor.is_contiguous()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["cut.pt"]
    again = Run(RECIPE, tmp_path / "whole.pt")
    assert torch.equal(
        trained(again, data, stop_after(1))["classes.bias"], whole["classes.bias"]
    )  # nothing is left to do


def test_training_learns(tmp_path, data):
    said = []
    trained(Run(replace(RECIPE, epochs=12), tmp_path / "s.pt"), data, said.append)
    losses = [float(text.partition("loss ")[2].partition(",")[0]) for text in said]
    assert losses[-1] < 0.8 * losses[0]


def test_decay_falls_on_all_parameters(tmp_path):
    run = Run(RECIPE, tmp_path / "s.pt")
    groups = run.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(run.net.parameters()))
    assert all(group["weight_decay"] == 1e-3 and group["nesterov"] for group in groups)


def test_the_rate_rises_for_an_epoch_and_ends_at_zero():
    assert [RECIPE.rate_at(epoch) for epoch in (0, 4)] == pytest.approx([0, 0])
    assert RECIPE.rate_at(2) == pytest.approx(0.025)
    assert RECIPE.rate_at(0.5) == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi / 8)) / 2)
    assert replace(RECIPE, warm=0).rate_at(0) == pytest.approx(0.05)


def test_states_that_do_not_belong_are_refused(tmp_path, data):
    place = tmp_path / "s.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(Run(RECIPE, place), data, stop_after(1))
    with pytest.raises(AllocatorError, match=r"s\.pt is of Recipe\(.*rate=0\.05.*, not of .*rate=0\.1.*delete it"):
        Run(replace(RECIPE, rate=0.1), place)
    for content in (b"", b"no state", place.read_bytes()[:500]):
        place.write_bytes(content)
        with pytest.raises(AllocatorError, match=r"s\.pt holds no state of a training .*delete it"):
            Run(RECIPE, place)
    torch.save({"epoch": 3}, place)
    with pytest.raises(AllocatorError, match="holds no state of a training"):
        Run(RECIPE, place)


def test_the_command_stores_what_it_trained(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    monkeypatch.setitem(recipe.RECIPES, NAME, replace(RECIPES[NAME], epochs=2, batch=40))
    argv, threads = [NAME, "--out", str(tmp_path / "out")], torch.get_num_threads()
    assert train.main(argv) == 0
    assert torch.get_num_threads() == threads
    said = capsys.readouterr().out.splitlines()
    assert [line.startswith(f"{NAME}: epoch") for line in said] == [True, True, False]
    assert "on the test split loss" in said[2]
    first = (tmp_path / "fashion_resnet34.safetensors").read_bytes()
    assert train.main(argv) == 0  # from the state alone
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert (tmp_path / "fashion_resnet34.safetensors").read_bytes() == first


def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(tmp_path))
    assert train.main([NAME, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: Fashion-MNIST is not in")
    for argv, message in ((["nothing"], "there is no recipe for nothing"), (["--threads", "0"], "--threads 0: take 1")):
        with pytest.raises(SystemExit):
            train.main(argv)
        assert message in capsys.readouterr().err
