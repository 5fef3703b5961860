"""Which ways are there to find a code? An encoder, the projector, or an encoder polished by the projector: one call each."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from encoders.base import Encoder
from encoders.feedback import look_again
from encoders.psp import PublishedEncoder
from encoders.resize import resize
from encoders.restyle import restyle
from generators.base import Generator, Identity
from generators.errors import LatentMismatch, ToolkitError, UnknownName
from generators.latent import Latent
from invert.inversion import Inversion, Inverter, check_faces
from invert.perceptual import Perceptual, load_perceptual
from invert.presets import AUTO, DEFAULT_PRESET, MAX_LOOKS, PROJECTOR, preset_steps
from invert.projector import Projector
from invert.tuning import TunedInverter, Tuner
from pretrained import safetensors
from pretrained.arguments import encoder_arguments
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, ForeignFile
from pretrained.loading import load_encoder
from pretrained.psp import METHODS, choose
from pretrained.shipped import encoder_names

logger = logging.getLogger(__name__)

PREFERRED = ("stylemap-e", "stylemap", "e4e", "psp")
"""Encoders that ship, the best first."""
PHOTO_CHANNELS = (3, 6)
"""Of encoders that look at photos; 6 with what was drawn of them so far."""
SAME_W = 0.1
"""Two means of W that differ by less than this share are of one mapping network: they are means over a finite sample."""


@dataclass(frozen=True)
class EncoderInverter:
    """Invert by one or more calls of an encoder, and polish by some projector steps if there are any."""

    encoder: Encoder
    generator: Generator
    refiner: Projector | None = None
    looks: int | None = None
    """At each face; None: as many as the encoder's own (``encoders.feedback``, ``encoders.restyle``)."""

    def __call__(self, image: Float[Tensor, "batch 3 height width"]) -> Inversion:
        """Invert aligned faces in [-1, 1] of any size.

        Raises:
            ImageError: see ``check_faces``.
        """
        check_faces(image)
        latent, drawn = self._look(image, self.looks or self.encoder.looks)
        if self.refiner is not None and self.refiner.steps:
            return self.refiner(image, start=latent)
        with torch.no_grad():
            return Inversion(latent, self.generator.synthesis(latent) if drawn is None else drawn)

    def encode(self, image: Float[Tensor, "batch 3 height width"]) -> Latent:
        """Return the encoder's codes alone: of one look unless more were asked for, and nothing polished.

        They are what LEC is about, and steadier from frame to frame of a video. ReStyle's encoder is one with all its looks.
        """
        return self._look(image, self.looks or (self.encoder.looks if self.encoder.in_channels == 6 else 1))[0]

    @torch.no_grad()
    def _look(
        self, image: Float[Tensor, "batch 3 height width"], looks: int
    ) -> tuple[Latent, Float[Tensor, "batch 3 out_height out_width"] | None]:
        """Return the codes, and what has been drawn from them already."""
        image = resize(image, self.encoder.input_resolution)
        if self.encoder.in_channels == 6:
            return deque(restyle(self.encoder, self.generator, image, looks), maxlen=1)[0]
        if looks == 1:
            return self.encoder(image), None
        return deque(look_again(self.encoder, self.generator, image, looks), maxlen=1)[0]


def method_names() -> list[str]:
    """Return what ``--method`` takes."""
    return [*dict.fromkeys((AUTO, *encoder_names(), *METHODS, PROJECTOR))]


def check_method(method: str) -> None:
    """Refuse a method that there is not, before anything is fetched for it.

    Raises:
        UnknownName: neither a method nor a file; close names are given.
    """
    if method not in method_names() and not Path(method).is_file():
        raise UnknownName("method", method, method_names())


def load_inverter(
    method: str,
    generator: Generator,
    *,
    encoder: str | Path | None = None,
    looks: int | None = None,
    space: str = "w_plus",
    steps: int = 100,
    refine: int = 0,
    tune: int = 0,
    preset: str = DEFAULT_PRESET,
    perceptual: Perceptual | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Inverter:
    """Make an inverter.

    Args:
        method: ``auto`` (the best one for the generator, or the encoder that is given, with the steps of a preset),
            ``projector``, or an encoder by name or file. ``psp``, ``e4e`` and ``restyle`` mean the encoder in the
            generator's own file, where that is of one of those projects; else the one that ships.
        generator: whose codes to find; the inverter works on its device.
        encoder: the method's encoder, by name or file; None finds it by the method.
        looks: of an encoder at each face: it looks at what was drawn so far, too, and corrects the code. None: as many as
            the encoder is meant to have (``stylemap-e`` and the ``restyle`` that ships 3, published ones 5, others 1).
        space: of the projector; an encoder has its own.
        steps: of the projector.
        refine: projector steps after an encoder.
        tune: steps of tuning a copy of the generator to each face afterwards (``invert.tuning``).
        preset: of the method ``auto``, which takes its steps instead of those given: ``fast``, ``better`` or ``best``.
        perceptual: distance that the projector minimises; None loads LPIPS where it is needed.
        on_step: told every step of the projector and its loss terms.

    Raises:
        UnknownName: no such method, space or preset.
        LatentMismatch: the encoder belongs to another generator, or looks at other things than photos.
        BrokenFile: the encoder's file cannot be read, or holds no such encoder.
        ToolkitError: looks out of range, or an encoder or looks for the projector, which has none.
    """
    device = generator.w_avg.device
    if looks is not None and not 1 <= looks <= MAX_LOOKS:
        raise ToolkitError(f"{looks} looks at a face: expected 1 to {MAX_LOOKS}")
    if method == AUTO:
        method = choose_method(generator, encoder)
        effort = preset_steps(preset, method)
        steps, refine, tune = (effort.get(name, 0) for name in ("steps", "refine", "tune"))

    @cache
    def distance() -> Perceptual:  # Only once nothing else can be wrong: it may have to be fetched.
        return perceptual if perceptual is not None else load_perceptual(device)

    def projector(count: int, space: str) -> Projector:
        return Projector(generator, distance(), space, count, on_step=on_step)

    inverter: Inverter
    if method == PROJECTOR:
        given = encoder if encoder is not None else f"the {looks} looks" if looks is not None else None
        if given is not None:
            raise ToolkitError(f"the {PROJECTOR} has no encoder: name another method, or leave out {given}")
        inverter = projector(steps, space)
    else:
        network = _find_encoder(method, encoder, generator)
        _check_fit(network, generator, str(encoder or method))
        inverter = EncoderInverter(network, generator, projector(refine, network.space) if refine else None, looks)
    if not tune:
        return inverter
    before = steps if method == PROJECTOR else refine
    later = None if on_step is None else lambda step, terms: on_step(before + step, terms)
    return TunedInverter(inverter, Tuner(generator, distance(), tune, on_step=later))


def choose_method(
    generator: Generator, encoder: str | Path | None = None, notify: Callable[[str], None] = logger.warning
) -> str:
    """Say what ``auto`` means: the encoder that is given, whatever else there is, else the best method for a generator.

    Args:
        generator: whose codes to find.
        encoder: by name or file.
        notify: told why the encoder in the generator's own file is not taken.

    Raises:
        ForeignFile: see ``best_method``.
    """
    return best_method(generator, notify) if encoder is None else str(encoder)


def best_method(generator: Generator, notify: Callable[[str], None] = logger.warning) -> str:
    """Return the best method for a generator: an encoder that ships, else the one in its own file, else the projector.

    Raises:
        ForeignFile: nothing tells which of two methods' the encoder in its own file is.
    """
    shipped = encoder_names()
    for name in PREFERRED:
        if name in shipped and _generator_of(shipped[name]).fits(generator.identity):
            return name
    return _method_beside(Path(generator.source), notify) or PROJECTOR


def _generator_of(encoder: Path) -> Identity:
    card = safetensors.load(encoder)[1]
    return Identity(str(card.get("generator")), str(card.get("generator_sha256", "")))


def _method_beside(source: Path, notify: Callable[[str], None]) -> str | None:
    """Return the method whose encoder a generator's file holds, if it is a known one, and for photos."""
    checkpoint = read_checkpoint(source) if source.is_file() else None
    if checkpoint is None or "encoder" not in checkpoint.readers:
        return None
    try:
        weights = checkpoint.read("encoder")
    except ForeignFile as error:
        notify(f"{error}; the {PROJECTOR} takes its place")
        return None
    try:
        if (channels := encoder_arguments(weights.tensors)["in_channels"]) not in PHOTO_CHANNELS:
            notify(f"{source}: its encoder looks at {_sketches(channels)}; the {PROJECTOR} takes its place")
            return None
        architecture = choose(weights.architecture.split(" or "), None)
    except BrokenFile as error:
        raise type(error)(f"{source}: {error}") from error
    # ReStyle has a variant with pSp's own network, which tells itself apart by what it looks at alone.
    methods = sorted(METHODS, key=lambda method: method != "restyle") if channels == 6 else METHODS
    return next(method for method in methods if architecture in METHODS[method])


def _sketches(channels: int) -> str:
    return f"sketches or segmentation maps of {channels} channels, not at photos"


def _find_encoder(method: str, encoder: str | Path | None, generator: Generator) -> Encoder:
    """Load the encoder of a method: the one that is named, the one beside the generator, or the one that ships."""
    device, kind = generator.w_avg.device, method if method in METHODS else None
    if encoder is not None:
        return load_encoder(encoder, device, kind)
    if (beside := encoder_beside(method, generator)) is not None:
        return load_encoder(beside, device, kind)
    if method in encoder_names() or (not kind and Path(method).is_file()):
        return load_encoder(method, device)
    if kind:
        raise ToolkitError(f"no encoder for the method {method} ships: give the file of one with --encoder")
    raise UnknownName("method", method, method_names())


def encoder_beside(method: str, generator: Generator) -> Path | None:
    """Return the generator's own file, where a method means the encoder in it."""
    source = Path(generator.source)
    has_encoder = method in METHODS and source.is_file() and "encoder" in read_checkpoint(source).readers
    return source if has_encoder else None


def _check_fit(encoder: Encoder, generator: Generator, name: str) -> None:
    """Refuse an encoder whose codes mean nothing to a generator."""
    if encoder.in_channels not in PHOTO_CHANNELS:
        raise LatentMismatch(f"the encoder {name!r} looks at {_sketches(encoder.in_channels)}")
    theirs, ours = (encoder.num_ws, encoder.w_dim), (generator.num_ws, generator.w_dim)
    if theirs != ours:
        raise LatentMismatch(
            f"the encoder {name!r} gives {theirs[0]} styles of {theirs[1]}, and the generator {generator.identity} takes"
            f" {ours[0]} of {ours[1]}: use the generator that it was trained for ({encoder.identity})"
        )
    if not (encoder.identity.fits(generator.identity) or _has_same_w(encoder, generator)):
        raise LatentMismatch(
            f"the encoder {name!r} was trained for the generator {encoder.identity}, not for {generator.identity}:"
            f" use --method {PROJECTOR}, or train one with 'stylegan-invert train'"
        )


def _has_same_w(encoder: Encoder, generator: Generator) -> bool:
    """Tell whether a published encoder's codes are of the generator's W: files of one generator abound, in other formats."""
    if not isinstance(encoder, PublishedEncoder):
        return False
    distance = (encoder.w_avg.mean(0) - generator.w_avg).norm()
    return bool(distance < SAME_W * generator.w_avg.norm())


def invert(
    image: Float[Tensor, "batch 3 height width"], generator: Generator, method: str = "stylemap", **options: object
) -> Inversion:
    """Find the codes of aligned faces in [-1, 1]; for many batches, keep what ``load_inverter`` returns.

    Args:
        image: a batch, as ``align`` cuts it (``face.image[None]``).
        generator: from ``load_generator``.
        method: see ``load_inverter``.
        **options: see ``load_inverter``.

    Returns:
        The codes, and the images (n, 3, r, r) that they draw at the generator's resolution. An encoder's codes are of its
        own space: ``stylemap`` and ``stylemap-e`` give stylemaps, a map (n, w_dim, h, w) a layer; ``psp``, ``e4e`` and
        ``restyle`` w_plus (n, num_ws, w_dim), and so does the projector, also with ``space="w"``, all of whose layers are
        equal. With ``tune``, the codes have to be drawn with ``inversion.generator``, which is else None.

    Raises:
        ImageError: the image is no batch (n, 3, h, w), or not in [-1, 1].
        UnknownName: no such method, space or preset.
        LatentMismatch: the encoder belongs to another generator, or looks at other things than photos.
        BrokenFile: the encoder's file cannot be read, or holds no such encoder.
        ToolkitError: looks out of range, or an encoder or looks for the projector, which has none.
    """
    return load_inverter(method, generator, **options)(image.to(generator.w_avg.device))  # type: ignore[arg-type]
