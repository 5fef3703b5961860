"""What do FID, KID and their kin compare? Features of a named network; a figure without that name means nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.errors import UnknownName
from invert.errors import MetricUnavailable
from invert.inversion import resize
from invert.metrics.base import METRIC_RESOLUTION, Features, Image, check_image
from invert.photo import check_finite
from pretrained.errors import BrokenFile, DownloadFailed

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureNetwork:
    """A named function from images in [-1, 1] to feature vectors; a user's own serves as well as the ones here."""

    key: str
    """Short name, for columns."""
    name: str
    """Architecture, training data and layer, in words."""
    width: int
    """Of a feature vector."""
    extract: Callable[[Image], Features]

    @torch.no_grad()
    def __call__(self, image: Image) -> Features:
        """Return one feature vector an image.

        Raises:
            MetricError: no images in [-1, 1].
            ImageError: some values are NaN or infinite, which levels would show as black or white.
        """
        check_image(image)
        return self.extract(check_finite(image))


def load_features(key: str = "inception", device: str | torch.device = "cpu") -> FeatureNetwork:
    """Load a feature network.

    Args:
        key: ``inception``, whose figures are those of papers if images come in full size, as theirs do (it brings them to
            299 px itself), or ``squeezenet``, which is small, sees 256 px and is good for trends only.
        device: where it works.

    Raises:
        UnknownName: there is no such network.
        MetricUnavailable: its weights cannot be had; the message says how to get them.
    """
    if key not in _LOADERS:
        raise UnknownName("feature network", key, FEATURE_NETWORKS)
    try:
        return _LOADERS[key](device)
    except (DownloadFailed, BrokenFile) as error:
        raise MetricUnavailable(f"features of {key}: {error}") from error


def _inception(device: str | torch.device) -> FeatureNetwork:
    from pretrained.backbones import load_inception

    network = load_inception().to(device)

    def extract(image: Tensor) -> Tensor:
        # The published network is defined on levels, which it resizes itself.
        levels = image.float().add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8)
        return network(levels)[0]

    return FeatureNetwork("inception", "Inception-v3 of 2015 (TensorFlow's weights), pool3", 2048, extract)


def _squeezenet(device: str | torch.device) -> FeatureNetwork:
    from torchvision.models import squeezenet1_1

    from pretrained.lpips import squeezenet_imagenet

    network = squeezenet1_1(weights=None).features
    network.load_state_dict({name.removeprefix("features."): value for name, value in squeezenet_imagenet().items()})
    network = network.eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_STD))

    def extract(image: Tensor) -> Tensor:
        return network(((resize(image, METRIC_RESOLUTION) + 1) / 2 - mean) / std).mean((2, 3))

    return FeatureNetwork("squeezenet", "SqueezeNet 1.1 (ImageNet), mean of the last features", 512, extract)


_LOADERS: dict[str, Callable[[str | torch.device], FeatureNetwork]] = {"inception": _inception, "squeezenet": _squeezenet}
FEATURE_NETWORKS = tuple(_LOADERS)
"""What ``load_features`` takes."""
