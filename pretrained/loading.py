"""How does a name or a file become a network? Recognise by keys, deduce sizes from shapes, build, load strictly, freeze."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from encoders.stylemap import StyleMapEncoder
from generators.base import Generator, Identity
from generators.errors import UnknownName
from generators.mobilestylegan import MobileStyleGAN
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2, StyleGAN2Discriminator
from generators.stylegan3 import StyleGAN3
from pretrained import safetensors
from pretrained.arguments import ARGUMENTS
from pretrained.cache import sha256, whole_file
from pretrained.catalog import CATALOG, DEFAULT_GENERATOR, fetch
from pretrained.checkpoints import GENERATORS, Weights, read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.shipped import encoder_names

logger = logging.getLogger(__name__)
_MAX_MAP = 64
"""Largest side of a style map: the features that it is made of have no more pixels."""
Network = TypeVar("Network", bound=nn.Module)


def load_generator(
    name_or_path: str | Path = DEFAULT_GENERATOR,
    device: str | torch.device = "cpu",
    notify: Callable[[str], None] = logger.warning,
) -> Generator:
    """Load a generator by its catalogue name (fetched on first use) or from a file.

    Raises:
        UnknownName: neither a name of the catalogue nor a file.
        DownloadFailed: it had to be fetched and could not be.
        BrokenFile: the file cannot be read, or is no generator.
        CheckpointMismatch: the file is almost a generator.
    """
    path = Path(name_or_path)
    if str(name_or_path) in CATALOG:
        path = fetch(str(name_or_path), notify)
    elif not path.is_file():
        raise UnknownName("generator (nor is there such a file)", str(name_or_path), CATALOG)
    return read_generator(path).to(device)


def read_generator(path: Path) -> Generator:
    """Read a generator from any file that holds one: the moving average of it, where there is one.

    Raises:
        UnsafePickle: the file wants to run something, and is refused.
        BrokenFile: the file cannot be read, or is no generator.
        CheckpointMismatch: the file is almost a generator.
    """
    checkpoint = read_checkpoint(path)
    role = checkpoint.role(GENERATORS)
    if role is None:
        raise BrokenFile(f"{path}: no generator in it, but {', '.join(sorted(checkpoint.readers))}")
    generator = build_weights(checkpoint.read(role), str(path))
    if not isinstance(generator, Generator):
        raise BrokenFile(f"{path}: no generator, but a {type(generator).__name__}")
    card = checkpoint.card
    generator.identity = Identity(str(card.get("name", path.stem)), str(card.get("source_sha256") or sha256(path)))
    return generator


def build_weights(weights: Weights, what: str) -> nn.Module:
    """Build the network that weights belong to; eval, frozen.

    Raises:
        ForeignFile: a network that this version cannot draw with.
        BrokenFile: no network has such tensors.
        CheckpointMismatch: missing, unexpected or misshapen tensors, all of them named.
    """
    network = NETWORKS.get(weights.architecture)
    if network is None:
        raise ForeignFile(f"{what}: it is {weights.architecture}, which this toolkit cannot draw with")
    try:
        arguments = ARGUMENTS[weights.architecture](weights.tensors, weights.settings)
    except BrokenFile as error:
        raise type(error)(f"{what}: {error}") from error
    return build(network, arguments, weights.tensors, what)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "MobileStyleGAN": MobileStyleGAN,
    "StyleGAN1": StyleGAN1,
    "StyleGAN2": StyleGAN2,
    "StyleGAN2 discriminator": StyleGAN2Discriminator,
    "StyleGAN3": StyleGAN3,
}
"""Networks that can be built from files, by architecture."""


def load_encoder(name_or_path: str | Path, device: str | torch.device = "cpu") -> StyleMapEncoder:
    """Load an encoder that ships (``stylemap``) or from a file of ``stylegan-invert train``.

    Raises:
        UnknownName: neither the name of an encoder nor a file.
        BrokenFile: the file cannot be read, or is no encoder.
        CheckpointMismatch: the file is almost an encoder.
    """
    known = encoder_names()
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise UnknownName("encoder (nor is there such a file)", str(name_or_path), known)
    tensors, card = safetensors.load(path)
    arguments = _encoder_arguments(card.get("arguments"), path)
    encoder = build(StyleMapEncoder, arguments, {name: value.float() for name, value in tensors.items()}, str(path))
    encoder.identity = Identity(str(card.get("generator", "unknown")), str(card.get("generator_sha256", "")))
    return encoder.to(device)


def _encoder_arguments(card: Any, path: Path) -> dict[str, Any]:
    """Read the constructor arguments that cannot be deduced from shapes, trusting nothing."""
    card = card if isinstance(card, dict) else {}
    arguments = {key: card.get(key) for key in ("num_ws", "w_dim", "width")}
    triples = {key: card.get(key) for key in ("sizes", "pyramid_channels")}
    are_triples = all(isinstance(value, list) and len(value) == 3 for value in triples.values())
    numbers = [*arguments.values(), *(n for value in triples.values() for n in value)] if are_triples else [None]
    options = {"deltas": card.get("deltas", False), "in_channels": card.get("in_channels", 3)}
    # The sizes are not seen in the tensors' shapes, so nothing else would stop maps that fill the memory.
    is_sane = all(type(n) is int and 0 < n <= 4096 for n in numbers) and max(card["sizes"]) <= _MAX_MAP
    if not is_sane or type(options["deltas"]) is not bool or options["in_channels"] not in (3, 6):
        raise BrokenFile(f"{path}: its card does not describe a StyleMap encoder: {card or 'it is empty'}")
    return arguments | {key: tuple(value) for key, value in triples.items()} | options


def build(network: Callable[..., Network], arguments: dict[str, Any], tensors: dict[str, Tensor], what: str) -> Network:
    """Build a network around tensors; eval, frozen.

    It is built without memory first, so a file cannot make it allocate more than the file itself holds.

    Raises:
        CheckpointMismatch: missing, unexpected or misshapen tensors, all of them named.
        BrokenFile: no network has such arguments.
    """
    try:
        with torch.device("meta"):
            expected = network(**arguments).state_dict()
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise BrokenFile(f"{what}: its tensors make no network: {error}") from error
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if missing or unexpected or misshapen:
        raise CheckpointMismatch(what, missing, unexpected, sorted(misshapen))
    built = network(**arguments)
    built.load_state_dict(tensors)
    return built.eval().requires_grad_(False)


def save_encoder(path: Path, encoder: StyleMapEncoder, generator: Identity, **card: Any) -> None:
    """Write an encoder in float16, with what is needed to build it again; further entries of the card must be JSON."""
    arguments = {
        "num_ws": encoder.num_ws,
        "w_dim": encoder.w_dim,
        "sizes": list(encoder.sizes),
        "pyramid_channels": list(encoder.pyramid_channels),
        "width": encoder.width,
        "deltas": encoder.deltas,
        "in_channels": encoder.in_channels,
    }
    entries = {
        "architecture": "stylemap",
        "arguments": arguments,
        "generator": generator.name,
        "generator_sha256": generator.sha256,
    }
    with whole_file(path) as temporary:
        safetensors.save(temporary, {name: value.half() for name, value in encoder.state_dict().items()}, entries | card)
