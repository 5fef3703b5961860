"""What can be wrong with a user's input."""

from __future__ import annotations

from generators.errors import ToolkitError


class PhotoError(ToolkitError):
    """A photo that cannot be read: missing, not an image, truncated, too large."""


class NoFaceFound(ToolkitError):
    """A photo without a face, without the face that was asked for, or with one too small to work with."""


class OutputError(ToolkitError):
    """A result that cannot be written."""


class ImageError(ToolkitError):
    """An image of another shape or range than expected, or one that no pixels can show: with NaN or infinite values."""


class PredictorError(ToolkitError):
    """A landmark model that is missing or is not dlib's 68-point one."""


class RecipeError(ToolkitError):
    """A recipe that cannot be read or followed."""


class SourceError(ToolkitError):
    """A source of faces that is none: neither a photo, nor a latent, nor a seed."""


class MethodError(ToolkitError):
    """Methods to compare that are written wrongly, such as ``stylemap+x``, or none at all."""


class VideoError(ToolkitError):
    """A video that cannot be read, or holds nothing to work on."""


class MetricError(ToolkitError):
    """Images or features that a metric cannot compare."""


class MetricUnavailable(ToolkitError):
    """A metric whose weights or package cannot be had here; the message says why, and how to get them."""


class TooFewImages(ToolkitError):
    """Fewer images than a figure takes to mean anything."""

    def __init__(self, metric: str, given: int, needed: int, reason: str) -> None:
        super().__init__(f"{metric}: {given} images are too few, it takes at least {needed}: {reason}")
