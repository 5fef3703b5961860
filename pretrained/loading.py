"""How does a name or a file become a network? Recognise by keys, deduce sizes from shapes, build, load strictly, freeze."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from encoders.arcface import ArcFace
from encoders.backbone import BACKBONES
from encoders.base import Encoder
from encoders.psp import PublishedEncoder
from encoders.stylemap import StyleMapEncoder
from generators.base import Generator, Identity
from generators.errors import UnknownName
from generators.mobilestylegan import MobileStyleGAN
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2, StyleGAN2Discriminator
from generators.stylegan3 import StyleGAN3
from pretrained import safetensors
from pretrained.arguments import ARGUMENTS, encoder_arguments, settings_for
from pretrained.cache import sha256, whole_file
from pretrained.catalog import CATALOG, DEFAULT_GENERATOR, fetch
from pretrained.checkpoints import DISCRIMINATORS, GENERATORS, Checkpoint, Weights, read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.psp import ENCODERS, METHODS, choose
from pretrained.shipped import encoder_names

logger = logging.getLogger(__name__)
_MAX_MAP = 64
"""Largest side of a style map: the features that it is made of have no more pixels."""
_MAX_LOOKS = 16
"""Most looks at a face that a file may ask for."""
Network = TypeVar("Network", bound=nn.Module)


def load_generator(
    name_or_path: str | Path = DEFAULT_GENERATOR,
    device: str | torch.device = "cpu",
    notify: Callable[[str], None] = logger.warning,
    which: str | None = None,
) -> Generator:
    """Load a generator by its catalogue name (fetched on first use) or from a file.

    Args:
        name_or_path: of the generator.
        device: where it goes.
        notify: told what is fetched and under which licence, and what had to be made up for lack of it in the file.
        which: the generator's name in the file, as ``models show`` lists it (``G_ema``, ``G``, ``g_ema``, ``g``, ...);
            None: the moving average of the weights, where there is one.

    Raises:
        UnknownName: neither a name of the catalogue nor a file; or the file has no such network.
        DownloadFailed: it had to be fetched and could not be.
        BrokenFile: the file cannot be read, or is no generator.
        CheckpointMismatch: the file is almost a generator.
    """
    return read_generator(_find(name_or_path, notify), which, notify).to(device)


def load_discriminator(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    notify: Callable[[str], None] = logger.warning,
    which: str | None = None,
) -> StyleGAN2Discriminator:
    """Load the discriminator of a file; the arguments are those of ``load_generator``.

    Raises:
        UnknownName: neither a name of the catalogue nor a file; or the file has no such network.
        DownloadFailed: it had to be fetched and could not be.
        BrokenFile: the file cannot be read, or holds no discriminator.
        CheckpointMismatch: the file is almost a discriminator.
    """
    path = _find(name_or_path, notify)
    network = _read(read_checkpoint(path), DISCRIMINATORS, which, notify)
    if not isinstance(network, StyleGAN2Discriminator):
        raise BrokenFile(f"{path}: no discriminator, but a {type(network).__name__}")
    return network.to(device)


def read_generator(path: Path, which: str | None = None, notify: Callable[[str], None] = logger.warning) -> Generator:
    """Read a generator from any file that holds one; the arguments are those of ``load_generator``.

    Raises:
        UnsafePickle: the file wants to run something, and is refused.
        UnknownName: it has no such network.
        BrokenFile: the file cannot be read, or is no generator.
        CheckpointMismatch: the file is almost a generator.
    """
    checkpoint = read_checkpoint(path)
    generator = _read(checkpoint, GENERATORS, which, notify)
    if not isinstance(generator, Generator):
        raise BrokenFile(f"{path}: no generator, but a {type(generator).__name__}")
    card = checkpoint.card
    generator.identity = Identity(str(card.get("name", path.stem)), str(card.get("source_sha256") or sha256(path)))
    generator.source = str(path)
    return generator


def _find(name_or_path: str | Path, notify: Callable[[str], None]) -> Path:
    """Return the file of a name, fetched where it is missing, or of a path."""
    if str(name_or_path) in CATALOG:
        return fetch(str(name_or_path), notify)
    path = Path(name_or_path)
    if path.is_dir():
        raise BrokenFile(f"{path} is a folder: expected a file of weights in it")
    if not path.is_file():
        raise UnknownName("generator (nor is there such a file)", str(name_or_path), CATALOG)
    return path


def _read(checkpoint: Checkpoint, roles: tuple[str, ...], which: str | None, notify: Callable[[str], None]) -> nn.Module:
    """Read the network of one role, or of the first of some that the file has."""
    role = checkpoint.role(roles) if which is None else which
    if which is not None and which not in checkpoint.readers:
        raise UnknownName(f"network in {checkpoint.path}", which, checkpoint.readers)
    if role is None:
        kind = "generator" if roles == GENERATORS else "discriminator"
        raise BrokenFile(f"{checkpoint.path}: no {kind} in it, but {', '.join(sorted(checkpoint.readers))}")
    weights = checkpoint.read(role)
    for note in weights.notes:
        notify(f"{checkpoint.path}: {note}")
    return build_weights(weights, str(checkpoint.path))


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
    "ArcFace": ArcFace,
    **ENCODERS,
}
"""Networks that can be built from files, by architecture."""


def load_encoder(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    method: str | None = None,
    notify: Callable[[str], None] = logger.warning,
) -> Encoder:
    """Load an encoder that ships (``stylemap``), or one from a file of pSp, e4e, ReStyle or ``stylegan-invert train``.

    Args:
        name_or_path: name or file.
        device: where it shall work.
        method: what it is, for files that do not tell themselves, and a check of others; a key of
            ``pretrained.psp.METHODS``.
        notify: told what had to be made up.

    Raises:
        UnknownName: neither the name of an encoder nor a file.
        UnsafePickle: the file wants to run something, and is refused.
        ForeignFile: its encoder is of another kind than asked for, or of one that this toolkit has no network for.
        BrokenFile: the file cannot be read, or is no encoder.
        CheckpointMismatch: the file is almost an encoder.
    """
    known = encoder_names()
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise UnknownName("encoder (nor is there such a file)", str(name_or_path), known)
    checkpoint = read_checkpoint(path)
    is_own = checkpoint.kind == "safetensors"
    encoder = _own_encoder(path, method) if is_own else _published_encoder(checkpoint, method, notify)
    if odd := _not_finite(encoder.state_dict()):
        raise BrokenFile(f"{path}: {odd} holds what is no finite number: its training went astray; take another file")
    return encoder.to(device)


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Return the name of a tensor that holds NaN or infinity, if one does."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def _own_encoder(path: Path, method: str | None) -> Encoder:
    """Build what ``save_encoder`` wrote, if it is of the method that is asked for."""
    tensors, card = safetensors.load(path)
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    architecture = card.get("architecture")
    encoder: Encoder
    if isinstance(architecture, str) and architecture in ENCODERS:
        told = card.get("arguments")
        try:
            arguments = encoder_arguments(tensors, settings_for(architecture, told if isinstance(told, dict) else {}))
        except BrokenFile as error:
            raise type(error)(f"{path}: {error}") from error
        encoder = build(ENCODERS[architecture], arguments, tensors, str(path))
        kinds = tuple(name for name, members in METHODS.items() if architecture in members)
    else:
        encoder = build(StyleMapEncoder, _encoder_arguments(card, path), tensors, str(path))
        kinds = _kinds(encoder)
    if method is not None and method not in kinds:
        found = f"of the method {kinds[0]}" if kinds else "one of stylemaps"
        raise ForeignFile(f"{path}: its encoder is {found}, not of {method}: name the file without a method")
    encoder.identity = Identity(str(card.get("generator", "unknown")), str(card.get("generator_sha256", "")))
    return encoder


def _kinds(encoder: StyleMapEncoder) -> tuple[str, ...]:
    """Name the methods, keys of ``pretrained.psp.METHODS``, that a StyleMap encoder is one of (``encoders.compact``)."""
    if encoder.space != "w_plus":
        return ()
    kind = "e4e" if encoder.deltas else "psp"
    return ("restyle", f"restyle-{kind}") if encoder.in_channels == 6 else (kind,)


def _published_encoder(checkpoint: Checkpoint, method: str | None, notify: Callable[[str], None]) -> Encoder:
    """Build the encoder of a file of pSp, e4e or ReStyle; its codes are for the generator in the same file."""
    path = checkpoint.path
    if "encoder" not in checkpoint.readers:
        raise BrokenFile(f"{path}: no encoder in it, but {', '.join(sorted(checkpoint.readers))}")
    weights = checkpoint.read("encoder")
    try:
        architecture = choose(weights.architecture.split(" or "), method)
        arguments = encoder_arguments(weights.tensors, weights.settings)
    except BrokenFile as error:
        raise type(error)(f"{path}: {error}") from error
    for note in weights.notes:
        notify(f"{path}: {note}")
    encoder = build(ENCODERS[architecture], arguments, weights.tensors, str(path))
    encoder.identity = Identity(path.stem, sha256(path))
    return encoder


def _encoder_arguments(whole: dict[str, Any], path: Path) -> dict[str, Any]:
    """Read the constructor arguments that cannot be deduced from shapes off a file's card, trusting nothing."""
    backbone = whole.get("backbone", "compact")  # Files from before there was another.
    if backbone not in tuple(BACKBONES):
        raise BrokenFile(f"{path}: its card names the backbone {str(backbone)[:40]!r}: expected {' or '.join(BACKBONES)}")
    card: Any = whole.get("arguments")
    card = card if isinstance(card, dict) else {}
    arguments = {key: card.get(key) for key in ("num_ws", "w_dim", "width")}
    triples = {key: card.get(key) for key in ("sizes", "pyramid_channels")}
    are_triples = all(isinstance(value, list) and len(value) == 3 for value in triples.values())
    numbers = [*arguments.values(), *(n for value in triples.values() for n in value)] if are_triples else [None]
    defaults = {"deltas": False, "in_channels": 3, "looks": 1, "context": 0}  # Files from before they were there.
    options = {name: card.get(name, default) for name, default in defaults.items()}
    # The sizes are not seen in the tensors' shapes, so nothing else would stop maps that fill the memory.
    is_sane = all(type(n) is int and 0 < n <= 4096 for n in numbers) and max(card["sizes"]) <= _MAX_MAP
    is_sane = is_sane and type(options["looks"]) is int and 0 < options["looks"] <= _MAX_LOOKS
    is_sane = is_sane and type(options["context"]) is int and 0 <= options["context"] <= 4096
    if not is_sane or type(options["deltas"]) is not bool or options["in_channels"] not in (3, 6):
        raise BrokenFile(f"{path}: its card does not describe a StyleMap encoder: {card or 'it is empty'}")
    return arguments | {key: tuple(value) for key, value in triples.items()} | options | {"backbone": backbone}


def build(network: Callable[..., Network], arguments: dict[str, Any], tensors: dict[str, Tensor], what: str) -> Network:
    """Build a network around tensors; eval, frozen.

    It is built without memory first, so a file cannot make it allocate more than the file itself holds.

    Raises:
        CheckpointMismatch: missing, unexpected or misshapen tensors, all of them named.
        BrokenFile: no network has such arguments.
    """
    try:
        with torch.device("meta"):
            built = network(**arguments)
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise BrokenFile(f"{what}: its tensors make no network: {error}") from error
    expected = built.state_dict()
    tensors = tensors | _counts(expected, tensors)
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if missing or unexpected or misshapen:
        raise CheckpointMismatch(what, missing, unexpected, sorted(misshapen))
    odd = [n for n, value in expected.items() if value.is_floating_point() != tensors[n].is_floating_point()]
    if odd:
        raise BrokenFile(f"{what}: {min(odd)} holds {tensors[min(odd)].dtype}, expected {expected[min(odd)].dtype}")
    # The tensors become the network's own, so that they are in memory once.
    built.load_state_dict(tensors, assign=True)
    if any(tensor.is_meta for tensor in chain(built.parameters(), built.buffers())):
        # A constant that no file fills in: it has to be computed.
        built = network(**arguments)
        built.load_state_dict(tensors)
    return built.eval().requires_grad_(False)


def _counts(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the counts of batches that norms want and a file lacks, or has in half precision: only training reads them."""
    return {
        name: torch.zeros(tensors.get(name, value).shape, dtype=torch.int64)
        for name, value in expected.items()
        if name.endswith("num_batches_tracked") and (name not in tensors or tensors[name].is_floating_point())
    }


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """Return what is needed to build an encoder again, beside its tensors."""
    names: tuple[str, ...] = ("num_ws", "w_dim", "in_channels")
    if isinstance(encoder, StyleMapEncoder):
        names += ("sizes", "pyramid_channels", "width", "deltas", "looks", "context")
    elif isinstance(encoder, PublishedEncoder):
        names += ("bars",)
    return {
        "architecture": "stylemap" if isinstance(encoder, StyleMapEncoder) else type(encoder).__name__,
        "backbone": encoder.backbone_name,
        "arguments": {name: getattr(encoder, name) for name in names},
    }


def save_encoder(path: Path, encoder: Encoder, generator: Identity, **card: Any) -> None:
    """Write an encoder in float16, with what is needed to build it again; further entries of the card must be JSON.

    Raises:
        BrokenFile: it has weights that are not finite in float16; nothing is written.
    """
    entries = describe_encoder(encoder) | {"generator": generator.name, "generator_sha256": generator.sha256}
    state = encoder.state_dict()
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    if odd := _not_finite(tensors):
        raise BrokenFile(f"{path}: not written: {odd} is not finite in float16; train again with a lower --lr")
    with whole_file(path) as temporary:
        safetensors.save(temporary, tensors, entries | card)
