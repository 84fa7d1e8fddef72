"""Leave out channels: rows that nobody reads and columns that read nothing; another action stores what remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from allocator.actions.action import ACTIVATION_BITS, read
from allocator.actions.factored import Plain, plain
from allocator.actions.layer import Layer
from allocator.actions.weighting import NEEDS, require_weighting
from allocator.errors import ActionError


@dataclass(frozen=True)
class Kept:
    """Which of some channels stay: rising numbers from 0, at least one, not all of them.

    In JSON ``{"of": n, "kept": …}``, kept a list of numbers, or, which is the canonical form, the hexadecimal digits
    of ceil(n/8) bytes with a bit for each channel, the lowest bit of a byte first.

    >>> Kept(10, (0, 9)).to_json()
    {'of': 10, 'kept': '0102'}
    """

    of: int
    kept: tuple[int, ...]

    @staticmethod
    def read(key: str, given: object) -> Kept:
        """From JSON; ActionError names the key that is wrong."""
        if isinstance(given, Kept):
            given = {"of": given.of, "kept": given.kept}
        if isinstance(given, Mapping) and set(given) == {"of", "kept"}:
            of, kept = given["of"], given["kept"]
        else:
            raise ActionError(f'action slim: {key} must be {{"of": channels, "kept": which}}, got {given!r}')
        if not _whole(of) or of < 2:
            raise ActionError(f"action slim: {key}: of must be an integer ≥ 2, the number of channels, got {of!r}")
        numbers = _numbers(kept, of) if isinstance(kept, str) else kept
        if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not all(map(_whole, numbers)):
            raise ActionError(
                f"action slim: {key}: kept must be a list of channel numbers, or {2 * _length(of)} hexadecimal digits "
                f"with a bit for each of {of} channels, got {kept!r}"
            )
        found = tuple(numbers)
        if not found or list(found) != sorted(set(found)) or found[0] < 0 or found[-1] >= of or len(found) == of:
            raise ActionError(
                f"action slim: {key}: kept must be rising numbers from 0 to {of - 1}, at least one and not all "
                f"{of}, got {kept!r}; leave {key} out where all channels stay"
            )
        return Kept(of, found)

    @property
    def bitmap(self) -> bytes:
        """A bit for each channel, 1 for those that stay, the lowest bit of a byte first."""
        bits = sum(1 << channel for channel in self.kept)
        return bits.to_bytes(_length(self.of), "little")

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form."""
        return {"of": self.of, "kept": self.bitmap.hex()}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _length(channels: int) -> int:
    return -(-channels // 8)


def _numbers(digits: str, of: int) -> list[int] | None:
    """The channels of a bitmap in hexadecimal digits; None if it is none."""
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    bits = int.from_bytes(raw, "little")
    if len(raw) != _length(of) or len(digits) != 2 * len(raw) or bits >> of:
        return None
    return [channel for channel in range(of) if bits >> channel & 1]


@dataclass(frozen=True, kw_only=True)
class Slim:
    """Structured pruning of channels (Li et al., arXiv 1608.08710): what remains is a smaller layer.

    `columns` are the input channels that are still read: the weights of the others are 0. `rows` are the output
    channels that are still computed. A row may be left out only where nobody reads its channel, that is where every
    layer that reads it takes a choice with the same channels as `columns`; `allocator.grouping.channels` finds such
    sets of layers and couples their choices. The row that is left out then changes no output of the network, whatever
    is in it: for scores it stays as it was (`unread`), and what is restored is 0. Its bias, and what a norm has for it,
    are stored as before.

    A channel of the columns is columns/of consecutive columns: the kernel positions of a convolution's input channel,
    or the places of a channel that was flattened into a Linear.

    With `weighting` input the columns K that stay take over what they can of those D that go, so that E‖W x − W' x_K‖²
    is least: W' = W_K + W_D E[x_D x_Kᵀ] (E[x_K x_Kᵀ] + εI)⁻¹, ε = 10⁻⁴ of the mean of the diagonal (least squares as
    in channel pruning, He et al., arXiv 1707.06168).

    Stored: a map of the rows, then one of the columns, each only if some go, a bit for each channel (1: kept), the
    lowest bit of a byte first; then the kept rows × kept columns as `values` says, as a Linear's weight.

    Attributes:
        values: `keep`, `quantize` or `number_format`, for the weights that remain.
        rows: output channels that are kept; None: all.
        columns: input channels that are kept; None: all.
        weighting: none, or input, which needs statistics of the layer and columns that go.

    >>> from allocator.actions import Quantize
    >>> half = Kept(64, tuple(range(32)))
    >>> Slim(rows=half, columns=half, values=Quantize(bits=4)).stored_bytes(Layer("conv2d", (64, 64, 3, 3)))
    4688
    """

    kind: ClassVar[str] = "slim"
    usage: ClassVar[str] = (
        'values: action (keep, quantize or number_format), rows and/or columns: {"of": channels, "kept": list of '
        "channel numbers, or a bitmap in hexadecimal digits}, weighting: none|input (with columns only)"
    )

    values: Plain
    rows: Kept | None = None
    columns: Kept | None = None
    weighting: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", plain(self.kind, "values", self.values))
        for key in ("rows", "columns"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, Kept.read(key, getattr(self, key)))
        if self.rows is None and self.columns is None:
            raise ActionError(
                "action slim: neither rows nor columns are left out; give one of them, or take values alone"
            )
        require_weighting(self.kind, self.weighting)
        if self.weighting != "none" and self.columns is None:
            raise ActionError("action slim: weighting is about columns that go, and all stay; leave it out")

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Slim:
        """Read {"kind": "slim", "values": action, "rows": …, "columns": …, …}."""
        if "keep" in action:
            raise ActionError(
                "action slim: keep is a share of channels, which only a rule of a space can have: which channels they "
                "are is found by profiling. Give rows or columns"
            )
        return read(cls, action)

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: rows, columns and weighting only where there are any."""
        out: dict[str, Any] = {"kind": self.kind, "values": self.values.to_json()}
        for key in ("rows", "columns"):
            kept: Kept | None = getattr(self, key)
            if kept is not None:
                out[key] = kept.to_json()
        return out if self.weighting == "none" else out | {"weighting": self.weighting}

    @property
    def statistics(self) -> frozenset[str]:
        """What must be known of the layer beyond its weight to do this: see `allocator.actions.action.STATISTICS`."""
        return NEEDS[self.weighting]

    @cached_property
    def unread(self) -> tuple[int, ...]:
        """Rows that are left out: see `allocator.actions.action.unread_rows`."""
        if self.rows is None:
            return ()
        return tuple(sorted(set(range(self.rows.of)) - set(self.rows.kept)))

    def check(self, layer: Layer) -> None:
        """Refuse embeddings, columns of grouped convolutions, other numbers of channels, what `values` refuses."""
        if layer.kind == "embedding":
            raise ActionError("action slim: an embedding looks rows up, so that its rows are no channels; keep them")
        if self.rows is not None and self.rows.of != layer.rows:
            raise ActionError(
                f"action slim: rows are of {self.rows.of} channels, but a weight of shape {layer.weight_shape} has "
                f"{layer.rows}"
            )
        if self.columns is not None:
            if layer.groups > 1:
                raise ActionError(
                    f"action slim: the {layer.groups} groups of a convolution read different channels, so that no "
                    "column can go; leave columns out"
                )
            if layer.columns % self.columns.of:
                raise ActionError(
                    f"action slim: the {layer.columns} columns of a weight of shape {layer.weight_shape} do not part "
                    f"into {self.columns.of} channels"
                )
        try:
            self.values.check(self.core(layer))
        except ActionError as error:
            raise ActionError(f"action slim: values: {error}") from error

    def core(self, layer: Layer) -> Layer:
        """What remains, as a layer of its own."""
        rows = layer.rows if self.rows is None else len(self.rows.kept)
        columns = layer.columns
        if self.columns is not None:
            columns = columns // self.columns.of * len(self.columns.kept)
        return Layer("linear", (rows, columns), positions=layer.positions)

    def stored_bytes(self, layer: Layer) -> int:
        """Maps, and what remains."""
        maps = sum(_length(kept.of) for kept in (self.rows, self.columns) if kept is not None)
        return maps + self.values.stored_bytes(self.core(layer))

    def macs(self, layer: Layer) -> int:
        """Kept rows · kept columns · positions."""
        return self.values.macs(self.core(layer))

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Those of what remains."""
        return self.values.bops(self.core(layer), activation_bits)
