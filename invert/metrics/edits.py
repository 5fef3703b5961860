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
from invert.inversion import resize
from invert.metrics.base import METRIC_RESOLUTION, Description, Image
from invert.photo import to_uint8

SPREADS: Mapping[str, float] = {
    "age": 12.68,
    "gender": 13.58,
    "smile": 0.1517,
    "yaw": 16.20,
    "pitch": 7.430,
    "mouth_open": 0.08117,
    "eyes_open": 0.05441,
    "glasses": 0.6922,
    "hair_light": 18.43,
    "skin_light": 11.06,
}
"""Standard deviations of scores over 3,000 faces that mobilestylegan-ffhq-1024 drew, truncation psi in [0.6, 1]; and the
attributes that a leak is looked for in."""

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
    """Say what ``EditEffect.moved`` is, counted in the direction that was asked for."""
    inf = float("inf")
    return Description(f"moved-{attribute}", f"{attribute} moved [SD]", True, -inf, inf, ATTRIBUTES[attribute].how)


def describe_leak(attribute: str) -> Description:
    """Say what ``EditEffect.leak`` is."""
    name = f"leak into others than {attribute} [SD]"
    return Description(f"leak-{attribute}", name, False, 0.0, float("inf"), f"scorers of {', '.join(SPREADS)}")


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


def measure_effect(before: Image, after: Image, attribute: str) -> EditEffect:
    """Score images drawn before and after an edit, pooled to 256 px, and compare; see ``edit_effect``.

    Raises:
        UnknownName: the attribute has no known spread.
        ScorerError: a package or model is not installed.
    """
    if attribute not in SPREADS:
        raise UnknownName("attribute with a known spread", attribute, SPREADS)
    scores = [score_images(resize(image, METRIC_RESOLUTION), tuple(SPREADS)) for image in (before, after)]
    return edit_effect(scores[0], scores[1], SPREADS, attribute)
