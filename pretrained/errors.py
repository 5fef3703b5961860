"""What can be wrong with a file of weights."""

from __future__ import annotations

from generators.errors import ToolkitError


class BrokenFile(ToolkitError):
    """A file that is truncated, tampered with or not of the kind that its name says."""


class UnsafePickle(BrokenFile):
    """A pickle that wants what no file of weights needs: to run a function, or to fill the memory."""


class ForeignFile(BrokenFile):
    """A sound file of a kind that cannot be used here: the message says which, and what can be done."""


class CannotConvert(ToolkitError):
    """A network that another format has no place for, or a conversion that did not keep its images."""


class DownloadFailed(ToolkitError):
    """Weights that could not be fetched: the message says what to fetch by hand and where to put it."""


class CheckpointMismatch(ToolkitError):
    """A checkpoint whose tensors do not fit the network that it should fill."""

    def __init__(self, what: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
        self.missing, self.unexpected, self.misshapen = missing, unexpected, misshapen
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
            if names
        ]
        super().__init__(f"{what} does not fit: tensors {'; '.join(parts)}")
