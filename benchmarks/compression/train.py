"""`python -m benchmarks.compression.train [NAME…]`: train the networks to compress, and store their checkpoints.

Everything is seeded. What is killed goes on after its last epoch when it is started again. Twenty minutes each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from allocator.demos import checkpoints, demo_named, fashion_mnist
from allocator.errors import AllocatorError
from allocator.tasks.measurement import measure
from benchmarks.compression.recipe import RECIPES
from benchmarks.compression.training import Run, accuracy, threads

OUT = Path("benchmark-out/compression-training")


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is named, default all; exit code 0, or 1 where the data set is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression.train", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; default all")
    parser.add_argument("--threads", type=int, default=1, help="of torch; other sums than with 1; default %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the states; default %(default)s")
    chosen = parser.parse_args(argv)
    names = chosen.names or list(RECIPES)
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no recipe for {', '.join(unknown)}; take of {', '.join(RECIPES)}")
    if chosen.threads < 1:
        parser.error(f"--threads {chosen.threads}: take 1 or more")
    try:
        with threads(chosen.threads):
            for name in names:
                _train(name, chosen.out / f"{name}.pt")
    except AllocatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(name: str, place: Path) -> None:
    held_out, run = fashion_mnist.validation(), Run(RECIPES[name], place)
    net = run.train(*fashion_mnist.all_but_validation(), held_out, partial(print, f"{name}:", flush=True))
    path = checkpoints.save(net, name)
    workload = demo_named(name).workload()
    found = measure(workload)  # the only look at the test split
    print(
        f"{name}: {path} of {path.stat().st_size} bytes in {run.seconds / 60:.1f} CPU minutes; accuracy "
        f"{100 * accuracy(workload.model, held_out):.2f} % of the validation pictures; on the test split loss "
        f"{found['loss'].value:.4f}, accuracy {100 * found['accuracy'].value:.2f} %",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
