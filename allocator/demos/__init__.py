"""Built-in workloads, one file each: the network, its choices and how its demo runs; nothing is downloaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from allocator.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from allocator.space import Space
    from allocator.workload import Workload

DEMOS = {
    "digits": "a small convnet trained on scikit-learn's digits",
    "minilm": "all-MiniLM-L6-v2 on SimLex-999",
    "efficientnet-lite0": "EfficientNet-Lite0 on the labelled photos of foolbox",
    "smollm2": "SmolLM2-135M on Wikipedia text",
    "fashion-resnet20": "a ResNet-20 on Fashion-MNIST",
    "fashion-resnet34": "a narrow ResNet-34 on Fashion-MNIST",
    "fashion-resnext": "a ResNeXt on Fashion-MNIST",
    "fashion-vit": "a small vision transformer on Fashion-MNIST",
}


class Demo(Protocol):
    """What a demo module offers.

    NAME, METRIC: of the workload. PROFILERS: the first one's first score is the loss. BUDGETS: labels whose
    uniform allocation sets a budget, or pairs of labels for the middle between two.
    """

    NAME: str
    METRIC: str
    PROFILERS: tuple[str, ...]
    BUDGETS: tuple[str | tuple[str, str], ...]

    def workload(self) -> Workload:
        """The network with its data."""

    def space(self) -> Space:
        """The choices per layer."""


def demo_named(name: str) -> Demo:
    """The built-in workload of that name ("-" and "_" are the same).

    Raises:
        UsageError: there is none.
        UnavailableError: a package that it needs is missing; the text says how to get it.
    """
    plain = name.replace("_", "-")
    if plain not in DEMOS:
        raise UsageError(
            f"there is no built-in model {name!r}: take one of {', '.join(DEMOS)}, or package.module:function"
        )
    try:
        return cast(Demo, import_module(f"allocator.demos.{plain.replace('-', '_')}"))
    except ModuleNotFoundError as error:
        target = "demo" if plain == "digits" else f"demo-{plain}"
        raise UnavailableError(f"{plain} needs the module {error.name!r}; `make {target}` installs it") from None
