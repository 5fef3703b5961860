"""Where are the faces in a photo, and where are eyes and mouth in them? MTCNN's five points, or dlib's 68.

Points and boxes are in photo pixels; a pixel's centre has whole coordinates (x to the right, y down), as in OpenCV and dlib.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image

from invert.errors import PredictorError

# MTCNN sees at most this many pixels: detection then takes well under a second for any photo.
DETECTION_PIXELS = 1_500_000
# MTCNN calls everything above 0.7 a face; the 84 portraits of the shared data have 0.98 and more.
MIN_SCORE = 0.9
_MTCNN_MIN_FACE_PX = 20


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: left, top, right, bottom; about from forehead to chin.
        score: the detector's certainty in [0, 1].
        landmarks: 5 (left eye, right eye, nose, mouth's left, right corner; left as in the picture) or dlib's 68.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Float64[np.ndarray, "points 2"]

    def __post_init__(self) -> None:
        if len(self.landmarks) not in (5, 68):
            raise ValueError(f"a face has 5 or 68 landmarks, not {len(self.landmarks)}")

    @classmethod
    def from_landmarks(cls, landmarks: Float[np.ndarray, "points 2"]) -> Face:
        """Make a face of landmarks that were found elsewhere; the box is the smallest that holds them."""
        (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
        return cls((float(left), float(top), float(right), float(bottom)), 1.0, landmarks.astype(np.float64))

    @property
    def size_px(self) -> float:
        """The longer side of the box."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    @property
    def left_eye(self) -> Float64[np.ndarray, " 2"]:
        """Centre of the eye on the picture's left."""
        return self.landmarks[0] if len(self.landmarks) == 5 else self.landmarks[36:42].mean(0)

    @property
    def right_eye(self) -> Float64[np.ndarray, " 2"]:
        """Centre of the eye on the picture's right."""
        return self.landmarks[1] if len(self.landmarks) == 5 else self.landmarks[42:48].mean(0)

    @property
    def mouth(self) -> Float64[np.ndarray, " 2"]:
        """Middle between the corners of the mouth."""
        return self.landmarks[[3, 4] if len(self.landmarks) == 5 else [48, 54]].mean(0)


def find_faces(photo: UInt8[np.ndarray, "height width 3"], min_score: float = MIN_SCORE) -> list[Face]:
    """Find all faces with their five landmarks, the largest first; no face gives an empty list.

    Reference: Zhang et al. 2016, arXiv:1604.02878. The landmarks are not MTCNN's own but refined, see ``_five_landmarks``.
    """
    height, width = photo.shape[:2]
    shrink = max(1.0, (height * width / DETECTION_PIXELS) ** 0.5)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    small = photo if shrink == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    if min(size) < _MTCNN_MIN_FACE_PX:  # facenet-pytorch then has no scale to look at and fails.
        return []
    boxes, scores, _ = _mtcnn().detect(np.ascontiguousarray(small), landmarks=True)
    if boxes is None:
        return []
    scale = np.array([width / size[0], height / size[1]] * 2)
    faces = []
    for box, score in zip(np.asarray(boxes, np.float64) * scale, scores, strict=True):
        if score >= min_score:
            left, top, right, bottom = (float(edge) for edge in box)
            landmarks = _five_landmarks(photo, (left, top, right, bottom))
            faces.append(Face((left, top, right, bottom), float(score), landmarks))
    return sorted(faces, key=lambda face: -face.size_px)


@lru_cache(maxsize=1)
def _mtcnn() -> Any:
    from facenet_pytorch import MTCNN  # Late: it takes a second.

    return MTCNN(keep_all=True, min_face_size=_MTCNN_MIN_FACE_PX, device=torch.device("cpu")).eval()


# Where the landmark network looks: the box, and the box moved by 4 % of its side.
_LOOKS = np.array([(0, 0), (0.04, 0), (-0.04, 0), (0, 0.04), (0, -0.04)])


@torch.inference_mode()
def _five_landmarks(
    photo: UInt8[np.ndarray, "height width 3"], box: tuple[float, float, float, float]
) -> Float64[np.ndarray, "5 2"]:
    """Average MTCNN's landmarks over five looks at the face and their mirror images.

    MTCNN itself looks once, at a box cut to whole pixels and squeezed where it leaves the picture: on small faces its eyes
    then lie a percent or two of their distance to the right. Sampling exactly and averaging takes out bias and noise.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    centres = np.array([(left + right) / 2, (top + bottom) / 2]) + _LOOKS * side
    looks = np.stack([_square(photo, centre, side, 48) for centre in centres])
    looks = np.concatenate([looks, looks[:, :, ::-1]])
    inputs = torch.from_numpy(looks).permute(0, 3, 1, 2).to(torch.float32).sub(127.5).div(128)
    _, points, _ = _mtcnn().onet(inputs)
    x, y = points[:, :5].numpy().astype(np.float64), points[:, 5:].numpy().astype(np.float64)
    mirrored = slice(len(centres), None)
    swap = [1, 0, 2, 4, 3]  # The mirror's left is the right.
    x[mirrored], y[mirrored] = 1 - x[mirrored][:, swap], y[mirrored][:, swap]
    inside = np.stack([x, y], -1) - 0.5
    return np.asarray((np.concatenate([centres, centres])[:, None] + inside * side).mean(0))


def _square(
    photo: UInt8[np.ndarray, "height width 3"], centre: Float64[np.ndarray, " 2"], side: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Sample an upright square at exact coordinates, antialiased; gray outside the photo."""
    # From here on coordinates count from the top left corner of a pixel, as Pillow's boxes do.
    start, end = centre + 0.5 - side / 2, centre + 0.5 + side / 2
    low, high = np.floor(start).astype(int) - 1, np.ceil(end).astype(int) + 1
    limit = np.array(photo.shape[1::-1])
    inner, outer = low.clip(0, limit), high.clip(0, limit)
    patch = photo[inner[1] : outer[1], inner[0] : outer[0]]
    before, after = inner - low, high - outer
    patch = np.pad(patch, [(before[1], after[1]), (before[0], after[0]), (0, 0)], constant_values=127)
    box = (*(start - low), *(end - low))
    return np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.BILINEAR, box=box))


def find_predictor(path: Path | str | None = None) -> Path | None:
    """Find dlib's 68-point model: the file given, else the one of an installed ``face_recognition_models``, else none.

    That package is looked up, never imported: it imports ``pkg_resources``, which current setuptools has no more.

    Raises:
        PredictorError: ``path`` is given and is no file.
    """
    if path is not None:
        if not Path(path).is_file():
            raise PredictorError(f"{path}: no such landmark model; give dlib's shape_predictor_68_face_landmarks.dat")
        return Path(path)
    package = importlib.util.find_spec("face_recognition_models")
    for folder in (package.submodule_search_locations or []) if package else []:
        model = Path(folder) / "models" / "shape_predictor_68_face_landmarks.dat"
        if model.is_file():
            return model
    return None


# The predictor was trained on boxes of dlib's own detector. Against these, over the 84 portraits of the shared data, MTCNN's
# box is narrower and reaches higher: side 0.93 sqrt(width height) (sd 0.07), centre 0.09 of the side further down (sd 0.04).
_DLIB_SIDE, _DLIB_DOWN = 0.95, 0.09
# The box that gives the first guess is only roughly right, so that the mean of several guesses is steadier: crops from one
# guess and from this mean differ by 0.4 % of their side (median), by up to 1.7 %.
_DLIB_LOOKS = [(0, 0, 1), (0.03, 0, 1), (-0.03, 0, 1), (0, 0.03, 1), (0, -0.03, 1), (0, 0, 1.05), (0, 0, 0.95)]


def with_68_landmarks(photo: UInt8[np.ndarray, "height width 3"], face: Face, predictor: Path | str) -> Face:
    """Give the same face with dlib's 68 landmarks in place of its five.

    Args:
        photo: where the face was found.
        face: gives the box.
        predictor: dlib's model file, see ``find_predictor``. Its training data excludes commercial use.

    Raises:
        PredictorError: the file is no 68-point model.

    Reference: Kazemi and Sullivan 2014, "One millisecond face alignment with an ensemble of regression trees".
    """
    import dlib

    left, top, right, bottom = face.box
    side = _DLIB_SIDE * ((right - left) * (bottom - top)) ** 0.5
    x, y = (left + right) / 2, (top + bottom) / 2 + _DLIB_DOWN * side
    photo = np.ascontiguousarray(photo)
    guesses = []
    for dx, dy, scale in _DLIB_LOOKS:
        cx, cy, half = x + dx * side, y + dy * side, side * scale / 2
        box = dlib.rectangle(*(round(edge) for edge in (cx - half, cy - half, cx + half, cy + half)))
        guesses.append([(point.x, point.y) for point in _shape_predictor(Path(predictor))(photo, box).parts()])
    if len(guesses[0]) != 68:
        raise PredictorError(f"{predictor}: this model has {len(guesses[0])} landmarks, not 68")
    return replace(face, landmarks=np.array(guesses, np.float64).mean(0))


@lru_cache(maxsize=2)
def _shape_predictor(path: Path) -> Any:
    import dlib

    try:
        return dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise PredictorError(f"{path}: not a landmark model of dlib: {error}") from error
