"""Did this generator draw this picture? Project it, and look at the distance that is left.

What a generator drew, it can draw again: its codes lie in W, where the projector searches. Photos, and pictures of other
generators, keep a distance (Karras et al. 2020, arXiv:1912.04958, section 5). How large either is depends on generator,
distance, steps and start, so that a verdict needs a calibration: the distances of known samples and of known photos, under
the same settings.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from torch import Tensor

from encoders.base import Encoder
from generators.base import Generator, Identity
from generators.errors import ToolkitError
from invert.errors import MetricError, TooFewImages
from invert.inversion import resize
from invert.inverters import EncoderInverter, load_inverter
from invert.perceptual import Perceptual
from invert.photo import to_tensor, to_uint8, whole_file
from invert.presets import DTYPES
from invert.projector import LOSS_RESOLUTION, Projector
from pretrained.cache import fingerprint

logger = logging.getLogger(__name__)

DEFAULT_STEPS = 60
"""Of the projector: then most samples of the default generator are closer than any photo."""
MIN_CALIBRATION = 5
"""Pictures of either kind: with fewer, a threshold is a guess."""
JPEG_QUALITY = 90
"""Samples go through it before they are measured, as pictures do on their way to whoever asks."""
VERSION = 4
START = "e4e"
"""Encoder whose codes searches begin with. It was made to stay near W: of six samples whose searches from pSp's codes ended
in the wrong place, four are found from its."""
MEAN_FACE = "mean face"
"""A start without an encoder."""
SHIPPED = Path(__file__).with_name("attribution.json")
"""Calibration of the default generator."""


class CalibrationError(ToolkitError):
    """A calibration that is damaged, or was made for another generator or with other settings."""


@dataclass(frozen=True)
class Settings:
    """What a distance depends on, besides the picture."""

    generator: str
    """Its identity in words: name and hash."""
    distance: str
    """Name of the perceptual distance, with its backbone."""
    steps: int
    """Of the projector, in W."""
    start: str
    """Where it begins: the name and hash of an encoder, or ``mean face``."""
    dtype: str
    """That the generator computes in."""


@dataclass(frozen=True)
class Roc:
    """Which share of samples is found, for every share of photos that is taken for samples by mistake."""

    thresholds: Float64[np.ndarray, " points"]
    """Pictures below are called generated; rising."""
    false_positives: Float64[np.ndarray, " points"]
    """Share of photos that lie below."""
    true_positives: Float64[np.ndarray, " points"]
    """Share of samples that lie below."""

    @property
    def area(self) -> float:
        """Under the curve: 1 for a perfect separation, 0.5 for none."""
        heights = (self.true_positives[1:] + self.true_positives[:-1]) / 2  # NumPy's own was renamed in 2.0.
        return float((heights * np.diff(self.false_positives)).sum())


@dataclass(frozen=True)
class Calibration:
    """Distances of pictures whose origin is known."""

    settings: Settings
    generated: tuple[float, ...]
    """Of samples of the generator."""
    real: tuple[float, ...]
    """Of photos."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where the pictures came from; JSON values only."""

    def __post_init__(self) -> None:
        for kind, values in (("samples", self.generated), ("photos", self.real)):
            _check_count(kind, len(values))
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise CalibrationError(f"calibration: distances of {kind} that are no distances")

    @property
    def roc(self) -> Roc:
        """The curve over all thresholds that lie between two distances."""
        values = np.unique([*self.generated, *self.real])
        thresholds = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [values[-1] * 2 + 1]])
        below = [
            np.searchsorted(np.sort(np.array(kind)), thresholds, side="left") / len(kind)
            for kind in (self.real, self.generated)
        ]
        return Roc(thresholds, below[0], below[1])

    @property
    def threshold(self) -> float:
        """Where found samples and spared photos are most in sum."""
        roc = self.roc
        gain = roc.true_positives - roc.false_positives
        best = np.flatnonzero(gain >= gain.max() - 1e-12)
        return float(roc.thresholds[best[len(best) // 2]])

    def area_interval(self, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the area under the curve."""
        random = np.random.default_rng(seed)
        kinds = [np.array(kind) for kind in (self.generated, self.real)]
        resampled = [kind[random.integers(len(kind), size=(draws, len(kind)))] for kind in kinds]
        # The area is the share of pairs in the right order; equal distances count half.
        pairs = zip(*resampled, strict=True)
        areas = [np.mean(np.sign(real - generated[:, None]) / 2 + 0.5) for generated, real in pairs]
        low, high = np.quantile(areas, [0.025, 0.975])
        return float(low), float(high)

    def judge(self, distance: float) -> Verdict:
        """Say which kind a distance belongs to."""
        real_as_close = float(np.mean(np.array(self.real) <= distance))
        generated_as_far = float(np.mean(np.array(self.generated) >= distance))
        return Verdict(distance < self.threshold, distance, self.threshold, real_as_close, generated_as_far)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps({"version": VERSION, **asdict(self)}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what ``save`` wrote.

        Raises:
            CalibrationError: it is missing, damaged, of another version, or holds something else.
            TooFewImages: it holds too few distances.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:
                raise CalibrationError(f"{path}: calibration of version {data['version']}, expected {VERSION}: make it anew")
            generated, real = (tuple(float(value) for value in data[kind]) for kind in ("generated", "real"))
            settings = Settings(*(kind(data["settings"][name]) for name, kind in _FIELDS.items()))
            if settings.dtype not in DTYPES or type(data["settings"]["steps"]) is not int or settings.steps < 1:
                raise ValueError(
                    f"steps {data['settings']['steps']!r}, dtype {settings.dtype!r}: expected a positive number, and one of"
                    f" {', '.join(DTYPES)}"
                )
            return cls(settings, generated, real, dict(data["notes"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CalibrationError(
                f"{path}: not a calibration ({type(error).__name__}: {error}); make one with --calibrate"
            ) from error


def _check_count(kind: str, count: int) -> None:
    if count < MIN_CALIBRATION:
        raise TooFewImages(f"calibration with {kind}", count, MIN_CALIBRATION, "a threshold would be a guess")


_FIELDS: dict[str, Callable[[Any], Any]] = {"generator": str, "distance": str, "steps": int, "start": str, "dtype": str}


@dataclass(frozen=True)
class Verdict:
    """What a distance says."""

    is_generated: bool
    """Drawn by this generator; else a photo, or a picture from elsewhere."""
    distance: float
    threshold: float
    real_as_close: float
    """Share of the calibration's photos that come as close: how often such a verdict would be wrong about a photo."""
    generated_as_far: float
    """Share of its samples that stay as far: how often such a verdict would be wrong about a sample."""


class Picture(NamedTuple):
    """A picture that is read or drawn when it is needed."""

    name: str
    read: Callable[[], UInt8[np.ndarray, "height width 3"]]


class Attributor:
    """Measures how closely a generator can draw pictures.

    Args:
        generator: that may have drawn them.
        distance: perceptual, of images in [-1, 1].
        steps: of the projector.
        encoder: of the generator's w_plus, by whose codes projections begin; None: by the mean face, which takes more steps.
        start: what to call the encoder.
    """

    def __init__(
        self,
        generator: Generator,
        distance: Perceptual,
        steps: int = DEFAULT_STEPS,
        encoder: Encoder | None = None,
        start: str = MEAN_FACE,
    ) -> None:
        self.generator, self.distance, self.encoder = generator, distance, encoder
        dtype = str(generator.synthesis.feature_dtype or torch.float32).removeprefix("torch.")
        self.settings = Settings(str(generator.identity), distance.name, steps, start, dtype)
        self._projector = Projector(generator, distance, space="w", steps=steps)

    def measure(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Return the perceptual distances at 256 px that projection into W leaves; from 0 on.

        Args:
            image: whole pictures of the generator's kind (faces: aligned) in [-1, 1].
        """
        target, start = resize(image, LOSS_RESOLUTION), None
        with torch.no_grad():
            if self.encoder is not None:
                start = self.encoder(resize(image, self.encoder.input_resolution))
        drawn = self._projector(target, start).image
        with torch.no_grad():
            return self.distance(resize(drawn, LOSS_RESOLUTION), target).cpu()

    def measure_photo(self, photo: UInt8[np.ndarray, "height width 3"]) -> float:
        """Return the distance of one picture.

        Raises:
            MetricError: it is not finite, so that it tells nothing.
        """
        distance = float(self.measure(to_tensor(photo)[None].to(self.generator.w_avg.device)))
        if not math.isfinite(distance):
            raise MetricError(
                f"attribution: a distance of {distance} after {self.settings.steps} steps in {self.settings.dtype}: the"
                " generator draws values that are NaN or infinite"
            )
        return distance

    def samples(self, count: int, seed: int = 0) -> Iterator[Picture]:
        """Draw pictures of the generator, untruncated; each comes out of a JPEG of 256 px."""
        random = torch.Generator().manual_seed(seed)
        for index in range(count):
            z = torch.randn(1, self.generator.z_dim, generator=random).to(self.generator.w_avg)
            yield Picture(f"sample {index} of seed {seed}", partial(self._draw, z))

    def _draw(self, z: Float[Tensor, "1 z_dim"]) -> UInt8[np.ndarray, "height width 3"]:
        with torch.no_grad():
            return as_jpeg(to_uint8(resize(self.generator(z), LOSS_RESOLUTION))[0])

    def calibrate(
        self,
        photos: Iterable[Picture],
        num_samples: int,
        seed: int = 0,
        notes: dict[str, Any] | None = None,
        done: Mapping[str, float] = MappingProxyType({}),
        on_picture: Callable[[str, str, float], None] | None = None,
    ) -> Calibration:
        """Measure known pictures; one that comes twice counts once.

        Args:
            photos: real ones, aligned if they are faces; one that raises a ``ToolkitError`` is logged and left out.
            num_samples: how many of the generator's own to draw.
            seed: of the samples.
            notes: kept with the calibration.
            done: distances by the pictures' contents that were measured before, under the same settings; what is not finite
                is measured again.
            on_picture: told the name, content (SHA-256 of the pixels) and distance of each.

        Raises:
            TooFewImages: fewer than five of either kind; told before anything is measured, unless some cannot be read.
        """
        photos = list(photos)
        for kind, count in (("photos", len(photos)), ("samples", num_samples)):
            _check_count(kind, count)

        def measured(pictures: Iterable[Picture]) -> tuple[float, ...]:
            found: dict[str, float] = {}
            for name, read in pictures:
                try:
                    photo = read()
                    content = hashlib.sha256(str(photo.shape).encode() + photo.tobytes()).hexdigest()
                    if content in found:
                        continue
                    kept = done.get(content, math.nan)
                    found[content] = kept if math.isfinite(kept) else self.measure_photo(photo)
                except ToolkitError as error:
                    logger.warning("left out: %s", error)
                    continue
                if on_picture is not None:
                    on_picture(name, content, found[content])
            return tuple(found.values())

        generated = measured(self.samples(num_samples, seed))
        return Calibration(self.settings, generated, measured(photos), {"seed": seed, **(notes or {})})

    def check(self, calibration: Calibration) -> None:
        """Refuse a calibration that was made otherwise.

        Raises:
            CalibrationError: naming what differs.
        """
        differing = [
            f"{name} {theirs!r}, here {ours!r}"
            for (name, theirs), ours in zip(
                asdict(calibration.settings).items(), asdict(self.settings).values(), strict=True
            )
            if theirs != ours
        ]
        if differing:
            raise CalibrationError(f"the calibration was made with {'; '.join(differing)}: make one with --calibrate")


def find_start(generator: Generator) -> tuple[Encoder | None, str]:
    """Return the encoder that projections of a generator's pictures begin with, and its name and hash; or none."""
    try:
        inverter = load_inverter(START, generator)
    except ToolkitError:
        return None, MEAN_FACE
    assert isinstance(inverter, EncoderInverter)
    return inverter.encoder, str(Identity(START, fingerprint(inverter.encoder)))


def as_jpeg(photo: UInt8[np.ndarray, "height width 3"], quality: int = JPEG_QUALITY) -> UInt8[np.ndarray, "height width 3"]:
    """Compress a picture and decode it again."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def plot_roc(calibration: Calibration, path: Path) -> None:
    """Draw the ROC curve, and beside it the distances that it comes from, into a PNG; whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # Not pyplot, which would look for a display.

    roc, (low, high) = calibration.roc, calibration.area_interval()
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    curve, spread = figure.subplots(1, 2)
    curve.plot(roc.false_positives, roc.true_positives, color="#1f5fa8", lw=2)
    curve.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    curve.set(
        xlabel="photos taken for samples", ylabel="samples found", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
        title=f"area {roc.area:.3f} (95 %: {low:.3f} to {high:.3f})",
    )  # fmt: skip
    bins = np.linspace(0, max(*calibration.generated, *calibration.real) * 1.05, 24).tolist()
    spread.hist(calibration.generated, bins, color="#1f5fa8", alpha=0.75, label=f"{len(calibration.generated)} samples")
    spread.hist(calibration.real, bins, color="#d9822b", alpha=0.75, label=f"{len(calibration.real)} photos")
    spread.axvline(calibration.threshold, color="#222222", lw=1, ls="--", label=f"threshold {calibration.threshold:.3f}")
    spread.set(
        xlabel=f"{calibration.settings.distance} after {calibration.settings.steps} steps in W", ylabel="pictures",
        title=calibration.settings.generator,
    )  # fmt: skip
    spread.legend(frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def read_distances(path: Path, settings: Settings) -> dict[str, float]:
    """Return what a calibration that was stopped has measured under the same settings, by content; nothing if it has not.

    Distances that are not finite are left out.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        same = data["settings"] == asdict(settings)
        kept = {str(content): float(value) for content, value in data["distances"].items()} if same else {}
        return {content: value for content, value in kept.items() if math.isfinite(value)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def find_calibration(file: Path | None, folder: Path, generator: Identity) -> Calibration:
    """Load the calibration of a generator: a file that was named, the one in a folder, or the one that ships.

    Raises:
        CalibrationError: there is none, or what was named cannot be read.
    """
    for path in [file] if file is not None else [folder / "calibration.json", SHIPPED]:
        if path.is_file() or file is not None:
            found = Calibration.load(path)
            if file is not None or found.settings.generator == str(generator):
                return found
    raise CalibrationError(
        f"no calibration for the generator {generator}: make one with --calibrate DIR, where DIR holds real photos of what"
        " it draws"
    )
