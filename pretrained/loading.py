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
from pretrained import safetensors
from pretrained.cache import sha256, whole_file
from pretrained.catalog import CATALOG, DEFAULT_GENERATOR, fetch
from pretrained.errors import BrokenFile, CheckpointMismatch
from pretrained.shipped import encoder_names

logger = logging.getLogger(__name__)
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
    tensors, card = safetensors.load(path)
    if "synthesis.blocks.0.up_modulation.weight" not in tensors:
        raise BrokenFile(f"{path}: no generator that this version can read; it knows MobileStyleGAN")
    generator = build(MobileStyleGAN, mobilestylegan_arguments(tensors), tensors, str(path)).to(device)
    generator.identity = Identity(str(card.get("name", path.stem)), str(card.get("source_sha256") or sha256(path)))
    return generator


def mobilestylegan_arguments(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Deduce the constructor arguments of a MobileStyleGAN from the shapes of its tensors."""
    num_blocks = sum(name.endswith(".up_modulation.weight") for name in tensors)
    try:
        return {
            "channels": [tensors[f"synthesis.blocks.{k}.conv2.pointwise.weight"].shape[0] for k in range(num_blocks)],
            "const_channels": tensors["synthesis.const"].shape[1],
            "z_dim": tensors["mapping.layers.0.weight"].shape[1],
            "w_dim": tensors["mapping.layers.0.weight"].shape[0],
            "mapping_layers": sum(name.startswith("mapping.layers.") for name in tensors) // 2,
        }
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a MobileStyleGAN without {error}") from error


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
    arguments = card.get("arguments", {})
    sizes = [arguments.get("sizes"), arguments.get("pyramid_channels")]
    numbers = [arguments.get("num_ws"), arguments.get("w_dim"), arguments.get("width")]
    is_sane = all(isinstance(s, list) and len(s) == 3 for s in sizes)
    if not is_sane or not all(isinstance(n, int) and 0 < n <= 4096 for n in [*numbers, *sizes[0], *sizes[1]]):
        raise BrokenFile(f"{path}: its card does not describe a StyleMap encoder: {arguments or 'it is empty'}")
    encoder = build(StyleMapEncoder, arguments, {name: value.float() for name, value in tensors.items()}, str(path))
    encoder.identity = Identity(str(card.get("generator", "unknown")), str(card.get("generator_sha256", "")))
    return encoder.to(device)


def build(network: Callable[..., Network], arguments: dict[str, Any], tensors: dict[str, Tensor], what: str) -> Network:
    """Build a network around tensors; eval, frozen.

    It is built without memory first, so a file cannot make it allocate more than the file itself holds.

    Raises:
        CheckpointMismatch: missing, unexpected or misshapen tensors, all of them named.
    """
    with torch.device("meta"):
        expected = network(**arguments).state_dict()
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
    }
    entries = {
        "architecture": "stylemap",
        "arguments": arguments,
        "generator": generator.name,
        "generator_sha256": generator.sha256,
    }
    with whole_file(path) as temporary:
        safetensors.save(temporary, {name: value.half() for name, value in encoder.state_dict().items()}, entries | card)
