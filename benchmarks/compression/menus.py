"""What each kind of compression has to offer: the menus that are solved one by one, and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from allocator.space import Rule, Space

Choice: TypeAlias = dict[str, Any]
Menu: TypeAlias = tuple[Choice, ...]

BY_INPUTS: Choice = {"weighting": "input"}


def rounded(bits: int, scheme: str = "asymmetric", method: str = "gptq") -> Choice:
    """Integers per output channel."""
    return {"kind": "quantize", "bits": bits, "scheme": scheme, "method": method}


def corrected(choice: Choice) -> Choice:
    """The same with the mean and the variance of its outputs put right."""
    return {"kind": "corrected", "action": choice, "variance": True}


def plain(bits: int) -> Choice:
    """How factors, cores and kept weights are rounded."""
    return rounded(bits, "symmetric", "mse")


EIGHT = rounded(8, "symmetric")
"""What every menu has, so that a layer which its kind does not suit can be left nearly as it is."""


def _low_rank(share: float, bits: int) -> Choice:
    return {"kind": "low_rank", "fraction": share, "left": plain(bits), "right": plain(bits), **BY_INPUTS}


def _cp(share: float, bits: int) -> Choice:
    return {"kind": "cp", "kernel": "whole", "fraction": share, "parts": plain(bits), **BY_INPUTS}


def _kept(density: float, bits: int) -> Choice:
    values = {**plain(bits), "scheme": "asymmetric"} if bits < 3 else plain(bits)
    signs = "apart" if bits < 3 else "within"
    chosen = {"compensate": True, "signs": signs, **BY_INPUTS}
    return {"kind": "prune", "pattern": "unstructured", "density": density, "values": values, **chosen}


def _blocks(keep: int, block: int, bits: int) -> Choice:
    chosen = {"compensate": True, **BY_INPUTS}
    return {"kind": "prune", "pattern": "n_m", "keep": keep, "block": block, "values": plain(bits), **chosen}


def _formatted(name: str, **more: Any) -> Choice:
    return {"kind": "number_format", "format": name, "method": "mse", **BY_INPUTS, **more}


RANKS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
KINDS: Mapping[str, Menu] = {
    "bits": (
        *(rounded(bits) for bits in (2, 3, 4, 5, 6)),
        *(rounded(bits, "symmetric") for bits in (3, 4)),
        corrected(rounded(1, "symmetric")),
        *(corrected(rounded(bits)) for bits in (2, 3)),
    ),
    "formats": (
        _formatted("ternary"),
        corrected(_formatted("ternary")),
        _formatted("nf4", granularity="channel"),
        corrected(_formatted("nf4", granularity="channel")),
        _formatted("mxfp4"),
    ),
    "ranks": tuple(_low_rank(share, bits) for bits in (4, 5, 8) for share in RANKS),
    "tensors": (
        *(_cp(share, bits) for bits in (4, 6) for share in (0.05, 0.1, 0.2, 0.35, 0.5)),
        *({"kind": "tucker2", "fraction": share, "parts": plain(4), **BY_INPUTS} for share in (0.1, 0.25, 0.4)),
        {"kind": "tt", "fraction": 0.3, "parts": plain(4), **BY_INPUTS},
    ),
    "sparsity": (
        *(_kept(density, 4) for density in (0.1, 0.2, 0.3, 0.5)),
        *(_kept(density, 2) for density in (0.25, 0.4, 0.6)),
        _blocks(2, 4, 4),
        _blocks(1, 4, 4),
    ),
    "blocks": tuple(
        {"kind": "unify", "block": block, "share": share, "values": plain(4), **BY_INPUTS}
        for block in (4, 8)
        for share in (0.3, 0.6, 0.9)
    ),
}
"""By kind. `EIGHT` comes with each."""

JOINT = "joint"
RECOVERED = "joint, recovered"
"""The same allocations, with what is stored beside the codes distilled from the float network afterwards."""
WHOLE = "ranks in float32"
"""Fewer parameters, each as wide as before: nothing but factors."""


def menu(kind: str) -> Menu:
    """The choices of a kind, or of all of them."""
    if kind == WHOLE:
        full = {"kind": "keep"}
        shares = [k / 20 for k in range(1, 20)]
        return (*({"kind": "low_rank", "fraction": s, "left": full, "right": full, **BY_INPUTS} for s in shares), full)
    found = [choice for own in KINDS.values() for choice in own] if kind in (JOINT, RECOVERED) else list(KINDS[kind])
    return (*found, EIGHT)


def without_inputs(choice: Choice) -> Choice | None:
    """The same for a weight that is looked up, so that no inputs are known; None for what is made by them alone."""
    if choice["kind"] == "corrected":
        return None
    left = {key: value for key, value in choice.items() if key not in ("weighting", "compensate")}
    return {**left, "method": "mse"} if left.get("method") == "gptq" else left


def space_of(rules: Sequence[Rule], choices: Menu) -> Space:
    """A menu for all layers but those that some rules leave out."""
    kept = tuple(rule for rule in rules if rule.choices == "skip")
    looked_up = tuple(one for one in map(without_inputs, choices) if one is not None)
    return Space((*kept, Rule(choices=looked_up, kinds=("embedding",)), Rule(choices=choices)))
