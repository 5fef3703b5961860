"""How good is a generator? Its samples against photos, the smoothness of its latent spaces, and how it moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.errors import ToolkitError, UnknownName
from invert.errors import MetricUnavailable, TooFewImages
from invert.inversion import resize
from invert.metrics.base import METRIC_RESOLUTION, Description, Image, SetMetric
from invert.metrics.catalog import SET_METRICS, load_set_metric, lpips_metric
from invert.metrics.edits import score_images
from invert.metrics.equivariance import DESCRIPTIONS as EQUIVARIANCES
from invert.metrics.equivariance import equivariance
from invert.metrics.features import FEATURE_NETWORKS, load_features
from invert.metrics.path_length import SAMPLINGS, SPACES, PerceptualPathLength
from invert.metrics.separability import check_count, describe, linear_separability
from invert.perceptual import Perceptual
from invert.photo import check_finite
from pretrained.lpips import BACKBONES

_PATHS = {
    f"ppl-{space}-{sampling}{'-crop' if crop else ''}": (space, sampling, crop)
    for space in SPACES
    for sampling in SAMPLINGS
    for crop in (False, True)
}
_SEPARABILITIES = tuple(f"separability-{space}" for space in SPACES)
QUALITY_METRICS = (*SET_METRICS, *_PATHS, *_SEPARABILITIES, *EQUIVARIANCES)
"""What ``measure_generator`` takes."""
ATTRIBUTES = ("gender", "age", "smile", "yaw", "mouth_open", "eyes_open")
"""Whose separability is measured: below and above the median of the samples."""

FAILURES = (ToolkitError, RuntimeError, ValueError)
"""What networks raise of pictures or codes that they cannot take; one figure's must not cost the others'."""

Progress = Callable[[str, int], None]
"""Told what is being measured, and how many pictures are done."""


@dataclass(frozen=True)
class Figure:
    """One figure of a generator, or why there is none."""

    description: Description
    value: float | None
    """Never NaN; infinite only where a generator is perfect."""
    note: str = ""
    """Spread, number of pictures, or the reason for a missing value."""


@dataclass(frozen=True)
class Settings:
    """What a measurement depends on, besides generator and photos."""

    num_samples: int
    features: str = "inception"
    """Key of the feature network of FID, KID, precision and recall."""
    lpips: str = "vgg"
    """Backbone of the distance that path lengths are measured in."""
    truncation_psi: float = 1.0
    """Of the samples that are compared with photos; paths and movements are never truncated."""
    seed: int = 0
    batch_size: int = 4


def check_metrics(keys: Sequence[str]) -> None:
    """Refuse names of metrics that there are not.

    Raises:
        UnknownName: naming close ones.
    """
    for key in keys:
        if key not in QUALITY_METRICS:
            raise UnknownName("metric of generators", key, QUALITY_METRICS)


def check_networks(settings: Settings) -> None:
    """Refuse names of feature networks and of backbones of LPIPS that there are not.

    Raises:
        UnknownName: naming close ones.
    """
    for kind, name, known in (
        ("feature network", settings.features, FEATURE_NETWORKS),
        ("LPIPS backbone", settings.lpips, tuple(BACKBONES)),
    ):
        if name not in known:
            raise UnknownName(kind, name, known)


def measure_generator(
    generator: Generator,
    metrics: Sequence[str],
    settings: Settings,
    photos: Iterable[Image] | None = None,
    on_progress: Progress = lambda what, done: None,
) -> Iterator[Figure]:
    """Measure a generator, figure by figure; what cannot be measured is a figure with a reason, and the rest goes on.

    Args:
        generator: on the device to measure on.
        metrics: of ``QUALITY_METRICS``.
        settings: samples, networks and seed.
        photos: batches of real pictures in [-1, 1], as large as they are; FID, KID, precision and recall need them.
        on_progress: told how far it is.

    Raises:
        UnknownName: there is no such metric, feature network or backbone.
    """
    check_metrics(metrics)
    check_networks(settings)
    if labels := getattr(generator, "c_dim", 0):
        reason = f"this generator draws by labels (of width {labels}); only those without are measured"
        yield from (_missing(key, reason) for key in dict.fromkeys(metrics))
        return
    groups: list[tuple[Iterable[str], Callable[[list[str]], list[Figure]]]] = [
        (SET_METRICS, lambda keys: _against_photos(generator, keys, settings, photos, on_progress)),
        (_PATHS, lambda keys: _path_lengths(generator, keys, settings, on_progress)),
        (_SEPARABILITIES, lambda keys: _separabilities(generator, keys, settings, on_progress)),
        (EQUIVARIANCES, lambda keys: _equivariances(generator, keys, settings, on_progress)),
    ]
    for known, measure in groups:
        keys = [key for key in known if key in metrics]
        try:
            yield from measure(keys) if keys else []
        except FAILURES as error:
            yield from (_missing(key, str(error)) for key in keys)


def _attempt(description: Description, measure: Callable[[], tuple[float, str]]) -> Figure:
    """Measure one figure, and its note; or say why there is none."""
    try:
        value, note = measure()
    except FAILURES as error:
        return Figure(description, None, str(error))
    return _checked(description, value, note)


def _checked(description: Description, value: float, note: str) -> Figure:
    """Take a value for a figure only if it is one: infinite decibels say that nothing differs."""
    if math.isfinite(value) or (value > 0 and description.higher_is_better):
        return Figure(description, value, note)
    return Figure(description, None, f"{value}: the generator draws values that are NaN or infinite")


def _missing(key: str, reason: str) -> Figure:
    return Figure(Description(key, key, key == "pr" or key in EQUIVARIANCES, -math.inf, math.inf), None, reason)


def _codes(generator: Generator, settings: Settings, purpose: str) -> Iterator[Float[Tensor, "batch z_dim"]]:
    """Draw noise; each purpose has its own."""
    random = torch.Generator().manual_seed(settings.seed * 2 + (purpose == "separability"))
    for begin in range(0, settings.num_samples, settings.batch_size):
        # Row by row, so that the batch size changes nothing.
        rows = range(min(settings.batch_size, settings.num_samples - begin))
        yield torch.cat([torch.randn(1, generator.z_dim, generator=random) for _ in rows]).to(generator.w_avg)


@torch.no_grad()
def _against_photos(
    generator: Generator, keys: list[str], settings: Settings, photos: Iterable[Image] | None, on_progress: Progress
) -> list[Figure]:
    if photos is None:
        raise MetricUnavailable("needs real photos to compare with: name them with --data")
    network = load_features(settings.features, generator.w_avg.device)
    measured = [load_set_metric(key, network) for key in keys]
    reasons = _too_few(measured, settings.num_samples)
    counts = {}
    samples = (generator(z, settings.truncation_psi) for z in _codes(generator, settings, "samples"))
    # Photos first: where they are too few, no sample need be drawn.
    for what, is_real, pictures in (("photos", True, photos), ("samples", False, samples)):
        waiting = [metric for metric in measured if metric not in reasons]
        counts[is_real] = 0
        for features in map(network, map(as_seen, pictures if waiting else ())):
            for metric in waiting:
                metric.update(features, is_real)
            counts[is_real] += len(features)
            on_progress(what, counts[is_real])
        reasons |= _too_few(waiting, counts[is_real])
    figures = []
    note = f"{counts[False]} samples, {counts[True]} photos"
    for metric in measured:
        try:
            values = {} if metric in reasons else metric.compute()
        except FAILURES as error:
            reasons[metric] = str(error)
        descriptions = [replace(given, name=f"{given.name} at {METRIC_RESOLUTION} px") for given in metric.descriptions]
        if metric in reasons:
            figures += [Figure(description, None, reasons[metric]) for description in descriptions]
            continue
        for description in descriptions:
            spread = values.get(f"{description.key}_std")
            spread_note = "" if spread is None else f", SD over subsets {spread:.2g}"
            figures.append(_checked(description, values[description.key], note + spread_note))
    return figures


def as_seen(image: Float[Tensor, "batch 3 h w"]) -> Image:
    """Bring pictures to what sets are compared by: levels of 8 bits, as files have, then the area mean at 256 px.

    Samples and photos alike: networks see the difference of two ways to resize, and sets would differ by it.

    Raises:
        ImageError: some values are NaN or infinite.

    Reference: Parmar et al. 2022, arXiv:2104.11222.
    """
    levels = check_finite(image.float()).add(1).mul(127.5).clamp(0, 255).round()
    return resize(levels.div(127.5).sub(1), METRIC_RESOLUTION)


def _too_few(metrics: Sequence[SetMetric], count: int) -> dict[SetMetric, str]:
    """Say of each metric that so many pictures are too few for why they are."""
    reasons = {}
    for metric in metrics:
        try:
            metric.check_count(count)
        except TooFewImages as error:
            reasons[metric] = str(error)
    return reasons


def _path_lengths(generator: Generator, keys: list[str], settings: Settings, on_progress: Progress) -> list[Figure]:
    metric = lpips_metric(settings.lpips, generator.w_avg.device)
    distance = Perceptual(metric.name, metric.measure)
    paths = "1 path" if settings.num_samples == 1 else f"{settings.num_samples} paths"

    def measure(path_length: PerceptualPathLength, show: Callable[[int], None]) -> tuple[float, str]:
        found = path_length(generator, settings.num_samples, settings.batch_size, settings.seed, show)
        error = found.standard_error
        return found.mean, ("" if math.isnan(error) else f"± {error:.3g} (standard error), ") + paths

    figures = []
    for key in keys:
        path_length = PerceptualPathLength(distance, *_PATHS[key])
        figures.append(_attempt(path_length.description, partial(measure, path_length, partial(on_progress, key))))
    return figures


@torch.no_grad()
def _separabilities(generator: Generator, keys: list[str], settings: Settings, on_progress: Progress) -> list[Figure]:
    reasons = {}
    for key, width in (("separability-z", generator.z_dim), ("separability-w", generator.w_dim)):
        try:
            check_count(key, settings.num_samples, width)
        except TooFewImages as error:  # Known before anything is drawn.
            reasons[key] = str(error)
    descriptions = {key: describe(key[-1], ", ".join(ATTRIBUTES)) for key in keys}
    if all(key in reasons for key in keys):
        return [Figure(descriptions[key], None, reasons[key]) for key in keys]
    noise, styles, rows = [], [], []
    for z in _codes(generator, settings, "separability"):
        w_plus = generator.mapping(z)
        noise.append(z.cpu())
        styles.append(w_plus[:, 0].cpu())
        rows.append(score_images(resize(generator.synthesis(w_plus), METRIC_RESOLUTION), ATTRIBUTES))
        on_progress("separability", sum(map(len, noise)))
    scores = {name: torch.cat([row[name] for row in rows]) for name in ATTRIBUTES}
    kept = torch.stack([values.isfinite() for values in scores.values()]).all(0)
    centred = {name: values[kept] - values[kept].median() for name, values in scores.items()}
    codes = {"separability-z": torch.cat(noise)[kept], "separability-w": torch.cat(styles)[kept]}
    note = f"{int(kept.sum())} samples, {int((~kept).sum())} without a face left out"

    def measure(key: str) -> tuple[float, str]:
        return linear_separability(codes[key], centred).score, note

    return [
        Figure(descriptions[key], None, reasons[key])
        if key in reasons
        else _attempt(descriptions[key], partial(measure, key))
        for key in keys
    ]


def _equivariances(generator: Generator, keys: list[str], settings: Settings, on_progress: Progress) -> list[Figure]:
    found = equivariance(generator, settings.num_samples, keys, settings.seed, partial(on_progress, "equivariance"))
    note = f"{settings.num_samples} samples"
    # Small images leave pixels to translation and none to rotation.
    return [_attempt(EQUIVARIANCES[key], partial(lambda key: (found[key].decibels, note), key)) for key in keys]


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out as Markdown."""
    lines = ["| metric | value | |", "| --- | --- | --- |"]
    for figure in figures:
        value = "n/a" if figure.value is None else f"{figure.value:.5g}"
        arrow = "" if figure.value is None else f" {figure.description.arrow}"
        lines.append(f"| {figure.description.name}{arrow} | {value} | {figure.note} |")
    return "\n".join(lines)
