"""How the places of k marked ones among n are written down, and in how many bytes: from n and k alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["nothing", "bitmap", "marked", "unmarked"]


@dataclass(frozen=True)
class EliasFano:
    """Elias–Fano coding of k rising numbers below n (Elias 1974, J. ACM 21(2); Fano 1971, MIT Project MAC memo 61).

    Of each number the l = floor(log2(n/k)) low bits are written as they are, k·l bits; of the high parts p_i >> l, one
    bit is set at place (p_i >> l) + i of k + ((n − 1) >> l) bits: so many ones as numbers, a zero for each step of the
    high part. Either stream fills whole bytes. About k·(2 + log2(n/k)) bits, at most 0.6 per number above what any code
    needs for k ≪ n.

    >>> EliasFano(1000, 100).bytes
    66
    """

    n: int
    k: int

    @property
    def low_bits(self) -> int:
        """l."""
        return (self.n // self.k).bit_length() - 1

    @property
    def high_bits(self) -> int:
        """Length of the stream of high parts, in bits."""
        return self.k + ((self.n - 1) >> self.low_bits)

    @property
    def low_bytes(self) -> int:
        """Length of the stream of low bits."""
        return -(-self.k * self.low_bits // 8)

    @property
    def bytes(self) -> int:
        """Both streams."""
        return self.low_bytes + -(-self.high_bits // 8)


def cheapest_form(n: int, k: int) -> tuple[Form, int]:
    """The form in which k of n places (1 ≤ k ≤ n) take the fewest bytes, and how many.

    `nothing` when all are marked; `bitmap`, a bit for each place; `marked` or `unmarked`, Elias–Fano coding of the
    places that are or are not. Of two that are equally short the first of these.

    >>> [cheapest_form(1000, k) for k in (1, 100, 500, 900, 1000)]
    [('marked', 3), ('marked', 66), ('bitmap', 125), ('unmarked', 66), ('nothing', 0)]
    """
    if k == n:
        return "nothing", 0
    forms: dict[Form, int] = {
        "bitmap": -(-n // 8),
        "marked": EliasFano(n, k).bytes,
        "unmarked": EliasFano(n, n - k).bytes,
    }
    best = min(forms, key=lambda form: forms[form])
    return best, forms[best]
