"""Which metrics are there, by the names that a user types? Loading one fetches its weights, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable

import torch

from generators.errors import UnknownName
from invert.errors import MetricUnavailable
from invert.identity import DESCRIPTORS, load_descriptor
from invert.metrics.base import Description, PairMetric, SetMetric
from invert.metrics.distributions import FID, KID, PrecisionRecall
from invert.metrics.features import FeatureNetwork
from invert.metrics.pixels import MS_SSIM, MSE, PSNR, SSIM
from pretrained.cache import fingerprint
from pretrained.errors import BrokenFile, DownloadFailed
from pretrained.lpips import load_lpips

_LPIPS_NAMES = {"alex": "LPIPS-AlexNet", "vgg": "LPIPS-VGG16", "squeeze": "LPIPS-SqueezeNet"}
_PIXELS = {metric.key: metric for metric in (MSE, PSNR, SSIM, MS_SSIM)}
_DISTANCE, _SAME = "distance-dlib", "same-dlib"
PAIR_METRICS = (*_PIXELS, *(f"lpips-{net}" for net in _LPIPS_NAMES), *(f"id-{key}" for key in DESCRIPTORS), _DISTANCE, _SAME)
"""What ``load_pair_metric`` takes."""

_SET_METRICS: dict[str, Callable[[FeatureNetwork], SetMetric]] = {"fid": FID, "kid": KID, "pr": PrecisionRecall}
SET_METRICS = tuple(_SET_METRICS)
"""What ``load_set_metric`` takes."""


def check_pair_metric(key: str) -> None:
    """Refuse a name that ``load_pair_metric`` would not know, without loading anything.

    Raises:
        UnknownName: naming close ones.
    """
    if key.partition(":")[0] not in PAIR_METRICS:
        raise UnknownName("metric", key, PAIR_METRICS)


def load_pair_metric(key: str, device: str | torch.device = "cpu") -> PairMetric:
    """Load a metric of images and their targets; all compare at 256 px, but two of one smaller size as they are.

    Args:
        key: one of ``PAIR_METRICS``; ``id-arcface:FILE`` and ``id-curricularface:FILE`` name their file.
        device: where its network works; images must lie there, too.

    Raises:
        UnknownName: there is no such metric.
        MetricUnavailable: its weights cannot be had; the message is the reason to print in place of its column.
    """
    check_pair_metric(key)
    if key in _PIXELS:
        return _PIXELS[key]
    if key == _DISTANCE:
        return distance_metric(device)
    if key == _SAME:
        return same_person_metric(device)
    family, _, backbone = key.partition("-")
    return lpips_metric(backbone, device) if family == "lpips" else identity_metric(backbone, device)


def lpips_metric(net: str, device: str | torch.device = "cpu") -> PairMetric:
    """Load LPIPS v0.1 of a backbone: ``alex`` (most papers' figures), ``vgg`` (path lengths) or ``squeeze`` (small).

    Raises:
        UnknownName: there is no such backbone.
        MetricUnavailable: its weights cannot be had.

    Reference: Zhang et al. 2018, arXiv:1801.03924.
    """
    try:
        network = load_lpips(net).to(device)
    except (DownloadFailed, BrokenFile) as error:
        raise MetricUnavailable(f"{_LPIPS_NAMES[net]}: {error}") from error
    name = _LPIPS_NAMES[net]
    backbone = f"{name.removeprefix('LPIPS-')} (ImageNet), heads of lpips 0.1"
    description = Description(f"lpips-{net}", name, False, 0.0, float("inf"), backbone, fingerprint(network))
    return PairMetric(description, lambda image, target: network(image, target).flatten())


def identity_metric(key: str, device: str | torch.device = "cpu") -> PairMetric:
    """Load the similarity of face descriptors; see ``invert.identity.load_descriptor``.

    Raises:
        UnknownName: there is no such descriptor.
        MetricUnavailable: its weights cannot be had.
    """
    descriptor = load_descriptor(key, device)
    name = f"identity ({descriptor.key}, cosine)"
    description = Description(f"id-{descriptor.key}", name, True, -1.0, 1.0, descriptor.backbone, descriptor.hash_weights())
    return PairMetric(description, descriptor.similarity)


def distance_metric(device: str | torch.device = "cpu") -> PairMetric:
    """Load the distance of dlib's descriptors, by which dlib itself tells people apart: one person's lie up to 0.6 apart.

    Strangers' lie about 0.84 apart, where the cosine of such descriptors is still 0.83 (portraits of 89 people).

    Raises:
        MetricUnavailable: its weights cannot be had.
    """
    descriptor = load_descriptor("dlib", device)
    name, weights = "identity (dlib, distance)", descriptor.hash_weights()
    description = Description(_DISTANCE, name, False, 0.0, float("inf"), descriptor.backbone, weights)
    return PairMetric(description, descriptor.distance)


def same_person_metric(device: str | torch.device = "cpu") -> PairMetric:
    """Load dlib's verdict on whether two faces are one person's, 1 or 0: its mean is the share of faces that stay the same.

    Cosines of dlib's descriptors are high for any two faces, this is not.

    Raises:
        MetricUnavailable: its weights cannot be had.
    """
    descriptor = load_descriptor("dlib", device)
    name = f"same person (dlib, distance up to {descriptor.same_within:g})"
    description = Description(_SAME, name, True, 0.0, 1.0, descriptor.backbone, descriptor.hash_weights())
    return PairMetric(description, lambda image, target: descriptor.is_same(image, target).float())


def load_set_metric(key: str, features: FeatureNetwork) -> SetMetric:
    """Make a metric of two sets of images, on the features of a network (see ``invert.metrics.features.load_features``).

    Raises:
        UnknownName: there is no such metric.
    """
    if key not in _SET_METRICS:
        raise UnknownName("metric", key, SET_METRICS)
    return _SET_METRICS[key](features)
