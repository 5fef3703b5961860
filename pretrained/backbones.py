"""Where do the networks of published metrics come from? Files that their authors publish, fetched once and checked.

Looked for in this order: a file of the published name in the cache, then where torch keeps what it downloads, then the
address that the authors name, or a mirror (see ``pretrained.downloads``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrained.cache import cache_folder, sha256
from pretrained.downloads import download, mirrored
from pretrained.errors import BrokenFile, DownloadFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A file of weights that a metric is defined by."""

    what: str
    """Whose weights, in words for messages."""
    url: str
    sha256_prefix: str = ""
    """First digits of its SHA-256, where the authors publish it."""

    @property
    def file_name(self) -> str:
        """The name that the authors gave it."""
        return self.url.rpartition("/")[2]

    def local_file(self) -> Path | None:
        """Return the file if it is on this machine; what it holds is not looked at."""
        return next((path for path in self._places() if path.is_file()), None)

    def fetch(self) -> Path:
        """Return the file, downloading it into the cache where it is missing or damaged.

        Raises:
            DownloadFailed: it is not here, and could not be fetched.
        """
        for file in self._places():
            if file.is_file():
                if self._is_whole(file):
                    return file
                logger.warning("%s is damaged (SHA-256 does not begin with %s): not used", file, self.sha256_prefix)
        return self._download()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the file; nothing in it is run.

        Raises:
            DownloadFailed: it is not here, and could not be fetched.
            BrokenFile: it holds something else.
        """
        file = self.fetch()
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # What torch.load raises depends on where the file is damaged.
            raise BrokenFile(f"{file} does not hold {self.what}: delete it, and it is fetched again") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise BrokenFile(f"{file} does not hold {self.what}, but something else: delete it, and it is fetched again")
        return dict(state)

    def _places(self) -> tuple[Path, Path]:
        return cache_folder() / self.file_name, Path(torch.hub.get_dir()) / "checkpoints" / self.file_name

    def _is_whole(self, file: Path) -> bool:
        return sha256(file).startswith(self.sha256_prefix)

    def _download(self) -> Path:
        file = self._places()[0]
        try:
            download(self.url, file, logger.info)
        except (DownloadFailed, BrokenFile, OSError) as error:  # A page in place of weights is no weights, either.
            raise DownloadFailed(f"{self.what} is not here: {error}") from error
        if not self._is_whole(file):
            file.unlink()
            raise DownloadFailed(
                f"{self.what}: what came from {mirrored(self.url)} has no SHA-256 of {self.sha256_prefix}...; it was"
                f" deleted: put a whole {self.file_name} into {file.parent} by hand"
            )
        return file


INCEPTION = Backbone(
    "the Inception network of FID",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
)
FACENET = Backbone(
    "FaceNet (InceptionResnetV1, VGGFace2)",
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
)


def load_inception() -> nn.Module:
    """Load the network of FID, KID and the like: uint8 images of any size in, a tuple of features (batch, 2048) out.

    It is TensorFlow's network of 2015 with its own bilinear resizing, not torchvision's.

    Raises:
        DownloadFailed: its weights are not here, and could not be fetched.
        BrokenFile: the file of its weights holds something else.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    INCEPTION.state_dict()  # torch-fidelity would unpickle whatever the file holds.
    file = INCEPTION.fetch()
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))
    except RuntimeError as error:
        raise BrokenFile(f"{file} does not fit {INCEPTION.what}: delete it, and it is fetched again") from error


def load_facenet() -> nn.Module:
    """Load facenet-pytorch's InceptionResnetV1, trained on VGGFace2: faces of 160 px in, unit vectors (batch, 512) out.

    Raises:
        DownloadFailed: its weights are not here, and could not be fetched.
        BrokenFile: the file of its weights holds something else.
    """
    from facenet_pytorch import InceptionResnetV1

    # The file also has the classifier of the training's people, which the descriptor does not use.
    state = {name: value for name, value in FACENET.state_dict().items() if not name.startswith("logits.")}
    model = InceptionResnetV1(pretrained=None, classify=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BrokenFile(f"{FACENET.local_file()} does not fit {FACENET.what}: delete it") from error
    return model.eval().requires_grad_(False)
