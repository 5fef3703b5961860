"""How good is an inversion, an edit or a generator? Every figure has a name, a direction, a range and a backbone."""

from __future__ import annotations

from invert.metrics.base import METRIC_RESOLUTION, Description, PairMetric, SetMetric
from invert.metrics.catalog import PAIR_METRICS, load_pair_metric
from invert.metrics.pixels import ms_ssim, mse, psnr, ssim
from invert.metrics.reconstruction import Reconstruction, reconstruction

__all__ = [
    "METRIC_RESOLUTION",
    "PAIR_METRICS",
    "Description",
    "PairMetric",
    "Reconstruction",
    "SetMetric",
    "load_pair_metric",
    "ms_ssim",
    "mse",
    "psnr",
    "reconstruction",
    "ssim",
]
