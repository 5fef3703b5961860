"""How good is an inversion, an edit or a generator? Every figure has a name, a direction, a range and a backbone."""

from __future__ import annotations

from invert.metrics.base import METRIC_RESOLUTION, Description, PairMetric, SetMetric
from invert.metrics.catalog import PAIR_METRICS, SET_METRICS, check_pair_metric, load_pair_metric, load_set_metric
from invert.metrics.distributions import (
    FID,
    KID,
    PrecisionAndRecall,
    PrecisionRecall,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from invert.metrics.edits import EditEffect, edit_effect, measure_effect
from invert.metrics.equivariance import Equivariance, equivariance
from invert.metrics.features import FEATURE_NETWORKS, FeatureNetwork, load_features
from invert.metrics.path_length import PathLengths, PerceptualPathLength, perceptual_path_length
from invert.metrics.pixels import ms_ssim, mse, psnr, ssim
from invert.metrics.reconstruction import Reconstruction, reconstruction
from invert.metrics.separability import Separability, linear_separability

__all__ = [
    "FEATURE_NETWORKS",
    "FID",
    "KID",
    "METRIC_RESOLUTION",
    "PAIR_METRICS",
    "SET_METRICS",
    "Description",
    "EditEffect",
    "Equivariance",
    "FeatureNetwork",
    "PairMetric",
    "PathLengths",
    "PerceptualPathLength",
    "PrecisionAndRecall",
    "PrecisionRecall",
    "Reconstruction",
    "Separability",
    "SetMetric",
    "check_pair_metric",
    "edit_effect",
    "equivariance",
    "frechet_distance",
    "kernel_distance",
    "linear_separability",
    "load_features",
    "load_pair_metric",
    "load_set_metric",
    "measure_effect",
    "ms_ssim",
    "mse",
    "perceptual_path_length",
    "precision_recall",
    "psnr",
    "reconstruction",
    "ssim",
]
