"""Is it still the same person? Cosines of face descriptors, each of a named network.

A descriptor that an encoder was trained with flatters that encoder. pSp and e4e minimise ArcFace's: judge them by another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.errors import UnknownName
from invert.errors import MetricUnavailable
from invert.inversion import resize
from invert.landmarks import find_predictor
from invert.photo import to_uint8
from pretrained.errors import BrokenFile, DownloadFailed

MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
NAME = "dlib descriptor, cosine"
HOW_TO_GET = "needs dlib's models: pip install face_recognition_models"
# Where an FFHQ crop has its face, as shares of the side: the rectangle that dlib's landmarks start from.
_FACE = (0.2, 0.28, 0.8, 0.88)
# What pSp's identity loss takes of an FFHQ face at 256 px (Richardson et al. 2021, arXiv:2008.00951, released code).
_ROWS, _COLUMNS = slice(35, 223), slice(32, 220)


@dataclass(frozen=True)
class Descriptor:
    """A network that turns an aligned face into a vector; vectors of one person point the same way."""

    key: str
    """What a user types."""
    backbone: str
    """Architecture and training data, in words."""
    embed: Callable[[Float[Tensor, "batch 3 h w"]], Float[Tensor, "batch width"]]
    """Vectors of any length, of aligned faces in [-1, 1]."""

    def __call__(self, image: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch width"]:
        """Describe aligned faces in [-1, 1] by unit vectors."""
        return F.normalize(self.embed(image), dim=1)

    def similarity(
        self, image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h2 w2"]
    ) -> Float[Tensor, " batch"]:
        """Return the cosine of the descriptors, -1 to 1; greater is better, 1 for the same picture."""
        return (self(image) * self(target)).sum(1)


def load_descriptor(key: str, device: str | torch.device = "cpu") -> Descriptor:
    """Load a face descriptor.

    Args:
        key: one of ``DESCRIPTORS``.
        device: where its network works; dlib's always works on the CPU.

    Raises:
        UnknownName: there is no such descriptor.
        MetricUnavailable: its weights cannot be had; the message says how to get them.
    """
    if key not in _LOADERS:
        raise UnknownName("face descriptor", key, DESCRIPTORS)
    try:
        return _LOADERS[key](device)
    except (DownloadFailed, BrokenFile) as error:
        raise MetricUnavailable(f"identity by {key}: {error}") from error


def identity_similarity(image: Float[Tensor, "3 h w"], original: Float[Tensor, "3 h2 w2"]) -> float | None:
    """Compare two aligned faces by dlib's descriptor.

    Returns:
        The cosine of their descriptors in [-1, 1], 1 for the same picture; above about 0.92 dlib takes two photos for one
        person. None where the models are not installed (see ``HOW_TO_GET``).
    """
    try:
        descriptor = load_descriptor("dlib")
    except MetricUnavailable:
        return None
    return float(descriptor.similarity(image[None], original[None]))


def _dlib(device: str | torch.device) -> Descriptor:
    predictor = find_predictor()
    model = predictor.with_name(MODEL_FILE) if predictor is not None else None
    if predictor is None or model is None or not model.is_file():
        raise MetricUnavailable(f"identity by dlib: {HOW_TO_GET}")

    def embed(image: Tensor) -> Tensor:
        return torch.stack([_dlib_vector(face, predictor, model) for face in image]).to(image.device)

    return Descriptor("dlib", "dlib's ResNet-29 (face_recognition_models)", embed)


def _dlib_vector(image: Float[Tensor, "3 h w"], predictor: Path, model: Path) -> Float[Tensor, " 128"]:
    import dlib

    photo = np.ascontiguousarray(to_uint8(image))
    side = photo.shape[0]
    rectangle = dlib.rectangle(*(round(share * side) for share in _FACE))
    shape = _load_dlib(dlib.shape_predictor, predictor)(photo, rectangle)
    vector = _load_dlib(dlib.face_recognition_model_v1, model).compute_face_descriptor(photo, shape)
    return torch.tensor(list(vector), dtype=torch.float32)


@lru_cache(maxsize=4)
def _load_dlib(kind: Any, path: Path) -> Any:
    return kind(str(path))


def _facenet(device: str | torch.device) -> Descriptor:
    from pretrained.backbones import load_facenet

    network = load_facenet().to(device)

    def embed(image: Tensor) -> Tensor:
        face = resize(image, 256)[:, :, _ROWS, _COLUMNS]
        # facenet-pytorch's standardisation of uint8 levels: (level - 127.5) / 128.
        return network(resize(face, 160) * (127.5 / 128))

    return Descriptor("facenet", "InceptionResnetV1 (facenet-pytorch, VGGFace2)", embed)


_LOADERS: dict[str, Callable[[str | torch.device], Descriptor]] = {"dlib": _dlib, "facenet": _facenet}
DESCRIPTORS = tuple(_LOADERS)
"""What ``load_descriptor`` takes."""
