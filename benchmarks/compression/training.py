"""One training run, kept after every epoch, so that a run that is killed goes on where it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from allocator.demos.fashion_mnist import MEAN, STD, Batches
from allocator.errors import AllocatorError
from benchmarks.compression.augment import augment
from benchmarks.compression.recipe import Recipe

BACKGROUND = -MEAN / STD  # a black pixel


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch; the number from before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Run:
    """A network in training, with everything that the next epoch depends on.

    Shuffle and augmentation of an epoch are drawn from the seed and its number, so that what is resumed ends with the
    same bits as what was never interrupted (on one machine, with one number of threads). Convolutions are computed in
    bfloat16 with channels last, which is the fastest of the four ways on processors that know it.
    """

    def __init__(self, recipe: Recipe, place: Path) -> None:
        """place: the file of the state; what is there is taken up.

        Raises:
            AllocatorError: the file is damaged, or another recipe's.
        """
        self.recipe, self.place, self.epoch, self.seconds = recipe, place, 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.net: nn.Module = recipe.make()
        self._lay_out(torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.decay, nesterov=True
        )
        if place.exists():
            self._load()

    def train(self, images: Tensor, classes: Tensor, held_out: Batches, say: Callable[[str], None]) -> nn.Module:
        """The network after the remaining epochs, in evaluation mode; the global random state is left alone.

        say: told after every epoch the mean training loss, the accuracy on what is held out, and the time left.
        """
        first, started = self.epoch, time.monotonic()
        while self.epoch < self.recipe.epochs:
            before = time.process_time()
            loss = self._pass(images, classes)
            self.epoch += 1
            right = accuracy(self.net, held_out)
            self.seconds += time.process_time() - before
            self._save()
            left = (time.monotonic() - started) / (self.epoch - first) * (self.recipe.epochs - self.epoch)
            say(
                f"epoch {self.epoch} of {self.recipe.epochs}: mean training loss {loss:.4f}, validation accuracy "
                f"{100 * right:.2f} %, {left / 60:.1f} min left"
            )
        self._lay_out(torch.contiguous_format)
        return self.net.eval()

    def _lay_out(self, memory_format: torch.memory_format) -> None:
        for parameter in self.net.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=memory_format)

    def _pass(self, images: Tensor, classes: Tensor) -> float:
        """One epoch; what is left over after the last whole batch waits for another one. Returns the mean loss."""
        generator = torch.Generator().manual_seed(1000 * self.recipe.seed + self.epoch)
        steps, total = len(images) // self.recipe.batch, 0.0
        order = torch.randperm(len(images), generator=generator)
        self.net.train()
        for step, rows in enumerate(torch.split(order, self.recipe.batch)[:steps]):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate_at(self.epoch + (step + 1) / steps)
            pictures = augment(images[rows], BACKGROUND, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = cross_entropy(self.net(pictures), classes[rows])
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            total += loss.item()
        self.optimizer.zero_grad(set_to_none=True)
        return total / steps

    def _save(self) -> None:
        """The whole file or the old one: it is written beside and moved into place."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        beside = self.place.with_suffix(".part")
        state: dict[str, Any] = {
            "recipe": repr(self.recipe), "epoch": self.epoch, "seconds": self.seconds, "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        torch.save(state, beside)
        os.replace(beside, self.place)

    def _load(self) -> None:
        way_out = "delete it to begin anew, or name another folder by --out"
        try:
            state = torch.load(self.place, weights_only=True)
            recipe = state["recipe"]
        except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError) as error:
            raise AllocatorError(
                f"{self.place} holds no state of a training ({type(error).__name__}); {way_out}"
            ) from error
        if recipe != repr(self.recipe):
            raise AllocatorError(f"{self.place} is of {recipe}, not of {self.recipe!r}; {way_out}")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]


@torch.no_grad()
def accuracy(net: nn.Module, batches: Batches) -> float:
    """Share of pictures that are classified rightly, in float32; the network is left in evaluation mode."""
    net.eval()
    right = sum(int((net(images).argmax(1) == classes).sum()) for images, classes in batches)
    return right / sum(len(classes) for _, classes in batches)
