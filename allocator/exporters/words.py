"""Names that MPS and LP files bear: short, of plain letters, each given once."""

from __future__ import annotations

import re

LONGEST = 120  # MPS and LP readers take 255 at least
OTHER = re.compile(r"[^A-Za-z0-9_.]+")


class Words:
    """Hands out names; `changed` keeps what those mean that had to be altered."""

    def __init__(self) -> None:
        self.given: set[str] = set()
        self.changed: dict[str, str] = {}

    def name(self, kind: str, *parts: str) -> str:
        """A legal name that nobody has yet: kind_part_part, with _2, _3, … where another has it.

        The kind in front keeps it from beginning with a digit or a point, and from being a word of the format.
        """
        wanted = "_".join((kind, *parts))
        plain = OTHER.sub("_", wanted)[:LONGEST]
        found, n = plain, 1
        while found in self.given:
            n += 1
            found = f"{plain}_{n}"
        self.given.add(found)
        if found != wanted:
            self.changed[found] = ", ".join(ascii(part) for part in parts)
        return found
