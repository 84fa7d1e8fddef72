"""What each kind of compression offers a layer: menus to be solved one by one, or several of them in one solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from allocator.errors import UsageError

Choice: TypeAlias = Mapping[str, Any]
Menu: TypeAlias = tuple[Choice, ...]

BY_INPUTS: Choice = {"weighting": "input"}
JOINT = "joint"
"""The name of all kinds but channels, whose choices tie layers together: ``joint,channels`` has those too."""


def rounded(bits: int, scheme: str = "asymmetric", method: str = "gptq") -> Choice:
    """Integers per output channel."""
    return {"kind": "quantize", "bits": bits, "scheme": scheme, "method": method}


def _corrected(choice: Choice) -> Choice:
    return {"kind": "corrected", "action": choice, "variance": True}


def _plain(bits: int, scheme: str = "symmetric") -> Choice:
    """How factors, cores and kept weights are rounded."""
    return rounded(bits, scheme, "mse")


def _formatted(name: str, **more: Any) -> Choice:
    return {"kind": "number_format", "format": name, "method": "mse", **BY_INPUTS, **more}


def _low_rank(share: float, bits: int) -> Choice:
    return {"kind": "low_rank", "fraction": share, "left": _plain(bits), "right": _plain(bits), **BY_INPUTS}


def _cp(share: float, bits: int) -> Choice:
    return {"kind": "cp", "kernel": "whole", "fraction": share, "parts": _plain(bits), **BY_INPUTS}


def _kept(density: float, bits: int) -> Choice:
    values, signs = (_plain(bits, "asymmetric"), "apart") if bits < 3 else (_plain(bits), "within")
    chosen = {"compensate": True, "signs": signs, **BY_INPUTS}
    return {"kind": "prune", "pattern": "unstructured", "density": density, "values": values, **chosen}


def _blocks(keep: int, block: int, bits: int) -> Choice:
    chosen = {"compensate": True, **BY_INPUTS}
    return {"kind": "prune", "pattern": "n_m", "keep": keep, "block": block, "values": _plain(bits), **chosen}


EIGHT = rounded(8, "symmetric")
"""What comes with every menu, so that a layer which a kind does not suit can be left nearly as it is."""

BITS: Menu = (
    *(rounded(bits) for bits in (2, 3, 4, 5, 6, 7, 8)),
    *(rounded(bits, "symmetric") for bits in (3, 4)),
    _corrected(rounded(1, "symmetric")),
    *(_corrected(rounded(bits)) for bits in (2, 3)),
)
"""Integers of 1 to 8 bits per output channel, rounded one after the other so that each makes up for those before."""

FORMATS: Menu = (
    _formatted("ternary"),
    _corrected(_formatted("ternary")),
    _formatted("nf4", granularity="channel"),
    _corrected(_formatted("nf4", granularity="channel")),
    _formatted("mxfp4"),
)
"""Ternary weights, and formats of 4 bits whose values do not lie at equal distances."""

RANKS: Menu = tuple(_low_rank(share, bits) for bits in (4, 5, 8) for share in (0.05, 0.1, 0.2, 0.3, 0.45, 0.6))
"""Two factors in place of the weight, of 5 to 60 % of the full rank, at 4, 5 or 8 bits."""

TENSORS: Menu = (
    *(_cp(share, bits) for bits in (4, 6) for share in (0.05, 0.1, 0.2, 0.35, 0.5)),
    *({"kind": "tucker2", "fraction": share, "parts": _plain(4), **BY_INPUTS} for share in (0.1, 0.25, 0.4)),
    {"kind": "tt", "fraction": 0.3, "parts": _plain(4), **BY_INPUTS},
)
"""Tensor formats of convolutions, with 5 to 50 % of a layer's numbers, at 4 or 6 bits; nothing for matrices."""

SPARSITY: Menu = (
    *(_kept(density, 4) for density in (0.1, 0.2, 0.3, 0.5)),
    *(_kept(density, 2) for density in (0.25, 0.4, 0.6)),
    _blocks(2, 4, 4),
    _blocks(1, 4, 4),
)
"""10 to 60 % of the weights, or 1 or 2 of every 4, at 2 or 4 bits, fitted again so that they make up for the others."""

BLOCKS: Menu = tuple(
    {"kind": "unify", "block": block, "share": share, "values": _plain(4), **BY_INPUTS}
    for block in (8, 16)
    for share in (0.3, 0.6, 0.9)
)
"""Blocks of 8 or 16 weights with one magnitude, for 30 to 90 % of all blocks; the others at 4 bits."""

CHANNELS: Menu = tuple(
    {"kind": "slim", "keep": share, "values": _plain(bits, "asymmetric"), **BY_INPUTS}
    for bits in (3, 4, 5)
    for share in (0.75, 0.5)
)
"""75 or 50 % of the channels, at 3 to 5 bits; layers that share channels leave out the same ones."""

KINDS: Mapping[str, Menu] = {
    "bits": BITS,
    "formats": FORMATS,
    "ranks": RANKS,
    "tensors": TENSORS,
    "sparsity": SPARSITY,
    "blocks": BLOCKS,
    "channels": CHANNELS,
}
"""By kind. `EIGHT` comes with each."""


def menu(kinds: str | Sequence[str] = JOINT, *, multiple: int = 1, fast: bool = False, keep: bool = False) -> Menu:
    """The choices of one kind or of several, then 8 bits, then if ``keep`` the weight as it is.

    Args:
        kinds: names out of `KINDS`, or ``joint``.
        multiple: ranks, and numbers of channels, are multiples of it: what hardware likes.
        fast: leave out what takes 5 s and more on one core for 885 thousand weights: cp, tucker2, and pruned weights
            that are fitted again, which is all of ``sparsity``. The rest takes about 1 s or less.
        keep: offer float32 too.

    Raises:
        UsageError: a name that is none, or no name; a kind of which nothing is fast; a multiple below 1.
    """
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for name in wanted:
        if name != JOINT and name not in KINDS:
            raise UsageError(f"there is no kind of compression {name!r}: take {JOINT}, or some of {', '.join(KINDS)}")
    if not wanted:
        raise UsageError(f"no kind of compression is given: take {JOINT}, or some of {', '.join(KINDS)}")
    if not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1:
        raise UsageError(f"multiple={multiple!r}: ranks are multiples of a whole number, 1 or more")
    offered = {name: tuple(one for one in own if not (fast and _slow(one))) for name, own in KINDS.items()}
    for name in wanted:
        if name != JOINT and not offered[name]:
            raise UsageError(f"nothing of the kind {name} is fast: leave {name} out, or do without fast")
    everything = tuple(name for name in KINDS if name != "channels")
    names = dict.fromkeys(one for name in wanted for one in (everything if name == JOINT else (name,)))
    found = [_multiples(choice, multiple) for name in names for choice in offered[name]]
    return (*found, EIGHT, *([{"kind": "keep", "dtype": "float32"}] if keep else ()))


def without_inputs(choice: Choice) -> Choice | None:
    """The same for a weight that is looked up, so that no inputs are known; None for what is made by them alone."""
    if choice["kind"] in ("corrected", "slim"):
        return None
    left = {key: value for key, value in choice.items() if key not in ("weighting", "compensate")}
    return {**left, "method": "mse"} if left.get("method") == "gptq" else left


def _slow(choice: Choice) -> bool:
    return choice["kind"] in ("cp", "tucker2") or bool(choice.get("compensate"))


def _multiples(choice: Choice, multiple: int) -> Choice:
    shared = "fraction" in choice or choice["kind"] == "slim"
    return {**choice, "multiple": multiple} if shared and multiple > 1 else choice
