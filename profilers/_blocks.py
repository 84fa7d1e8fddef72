"""The parts of a network whose outputs are worth remembering: its blocks, in whatever order it calls them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch.nn import Module, ModuleDict, ModuleList, Sequential

CONTAINERS = (Sequential, ModuleList, ModuleDict)


def blocks(model: Module) -> Iterator[Module]:
    """Disjoint modules that cover the network: children of its containers, and what stands beside the containers.

    The network itself is opened; so is every container, and any other module that holds a container and is not
    itself a member of one (the body of a transformer, say, which holds its list of layers). What is not opened is a
    block: a residual block in a stage, a transformer layer, a lone layer. Whether a block's output may be remembered
    is decided when it runs.
    """
    for child in model.children():
        if _opens(child, member=isinstance(model, CONTAINERS)):
            yield from blocks(child)
        else:
            yield child


def _opens(module: Module, member: bool) -> bool:
    if isinstance(module, CONTAINERS):
        return True
    return not member and any(isinstance(inner, CONTAINERS) for inner in module.modules())


def inside(block: Module, layers: Collection[Module]) -> Iterator[Module]:
    """What stands beside the layers within a block, and the layers: children wherever one of them is further down."""
    if block not in layers and any(module in layers for module in block.modules()):
        for child in block.children():
            yield child
            yield from inside(child, layers)
