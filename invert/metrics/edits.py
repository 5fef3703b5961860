"""Did an edit do what it says, and nothing else? What moved of the attribute that it names, and what of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from generators.errors import UnknownName
from invert.attributes import ATTRIBUTES, score_face
from invert.errors import MetricError
from invert.metrics.base import Description, Image
from invert.photo import to_uint8

Scores = Mapping[str, Float[Tensor, " _"]]
"""By attribute, one an image; NaN where no face was found."""


@dataclass(frozen=True)
class EditEffect:
    """How far attributes moved, in standard deviations of their scores; one value an image, NaN where a face was lost."""

    moved: Float[Tensor, " batch"]
    """Of the attribute that the edit names, signed."""
    leaks: Mapping[str, Float[Tensor, " batch"]]
    """Of each other attribute, signed."""

    @property
    def leak(self) -> Float[Tensor, " batch"]:
        """Mean absolute movement of the other attributes, from 0 on; smaller is better."""
        return torch.stack(list(self.leaks.values())).abs().mean(0)

    @property
    def leak_ratio(self) -> Float[Tensor, " batch"]:
        """Leak for each standard deviation that the named attribute moved, from 0 on; smaller is better."""
        return self.leak / self.moved.abs()


def describe_moved(attribute: str) -> Description:
    """Say what ``EditEffect.moved`` is."""
    inf = float("inf")
    return Description(f"moved-{attribute}", f"{attribute} moved [SD]", True, -inf, inf, ATTRIBUTES[attribute].how)


def describe_leak(attribute: str) -> Description:
    """Say what ``EditEffect.leak`` is."""
    name = f"leak of {attribute} into other attributes [SD]"
    return Description(f"leak-{attribute}", name, False, 0.0, float("inf"), "scorers of invert.attributes")


def score_images(image: Image, attributes: Sequence[str] = tuple(ATTRIBUTES)) -> dict[str, Float[Tensor, " batch"]]:
    """Score attributes of aligned faces in [-1, 1]; all of an image's are NaN where no face is found.

    Raises:
        UnknownName: no such attribute.
        ScorerError: a package or model is not installed.
    """
    rows = [score_face(photo, attributes) for photo in to_uint8(image)]
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in attributes}


def edit_effect(before: Scores, after: Scores, spreads: Mapping[str, float], attribute: str) -> EditEffect:
    """Compare the scores of images before and after an edit.

    Args:
        before: of the images drawn from the codes as they were (not of the photos: that is the inversion's error).
        after: of the images drawn from the edited codes.
        spreads: standard deviation of each attribute's score over random faces, in the unit of the score.
        attribute: the one that the edit names.

    Raises:
        UnknownName: the attribute was not scored.
        MetricError: there is no other attribute to leak into, or one without a positive spread.
    """
    if attribute not in before or attribute not in after:
        raise UnknownName("scored attribute", attribute, before.keys() & after.keys())
    bad = [name for name in before if not spreads.get(name, 0) > 0]
    if bad or len(before) < 2 or before.keys() != after.keys():
        raise MetricError(
            f"effect of an edit on {attribute}: expected the same two or more attributes before ({', '.join(before)}) and"
            f" after ({', '.join(after)}), each with a positive spread; without one: {', '.join(bad) or 'none'}"
        )
    moved = {name: (after[name] - before[name]) / spreads[name] for name in before}
    return EditEffect(moved.pop(attribute), moved)
