"""How much of an attribute does a face show? One number each for age, smile, yaw, the lightness of hair and the like.

Pose, mouth, eyes and brows are plain geometry of dlib's 68 landmarks; colours are taken at places that follow from these
landmarks (``invert.colours``); age and gender are a network's (``invert.age_and_gender``). All of these are estimates with
the biases of what they were trained on: they serve to learn and check directions, not to judge people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from generators.errors import UnknownName
from invert import colours
from invert.age_and_gender import ScorerError, age_and_gender, check_installed
from invert.errors import NoFaceFound
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks

Points: TypeAlias = Float64[np.ndarray, "68 2"]
_MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37,
             36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]  # fmt: skip
"""Which of the 68 points each becomes in a mirror."""


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
    def landmarks(self) -> Points:
        """Landmarks of dlib's 68-point model, in pixels: the mean of those in the face and in its mirror image.

        Raises:
            ScorerError: there is no predictor.
            NoFaceFound: there is no face.
        """
        predictor = _landmark_model(self._predictor)
        last = self.face.shape[1] - 1
        left, top, right, bottom = self._found.box
        mirrored = Face((last - right, top, last - left, bottom), 1.0, self._found.landmarks)
        points = with_68_landmarks(self.face, self._found, predictor).landmarks
        back = with_68_landmarks(self.face[:, ::-1], mirrored, predictor).landmarks[_MIRRORED] * [-1, 1] + [last, 0]
        return (points + back) / 2

    @cached_property
    def age_and_gender(self) -> tuple[float, float]:
        """Age in years, and log odds of being male, as networks judge.

        Raises:
            ScorerError: a package is not installed.
            NoFaceFound: there is no face.
        """
        return age_and_gender(self.face, self.landmarks)

    @property
    def five_landmarks(self) -> Float64[np.ndarray, "5 2"]:
        """MTCNN's eyes, nose and corners of the mouth, in pixels; they hold for turned heads that dlib's model misreads.

        Raises:
            NoFaceFound: there is no face.
        """
        return self._found.landmarks

    @property
    def _found(self) -> Face:
        if not self._faces:
            raise NoFaceFound("no face to score in this picture")
        return self._faces[0]

    @cached_property
    def _faces(self) -> list[Face]:
        return find_faces(self.face)


def _landmark_model(path: Path | str | None) -> Path:
    predictor = find_predictor(path)
    if predictor is None:
        raise ScorerError(
            "faces are scored by dlib's 68 landmarks, whose model is not installed:"
            " pip install face_recognition_models, or give the path of shape_predictor_68_face_landmarks.dat"
        )
    return predictor


def check_scorers() -> None:
    """Say before any work what scoring lacks.

    Raises:
        ScorerError: a package or model is not installed.
    """
    _landmark_model(None)
    check_installed()


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


def _distance(points: Points, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a] - points[b]))


def _eyes(points: Points) -> tuple[Float64[np.ndarray, " 2"], Float64[np.ndarray, " 2"]]:
    """Return the centres of the eyes: the picture's left, the picture's right."""
    return points[36:42].mean(0), points[42:48].mean(0)


def _eye_distance(points: Points) -> float:
    left, right = _eyes(points)
    return float(np.linalg.norm(right - left))


def _smile(reading: FaceReading) -> float:
    """Mouth width over the distance of the eyes, plus how far the corners are lifted above the middle of the lips.

    Both numbers of the quotient shrink alike when the head turns.
    """
    points = reading.landmarks
    lift = points[[51, 57, 62, 66], 1].mean() - points[[48, 54], 1].mean()
    return (_distance(points, 48, 54) + float(lift)) / _eye_distance(points)


def _yaw(reading: FaceReading) -> float:
    """Place the tip of the nose between the eyes, as an angle.

    A head of mean proportions: the nose stands out from the plane of the eyes by 0.9 of half their distance.
    """
    left, right, nose = reading.five_landmarks[:3]
    along = (right - left) / np.linalg.norm(right - left)
    half = float(np.linalg.norm(right - left)) / 2
    offset = float((nose - (left + right) / 2) @ along)
    return math.degrees(math.atan2(offset, 0.9 * half))


def _pitch(reading: FaceReading) -> float:
    """Place the tip of the nose between the eyes and the upper lip, as an angle.

    A head of mean proportions, as for yaw; of a face that looks straight ahead the tip lies 0.62 of the way down.
    """
    points = reading.landmarks
    left, right = _eyes(points)
    eyes, lip = (left + right) / 2, points[[50, 51, 52]].mean(0)
    way = float(np.linalg.norm(lip - eyes))
    down = (lip - eyes) / way
    lifted = 0.62 * way - float((points[30] - eyes) @ down)
    return math.degrees(math.atan2(lifted, 0.6 * way))


def _roll(reading: FaceReading) -> float:
    """Measure the slope of the line through the eyes."""
    left, right = _eyes(reading.landmarks)
    return math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))


def _mouth_open(reading: FaceReading) -> float:
    points = reading.landmarks
    gap = np.mean([_distance(points, 61, 67), _distance(points, 62, 66), _distance(points, 63, 65)])
    return float(gap) / _eye_distance(points)


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


def _brows_raised(reading: FaceReading) -> float:
    points = reading.landmarks
    # Eyelids move with the opening of the eye; its corners do not.
    gap = points[[36, 39, 42, 45], 1].mean() - points[17:27, 1].mean()
    return float(gap) / _eye_distance(points)


def _full_lips(reading: FaceReading) -> float:
    points = reading.landmarks
    upper, lower = _distance(points, 51, 62), _distance(points, 57, 66)
    return (upper + lower) / _eye_distance(points)


def _face_width(reading: FaceReading) -> float:
    points = reading.landmarks
    return _distance(points, 2, 14) / _distance(points, 27, 8)


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


def _coloured(measure: Callable[[UInt8[np.ndarray, "height width 3"], Points], float]) -> Scorer:
    return lambda reading: measure(reading.face, reading.landmarks)


_NETWORKS = "age-and-gender 2 (dlib-models), 34 looks"
_LANDMARKS = "dlib's 68 landmarks"
_CIELAB = "CIELAB colours at places that dlib's 68 landmarks give"
ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in [
        Attribute("age", "older", "years", _NETWORKS, _age),
        Attribute("gender", "more masculine", "log odds", _NETWORKS, _gender),
        Attribute("smile", "more smile", "eye distances", f"{_LANDMARKS}: width and lift of the mouth", _smile),
        Attribute("yaw", "face turns to image right", "degrees, about", "MTCNN's landmarks: nose between the eyes", _yaw),
        Attribute("pitch", "face turns up", "degrees, about", f"{_LANDMARKS}: nose between eyes and lip", _pitch),
        Attribute("roll", "head leans clockwise", "degrees", f"{_LANDMARKS}: slope of the eyes", _roll),
        Attribute("mouth_open", "mouth further open", "eye distances", f"{_LANDMARKS}: gap of the lips", _mouth_open),
        Attribute("eyes_open", "eyes wider open", "eye aspect ratio", f"{_LANDMARKS}: eye aspect ratio", _eyes_open),
        Attribute("brows_raised", "brows higher", "eye distances", f"{_LANDMARKS}: brows above eyes", _brows_raised),
        Attribute("full_lips", "fuller lips", "eye distances", f"{_LANDMARKS}: height of both lips", _full_lips),
        Attribute("face_width", "wider face", "lengths of the face", f"{_LANDMARKS}: cheeks over length", _face_width),
        Attribute("glasses", "a darker frame of glasses", "log gray levels", "level edges across the nose", _glasses),
        Attribute("hair_light", "lighter hair", "L*", _CIELAB, _coloured(colours.hair_light)),
        Attribute("bangs", "forehead covered by hair", "share", _CIELAB, _coloured(colours.bangs)),
        Attribute("skin_light", "lighter skin", "L*", _CIELAB, _coloured(colours.skin_light)),
        Attribute("red_lips", "redder lips", "a*", _CIELAB, _coloured(colours.red_lips)),
        Attribute("beard", "darker around the mouth", "L*", _CIELAB, _coloured(colours.beard)),
        Attribute("light", "light from image right", "L*", _CIELAB, _coloured(colours.light_from_right)),
        Attribute("background", "lighter background", "L*", _CIELAB, _coloured(colours.background)),
    ]
}
VERSION = 4
"""Rises whenever a scorer changes, so that scores which were kept are known to be stale."""

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
        A number per name; NaN where a scorer found no face.

    Raises:
        UnknownName: no such attribute.
        ScorerError: a package or model is not installed.
    """
    chosen = dict(scorers) if isinstance(scorers, Mapping) else {name: scorer(name) for name in scorers}
    reading = FaceReading(face)
    return {name: _score(reading, function) for name, function in chosen.items()}


def _score(reading: FaceReading, function: Scorer) -> float:
    try:
        return float(function(reading))
    except NoFaceFound:
        return math.nan
