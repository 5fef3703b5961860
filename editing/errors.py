"""What can be wrong with an edit, or with what a direction should be learnt from."""

from __future__ import annotations

from generators.errors import ToolkitError


class EditError(ToolkitError):
    """An edit that cannot be read or carried out, such as one whose strength is no number."""


class TrainingDataError(ToolkitError):
    """Codes and scores from which no direction can be learnt."""
