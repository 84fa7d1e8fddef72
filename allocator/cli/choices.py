"""The options that say what each layer is offered, and the space that they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

if TYPE_CHECKING:
    from allocator.space import Space

_Number = TypeVar("_Number", int, float)

Model: TypeAlias = Annotated[
    str, typer.Argument(help="Built-in name, or package.module:function returning a Workload.")
]
SpaceFile: TypeAlias = Annotated[str | None, typer.Option("--space", help="JSON file of rules: pattern → actions.")]
Bits: TypeAlias = Annotated[str | None, typer.Option(help="2,3,4,8: widths to offer instead of a space.")]
Ranks: TypeAlias = Annotated[str | None, typer.Option(help="0.25,0.5: fractions of the full rank to offer.")]
Kinds: TypeAlias = Annotated[
    str | None,
    typer.Option(help="joint, or bits,formats,ranks,tensors,sparsity,blocks,channels: menus to offer instead."),
]
Multiple: TypeAlias = Annotated[int | None, typer.Option(help="With --kinds: ranks are multiples of it, such as 8.")]
Fast: TypeAlias = Annotated[bool, typer.Option("--fast", help="With --kinds: leave out what is slow on large layers.")]


def choices_of(
    model: str,
    space: str | None,
    bits: str | None,
    ranks: str | None,
    kinds: str | None = None,
    multiple: int | None = None,
    fast: bool = False,
) -> Space:
    """The space that the options name: a file, widths and ranks, kinds of compression, or what suits the model."""
    from allocator.cli.models import default_space
    from allocator.errors import UsageError
    from allocator.space import Space

    if space is not None and (bits is not None or ranks is not None):
        raise UsageError("--space stands beside --bits or --ranks; give one of them")
    if kinds is not None and any(other is not None for other in (space, bits, ranks)):
        raise UsageError("--kinds stands beside --space, --bits or --ranks; give one of them")
    if kinds is None and (multiple is not None or fast):
        raise UsageError("--multiple and --fast are about the menus of --kinds: give that too, such as --kinds joint")
    if kinds is not None:
        names = [name.strip() for name in kinds.split(",") if name.strip()]
        rules = default_space(model).rules
        return Space.of_kinds(names, multiple=1 if multiple is None else multiple, fast=fast, rules=rules)
    if space is not None:
        return _read_space(space)
    if bits is not None or ranks is not None:
        return Space.simple(bits=numbers(bits or "", int, "--bits"), ranks=numbers(ranks or "", float, "--ranks"))
    return default_space(model)


def _read_space(path: str) -> Space:
    import msgspec

    from allocator.errors import UsageError
    from allocator.formats.files import read_bytes
    from allocator.space import Space

    try:
        return Space.from_json(msgspec.json.decode(read_bytes(path), type=dict))
    except msgspec.DecodeError as error:
        raise UsageError(f"--space {path}: is not a JSON object: {error}") from None


def numbers(text: str, kind: Callable[[str], _Number], option: str) -> list[_Number]:
    """The numbers of "1,2,3"; UsageError names the option."""
    from allocator.errors import UsageError

    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"{option} {text}: write numbers with commas between") from None
