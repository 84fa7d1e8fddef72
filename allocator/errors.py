"""Every error of the project; the root is `AllocatorError`, so that a caller can catch one thing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

QUOTED = 400  # characters at either end of an overlong message


class AllocatorError(Exception):
    """Root of all errors; its text names the thing, the reason and the way out."""


class UsageError(AllocatorError, ValueError):
    """An argument that cannot be meant: an unknown name, an unreadable budget, an option a plug-in lacks."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a file: where (JSON pointer, RFC 6901), and what with the way out."""

    pointer: str
    message: str

    def __post_init__(self) -> None:
        if len(self.message) > 2 * QUOTED:  # names come from the file, and may be as long as it is
            object.__setattr__(self, "message", f"{self.message[:QUOTED]} … {self.message[-QUOTED:]}")

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.message}"


class ProblemError(AllocatorError, ValueError):
    """A problem or solution that breaks the format; `faults` lists up to 100 places."""

    def __init__(self, faults: Iterable[Fault], what: str = "problem") -> None:
        self.faults: Sequence[Fault] = tuple(faults)
        first = self.faults[0] if self.faults else Fault("", "unspecified")
        more = f" (and {len(self.faults) - 1} more; `allocator check` lists them)" if len(self.faults) > 1 else ""
        super().__init__(f"not a valid {what}: {first}{more}")


class UnsupportedError(AllocatorError):
    """A solver was handed a feature that it does not understand; the text names both and who does."""


class UnavailableError(AllocatorError):
    """A plug-in that is broken or whose package is missing; the text says which and how to get it."""


class SolverError(AllocatorError):
    """A backend failed or returned something that is not an answer."""


class ActionError(AllocatorError, ValueError):
    """An action that cannot be read, or cannot be done to this layer; the text names both."""
