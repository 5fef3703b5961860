"""What went wrong, in words: the errors that every package of the toolkit raises.

They live here because ``generators`` is the one package that all others may import (see ``tests/test_architecture.py``).
Every message says what was given, what was expected and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolkitError(Exception):
    """A mistake that the caller can mend; its message stands alone, without a traceback."""


class UnknownName(ToolkitError):
    """A method, generator, direction, layer or space that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known: {', '.join(self.known) or 'none'}")


class LatentMismatch(ToolkitError):
    """A latent code whose space, shape or generator does not fit."""


class ImplUnavailable(ToolkitError):
    """An explicitly chosen implementation of an op that this machine cannot run."""

    def __init__(self, op: str, impl: str, reason: str) -> None:
        super().__init__(f"{op}: impl={impl!r} is not available here: {reason}; use impl='auto'")
