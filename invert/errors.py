"""What can be wrong with a user's input."""

from __future__ import annotations

from generators.errors import ToolkitError


class PhotoError(ToolkitError):
    """A photo that cannot be read: missing, not an image, truncated, too large."""


class NoFaceFound(ToolkitError):
    """A photo without a face, without the face that was asked for, or with one too small to work with."""


class OutputError(ToolkitError):
    """A result that cannot be written."""


class PredictorError(ToolkitError):
    """A landmark model that is missing or is not dlib's 68-point one."""
