"""Did this generator draw this picture? Project it, and look at the distance that is left in W, and in W+.

What a generator drew, it can draw again: its code lies in W, where the projector searches. Photos, and pictures of other
generators, keep a distance there (Karras et al. 2020, arXiv:1912.04958, section 5). But the distance tells hard pictures
from easy ones first: after thousands of steps it would be small for all samples, after dozens an official portrait comes
closer than a sample with a hat. So it is compared with what W+ leaves in as many steps, where each layer has a style of its
own: once W is searched to the end, a sample gains little by that, for its layers do have one style, and a photo comes twice
as close. A verdict needs a calibration: the gains of known samples and of known photos, under the same settings.
"""

from __future__ import annotations

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
from generators.latent import Latent
from invert.errors import TooFewImages
from invert.inversion import resize
from invert.inverters import REFINE_LEARNING_RATES, EncoderInverter, load_inverter
from invert.perceptual import Perceptual
from invert.photo import to_tensor, to_uint8
from invert.projector import LOSS_RESOLUTION, Projector
from pretrained.cache import whole_file

logger = logging.getLogger(__name__)

DEFAULT_STEPS = 200
"""Of either projection, from an encoder's code. Few do not do: after 40, four samples of the default generator (psi 1) were
0.09 to 0.18 away in W and had gained 1.4 to 2.3 times, three official portraits 0.07 to 0.10 and 1.9 to 2.4 times."""
MIN_CALIBRATION = 5
"""Pictures of either kind: with fewer, a threshold is a guess."""
JPEG_QUALITY = 90
"""Samples go through it before they are measured, as pictures do on their way to whoever asks."""
REACH = 1.25
"""Times the farthest sample in W+: pictures beyond it are nothing that the generator draws, whatever they gain."""
FLOOR = 0.005
"""Added to both distances, below which they are noise: two perfect projections gain nothing."""
VERSION = 2
SHIPPED = Path(__file__).with_name("attribution.json")
"""Calibration of the default generator."""


MEAN_FACE = "mean face"
"""A start without an encoder."""


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
    """Of the projector in W, and again in W+."""
    start: str
    """Where it begins: the name of an encoder, or ``mean face``."""


class Distances(NamedTuple):
    """What two projections of a picture leave."""

    w: float
    """Perceptual distance in W."""
    w_plus: float
    """The same in W+."""

    @property
    def gain(self) -> float:
        """How many times closer W+ comes; greater for what the generator did not draw."""
        return (self.w + FLOOR) / (self.w_plus + FLOOR)


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
        return float(np.trapezoid(self.true_positives, self.false_positives))


@dataclass(frozen=True)
class Calibration:
    """Distances of pictures whose origin is known."""

    settings: Settings
    generated: tuple[Distances, ...]
    """Of samples of the generator."""
    real: tuple[Distances, ...]
    """Of photos."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where the pictures came from; JSON values only."""

    def __post_init__(self) -> None:
        for kind, values in (("samples", self.generated), ("photos", self.real)):
            if len(values) < MIN_CALIBRATION:
                raise TooFewImages(f"calibration with {kind}", len(values), MIN_CALIBRATION, "a threshold would be a guess")
            if not all(math.isfinite(value) and value >= 0 for distances in values for value in distances):
                raise CalibrationError(f"calibration: distances of {kind} that are no distances")

    @property
    def roc(self) -> Roc:
        """The curve over all thresholds that lie between two gains."""
        generated, real = self._gains
        values = np.unique([*generated, *real])
        thresholds = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [values[-1] * 2 + 1]])
        below = [np.searchsorted(np.sort(kind), thresholds, side="left") / len(kind) for kind in (real, generated)]
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
        resampled = [kind[random.integers(len(kind), size=(draws, len(kind)))] for kind in self._gains]
        # The area is the share of pairs in the right order; equal gains count half.
        pairs = zip(*resampled, strict=True)
        areas = [np.mean(np.sign(real - generated[:, None]) / 2 + 0.5) for generated, real in pairs]
        low, high = np.quantile(areas, [0.025, 0.975])
        return float(low), float(high)

    @property
    def reach(self) -> float:
        """Distance in W+ beyond which a picture is nothing that the generator draws."""
        return REACH * max(distances.w_plus for distances in self.generated)

    @property
    def _gains(self) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, " photos"]]:
        generated, real = (np.array([distances.gain for distances in kind]) for kind in (self.generated, self.real))
        return generated, real

    def judge(self, distances: Distances) -> Verdict:
        """Say which kind a picture belongs to."""
        generated, real = self._gains
        gain = distances.gain
        is_beyond = distances.w_plus > self.reach
        return Verdict(
            gain < self.threshold and not is_beyond,
            gain,
            self.threshold,
            float(np.mean(real <= gain)),
            float(np.mean(generated >= gain)),
            distances.w,
            distances.w_plus,
            is_beyond,
        )

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OSError: the file cannot be written.
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
            generated, real = (tuple(Distances(*map(float, pair)) for pair in data[kind]) for kind in ("generated", "real"))
            settings = Settings(*(kind(data["settings"][name]) for name, kind in _FIELDS.items()))
            return cls(settings, generated, real, dict(data["notes"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CalibrationError(
                f"{path}: not a calibration ({type(error).__name__}: {error}); make one with --calibrate"
            ) from error


_FIELDS: dict[str, Callable[[Any], Any]] = {"generator": str, "distance": str, "steps": int, "start": str}


@dataclass(frozen=True)
class Verdict:
    """What the distances of a picture say."""

    is_generated: bool
    """Drawn by this generator; else a photo, or a picture from elsewhere."""
    gain: float
    """How many times closer W+ comes than W."""
    threshold: float
    real_as_low: float
    """Share of the calibration's photos that gain as little: how often such a verdict would be wrong about a photo."""
    generated_as_high: float
    """Share of its samples that gain as much: how often such a verdict would be wrong about a sample."""
    w: float
    """Distance that is left in W."""
    w_plus: float
    """Distance that is left in W+."""
    is_beyond: bool
    """Whether W+ stays farther from it than from any sample: not a picture of this kind."""


class Picture(NamedTuple):
    """A picture that is read or drawn when it is needed."""

    name: str
    read: Callable[[], UInt8[np.ndarray, "height width 3"]]


class Attributor:
    """Measures how closely a generator can draw pictures.

    Args:
        generator: that may have drawn them.
        distance: perceptual, of images in [-1, 1].
        steps: of each of the two projections.
        encoder: of the generator's w_plus, by whose codes they begin; None: by the mean face, which takes more steps.
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
        self.settings = Settings(str(generator.identity), distance.name, steps, start)

    def measure(self, image: Float[Tensor, "1 3 height width"]) -> Distances:
        """Return the perceptual distances at 256 px that projection into W and into W+ leaves; from 0 on.

        Args:
            image: a whole picture of the generator's kind (faces: aligned) in [-1, 1].
        """
        start = None
        if self.encoder is not None:
            with torch.no_grad():
                start = self.encoder(resize(image, self.encoder.input_resolution))
        return Distances(self._left(image, "w", start), self._left(image, "w_plus", start))

    def _left(self, image: Float[Tensor, "1 3 height width"], space: str, start: Latent | None) -> float:
        rate = Projector.learning_rate if space == "w" or start is None else REFINE_LEARNING_RATES[space]
        projector = Projector(
            self.generator, self.distance, space, self.settings.steps, learning_rate=rate, w_avg_weight=0.0
        )
        drawn = projector(image, start).image
        with torch.no_grad():
            return float(self.distance(resize(drawn, LOSS_RESOLUTION), resize(image, LOSS_RESOLUTION)))

    def measure_photo(self, photo: UInt8[np.ndarray, "height width 3"]) -> Distances:
        """Return the distances of one picture."""
        return self.measure(to_tensor(photo)[None].to(self.generator.w_avg.device))

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
        done: Mapping[str, Distances] = MappingProxyType({}),
        on_picture: Callable[[str, Distances], None] | None = None,
    ) -> Calibration:
        """Measure known pictures.

        Args:
            photos: real ones, aligned if they are faces; one that raises a ``ToolkitError`` is logged and left out.
            num_samples: how many of the generator's own to draw.
            seed: of the samples.
            notes: kept with the calibration.
            done: distances by the pictures' names that were measured before, under the same settings.
            on_picture: told the name and distances of each.

        Raises:
            TooFewImages: fewer than five of either kind.
        """

        def measured(pictures: Iterable[Picture]) -> Iterator[Distances]:
            for name, read in pictures:
                try:
                    distances = done[name] if name in done else self.measure_photo(read())
                except ToolkitError as error:
                    logger.warning("left out: %s", error)
                    continue
                if on_picture is not None:
                    on_picture(name, distances)
                yield distances

        generated = tuple(measured(self.samples(num_samples, seed)))
        return Calibration(self.settings, generated, tuple(measured(photos)), {"seed": seed, **(notes or {})})

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
    """Return the encoder that projections of a generator's pictures begin with, pSp's, and what to call it; or none."""
    try:
        inverter = load_inverter("psp", generator)
    except ToolkitError:
        return None, MEAN_FACE
    assert isinstance(inverter, EncoderInverter)
    return inverter.encoder, "psp"


def as_jpeg(photo: UInt8[np.ndarray, "height width 3"], quality: int = JPEG_QUALITY) -> UInt8[np.ndarray, "height width 3"]:
    """Compress a picture and decode it again."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def plot_roc(calibration: Calibration, path: Path) -> None:
    """Draw the ROC curve, and beside it the gains that it comes from, into a PNG; whole or not at all.

    Raises:
        OSError: the file cannot be written.
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
    gains = [[distances.gain for distances in kind] for kind in (calibration.generated, calibration.real)]
    bins = np.linspace(0, max(map(max, gains)) * 1.05, 24).tolist()
    for kind, color, what in zip(gains, ("#1f5fa8", "#d9822b"), ("samples", "photos"), strict=True):
        spread.hist(kind, bins, color=color, alpha=0.75, label=f"{len(kind)} {what}")
    spread.axvline(calibration.threshold, color="#222222", lw=1, ls="--", label=f"threshold {calibration.threshold:.3f}")
    spread.set(
        xlabel=f"{calibration.settings.distance}: in W / in W+, {calibration.settings.steps} steps each", ylabel="pictures",
        title=calibration.settings.generator,
    )  # fmt: skip
    spread.legend(frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def read_distances(path: Path, settings: Settings) -> dict[str, Distances]:
    """Return what a calibration that was stopped has measured under the same settings, by name; nothing if it has not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        same = data["settings"] == asdict(settings)
        return {str(name): Distances(*map(float, pair)) for name, pair in data["distances"].items()} if same else {}
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
