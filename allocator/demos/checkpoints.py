"""Trained weights that come with the package: float16 on disk, float32 in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from allocator.errors import AllocatorError

FOLDER = Path(__file__).parent

_Network = TypeVar("_Network", bound=nn.Module)


def load(make: Callable[[], _Network], name: str, trainer: str = "benchmarks.profilers.train") -> _Network:
    """A network with the weights stored under a name, in evaluation mode; the global random state is left alone.

    trainer: the module whose run makes the file, for the text of the error.

    Raises:
        AllocatorError: there is no such file, or its tensors are not those of the network.
    """
    path = _path(name)
    with torch.random.fork_rng(devices=[]):
        network = make()
    try:
        network.load_state_dict({key: _in_memory(tensor) for key, tensor in load_file(path).items()})
    except OSError as error:
        raise AllocatorError(f"{path} cannot be read ({error}); `python -m {trainer} {name}` makes it") from error
    except RuntimeError as error:
        raise AllocatorError(f"{path} is of another network: {error}") from error
    return network.eval()


def save(network: nn.Module, name: str) -> Path:
    """Store the state of a network; what float16 cannot hold is refused.

    Raises:
        AllocatorError: a number is not finite in float16.
    """
    state = {key: _on_disk(tensor) for key, tensor in network.state_dict().items()}
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise AllocatorError(f"{key} of {name} is not finite in float16; train it again")
    path = _path(name)
    save_file(state, path)
    return path


def _path(name: str) -> Path:
    return FOLDER / f"{name.replace('-', '_')}.safetensors"


def _on_disk(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().half().contiguous() if tensor.is_floating_point() else tensor.detach().contiguous()


def _in_memory(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
