"""`python -m benchmarks.profilers.train [NAME…]`: train the Fashion-MNIST networks and store their checkpoints.

Everything is seeded and runs on one thread, so the same machine and torch give the same bits; others give a network
of the same quality. A few minutes each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from allocator.demos import checkpoints, fashion_mnist, fashion_resnet20, fashion_vit
from allocator.demos.digits import one_thread
from allocator.errors import AllocatorError
from allocator.tasks.measurement import measure


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Adam with decoupled weight decay and a one-cycle rate.

    make: the untrained network. epochs: passes over the training pictures. rate: the highest. decay: of weights.
    """

    make: Callable[[], nn.Module]
    epochs: int
    rate: float
    decay: float = 0.01
    batch: int = 128
    seed: int = 0


RECIPES = {
    fashion_resnet20.NAME: Recipe(make=fashion_resnet20.Resnet20, epochs=4, rate=1e-2),
    fashion_vit.NAME: Recipe(make=fashion_vit.Vit, epochs=6, rate=2e-3),
}
DEMOS = {fashion_resnet20.NAME: fashion_resnet20, fashion_vit.NAME: fashion_vit}


@one_thread()
def train(recipe: Recipe, images: Tensor, classes: Tensor, say: Callable[[str], None] = lambda _: None) -> nn.Module:
    """The trained network in evaluation mode; the global random state is left alone. say: told after every epoch."""
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = recipe.make().train()
    per_epoch = len(images) // recipe.batch
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * per_epoch)
    for epoch in range(recipe.epochs):
        order, total = torch.randperm(len(images), generator=generator), 0.0
        for rows in torch.split(order[: per_epoch * recipe.batch], recipe.batch):
            loss = nn.functional.cross_entropy(net(images[rows]), classes[rows])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch + 1} of {recipe.epochs}: mean training loss {total / per_epoch:.4f}")
    optimizer.zero_grad(set_to_none=True)
    return net.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is named, default all; exit code 0, or 1 where the data set is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profilers.train", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; default all")
    names = parser.parse_args(argv).names or list(RECIPES)
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no recipe for {', '.join(unknown)}; take of {', '.join(RECIPES)}")
    try:
        images, classes = fashion_mnist.training()
        for name in names:
            started = time.process_time()
            net = train(RECIPES[name], images, classes, partial(print, f"{name}:", flush=True))
            path = checkpoints.save(net, name)
            found = measure(DEMOS[name].workload())
            print(
                f"{name}: {path} of {path.stat().st_size} bytes in {time.process_time() - started:.0f} CPU seconds; on "
                f"the test split loss {found['loss'].value:.4f}, accuracy {100 * found['accuracy'].value:.2f} %"
            )
    except AllocatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
