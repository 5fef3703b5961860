"""Which metrics are there, by the names that a user types? Loading one fetches its weights, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable

import torch

from generators.errors import UnknownName
from invert.metrics.base import PairMetric
from invert.metrics.pixels import MS_SSIM, MSE, PSNR, SSIM

_LOADERS: dict[str, Callable[[str | torch.device], PairMetric]] = {
    "mse": lambda device: MSE,
    "psnr": lambda device: PSNR,
    "ssim": lambda device: SSIM,
    "ms-ssim": lambda device: MS_SSIM,
}
PAIR_METRICS = tuple(_LOADERS)
"""What ``load_pair_metric`` takes."""


def load_pair_metric(key: str, device: str | torch.device = "cpu") -> PairMetric:
    """Load a metric of images and their targets.

    Args:
        key: one of ``PAIR_METRICS``.
        device: where its network works; images must lie there, too.

    Raises:
        UnknownName: there is no such metric.
        MetricUnavailable: its weights cannot be had; the message is the reason to print in place of its column.
    """
    if key not in _LOADERS:
        raise UnknownName("metric", key, PAIR_METRICS)
    return _LOADERS[key](device)
