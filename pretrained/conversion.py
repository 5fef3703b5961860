"""How does a file of weights become one of another format, and did anything change? It is drawn with both, to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.base import Generator
from generators.stylegan2 import StyleGAN2
from pretrained import rosinality, safetensors
from pretrained.arguments import ARGUMENTS
from pretrained.cache import sha256, whole_file
from pretrained.catalog import CATALOG, Download
from pretrained.checkpoints import DISCRIMINATORS, GENERATORS, Checkpoint, Weights, read_checkpoint
from pretrained.errors import BrokenFile, CannotConvert, CheckpointMismatch
from pretrained.loading import build_weights, read_generator

TOLERANCE = 1e-6
"""How far the images of both files may be apart, relative to the largest value; equal numbers draw equal images."""
FORMATS = (".safetensors", ".pt")


@dataclass(frozen=True)
class Network:
    """What a file holds under one role."""

    role: str
    """Its name in the file."""
    architecture: str
    resolution: int = 0
    num_ws: int = 0
    w_dim: int = 0
    c_dim: int = 0
    parameters: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Those of its constructor that the file tells: depths, widths, clamps."""
    problem: str = ""
    """Why it cannot be used, missing tensors by name; empty where it can."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """What a file is."""

    path: str
    kind: str
    sha256: str
    licence: str
    """As the file says, or the catalogue of a file of that name, or "unknown"."""
    networks: tuple[Network, ...]
    contents: Mapping[str, str]
    """Everything that it holds beside tensors of its own level, in words, by name."""

    def json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    out: Path
    difference: float
    """Largest difference of the images that both files draw from one code, relative to their largest value."""
    notes: tuple[str, ...]
    """What was made up or left out."""


def describe(path: Path) -> Description:
    """Say what a file of weights is, and what of it can be used.

    Raises:
        BrokenFile: it is no file of weights, or damaged, or wants to run something.
    """
    checkpoint = read_checkpoint(path)
    networks = tuple(_describe_network(checkpoint, role) for role in checkpoint.readers)
    licence = str(checkpoint.card.get("licence") or _licence_by_name(path))
    return Description(str(path), checkpoint.kind, sha256(path), licence, networks, checkpoint.contents)


def _licence_by_name(path: Path) -> str:
    known = (entry for entry in CATALOG.values() if isinstance(entry, Download) and entry.file.name == path.name)
    return next((f"{entry.licence} (of the published file of that name)" for entry in known), "unknown")


def _describe_network(checkpoint: Checkpoint, role: str) -> Network:
    architecture = "unknown"
    try:
        weights = checkpoint.read(role)
        architecture = weights.architecture
        network = build_weights(weights, role)
        arguments = ARGUMENTS[architecture](weights.tensors, weights.settings)
    except (BrokenFile, CheckpointMismatch) as error:
        return Network(role, architecture, problem=str(error).removeprefix(f"{checkpoint.path}: "))
    num_ws, w_dim, c_dim, resolution = (
        int(getattr(network, name, 0)) for name in ("num_ws", "w_dim", "c_dim", "img_resolution")
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    told = {name: value for name, value in arguments.items() if name not in ("img_resolution", "w_dim", "c_dim")}
    return Network(role, architecture, resolution, num_ws, w_dim, c_dim, parameters, told, notes=weights.notes)


def convert(path: Path, out: Path) -> Conversion:
    """Write the generator of a file, and its discriminator where there is one, in another format, and draw with both.

    Args:
        path: any file that ``load_generator`` reads.
        out: to be written, whole or not at all: ``.safetensors``, or ``.pt`` for rosinality's code and pSp's and e4e's.

    Raises:
        CannotConvert: another suffix, a network that the format has no place for, or images that differ.
        BrokenFile: the file cannot be read, or holds no generator.
        CheckpointMismatch: the file is almost a generator.
    """
    if out.suffix == ".pkl":
        raise CannotConvert(
            f"{out}: NVIDIA's pickles hold the source code of their networks, and this toolkit saves numbers alone; name a"
            " .safetensors, whose names are NVIDIA's: G.load_state_dict(safetensors.torch.load_file(FILE)) takes them,"
            " less those that begin with discriminator."
        )
    if out.suffix not in FORMATS:
        raise CannotConvert(f"{out}: expected a name that ends in {' or '.join(FORMATS)}, which tells the format")
    checkpoint = read_checkpoint(path)
    role, judge = checkpoint.role(GENERATORS), checkpoint.role(DISCRIMINATORS)
    if role is None:
        raise BrokenFile(f"{path}: no generator in it, but {', '.join(sorted(checkpoint.readers))}")
    weights = checkpoint.read(role)
    notes, discriminator = list(weights.notes), None
    if judge is not None:
        try:
            discriminator = checkpoint.read(judge)
            build_weights(discriminator, judge)
        except (BrokenFile, CheckpointMismatch) as error:
            discriminator = None
            notes.append(f"the discriminator is left out: {error}")
    source = read_generator(path, role, notify=_silent)
    with whole_file(out) as part:
        if out.suffix == ".pt":
            notes += _write_rosinality(part, weights, discriminator)
        else:
            _write_safetensors(part, weights, discriminator, _card(source, checkpoint.card, weights))
        difference = _difference(source, read_generator(part, notify=_silent))
        difference = max(difference, _difference_of_judges(discriminator, read_checkpoint(part)))
        if difference > TOLERANCE:
            raise CannotConvert(f"{out} is not written: its images are {difference:.1e} off, more than {TOLERANCE:.0e}")
    return Conversion(out, difference, tuple(notes))


def save_generator(out: Path, generator: Generator) -> None:
    """Write a generator whose weights were changed, in float16; latents of the one that it came from are latents of it.

    Args:
        out: to be written, whole or not at all; ``load_generator`` reads it.
        generator: loaded from a file or by name, and tuned.
    """
    source = Path(generator.source)
    checkpoint = read_checkpoint(source) if source.is_file() else None
    role = checkpoint.role(GENERATORS) if checkpoint is not None else None
    card: dict[str, Any] = {"name": generator.identity.name, "source_sha256": generator.identity.sha256}
    if checkpoint is not None and role is not None:
        card = _card(generator, checkpoint.card, checkpoint.read(role))
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in generator.state_dict().items()}
    with whole_file(out) as part:
        safetensors.save(part, tensors, card | {"tuned": True})


def _silent(note: str) -> None:
    """Pass over what the result of a conversion says anyhow."""


def _card(source: Generator, card: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Say what a file holds; codes of the source stay codes of the result."""
    identity = {"name": source.identity.name, "source_sha256": source.identity.sha256}
    licence = card.get("licence", "unknown: that of the file it was converted from")
    return {"architecture": weights.architecture, "arguments": weights.settings, "licence": licence} | identity


def _write_safetensors(part: Path, weights: Weights, discriminator: Weights | None, card: Mapping[str, Any]) -> None:
    tensors = dict(weights.tensors)
    if discriminator is not None:
        tensors |= {f"discriminator.{name}": value for name, value in discriminator.tensors.items()}
    safetensors.save(part, tensors, card)


def _write_rosinality(part: Path, weights: Weights, discriminator: Weights | None) -> list[str]:
    """Write what rosinality's code, and pSp's and e4e's, load; return what its code cannot express."""
    if weights.architecture != "StyleGAN2":
        raise CannotConvert(f"rosinality's code draws with StyleGAN2 alone, and this is {weights.architecture}")
    entries: dict[str, dict[str, Tensor] | Tensor] = {
        "g_ema": rosinality.generator_to_rosinality(weights.tensors),
        "latent_avg": weights.tensors["mapping.w_avg"],
    }
    arguments = ARGUMENTS["StyleGAN2"](weights.tensors, weights.settings)
    notes = _lost(arguments)
    if discriminator is not None:
        try:
            entries["d"] = rosinality.discriminator_to_rosinality(discriminator.tensors)
        except CannotConvert as error:
            notes.append(f"the discriminator is left out: {error}")
    torch.save(entries, part)
    return notes


def _lost(arguments: Mapping[str, Any]) -> list[str]:
    """Say what of a StyleGAN2 rosinality's code does not have, as far as its images may stay the same.

    Raises:
        CannotConvert: none of its images would.
    """
    widths = {arguments["z_dim"], arguments["w_dim"], arguments.get("mapping_features", arguments["w_dim"])}
    if len(widths) > 1:
        raise CannotConvert(f"rosinality's code has one width for z, W and all between, and these are {sorted(widths)}")
    if (rate := arguments.get("mapping_lr_multiplier", 0.01)) != 0.01:
        raise CannotConvert(f"rosinality's code maps at the learning rate 0.01, and this network at {rate:g}")
    clamp = arguments.get("conv_clamp")
    return [f"rosinality's code has no conv_clamp={clamp:g}: its images differ where a layer exceeds that"] if clamp else []


def _difference(first: Generator, second: Generator) -> float:
    """Draw one code with both, without chance, and return the largest difference."""
    z = torch.randn(1, first.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        image, other = (network.synthesis(_codes(network, z), "const") for network in (first, second))
    difference, largest = (image - other).abs().max(), image.abs().max()
    return float(difference / largest) if largest > 0 else float(difference)


def _difference_of_judges(weights: Weights | None, written: Checkpoint) -> float:
    """Judge one batch of noise with both discriminators, and return the largest difference; 0 where there is none."""
    role = written.role(DISCRIMINATORS)
    if weights is None or role is None:
        return 0.0
    networks = [build_weights(each, str(written.path)) for each in (weights, written.read(role))]
    side, c_dim = (int(getattr(networks[0], name)) for name in ("img_resolution", "c_dim"))
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    labels = torch.eye(2, c_dim) if c_dim else None
    with torch.inference_mode():
        logits, others = (network(images, labels) for network in networks)
    difference, largest = (logits - others).abs().max(), logits.abs().max()
    return float(difference / largest) if largest > 0 else float(difference)


def _codes(network: Generator, z: Tensor) -> Tensor:
    if isinstance(network, StyleGAN2) and network.c_dim:
        return network.mapping(z, 0.7, c=torch.eye(1, network.c_dim))
    return network.mapping(z, 0.7)
