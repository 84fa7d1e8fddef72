"""A promise about a network that is only looked at: it is handed back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import Module


@contextmanager
def untouched(model: Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards modes, buffers, requires_grad, .grad and random states are as before.

    Batch normalisation in training mode would change both the statistics measured and the network's own buffers,
    and dropout the logits; hence the mode. Buffers are restored by content and by identity, because a forward pass
    may write into them or replace them. Weights are the business of whoever changes them.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    wanted = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, content in buffers:
                module._buffers[name] = buffer
                if buffer is not None and content is not None and not torch.equal(buffer, content):
                    buffer.copy_(content)
        for parameter, requires_grad, grad in wanted:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not grad:
                parameter.grad = grad
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
