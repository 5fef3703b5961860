"""What is in NVIDIA's files? Networks as trees of records, flattened to tensors under the names that the code gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from pretrained.errors import BrokenFile
from pretrained.pickles import Record
from pretrained.torchfiles import TensorRecord

NETWORKS = ("G_ema", "G", "D")
MAX_MODULES = 2000
"""A network at 1024 px has about 150."""
MAX_DEPTH = 12
SETTINGS = ("conv_clamp",)
"""What the tensors' shapes do not tell, and changes the image."""


def networks(value: Any) -> dict[str, Record]:
    """Return the networks of a file by their roles; a network that was saved by itself, as PTI does, is ``G``."""
    if isinstance(value, Record):
        return {"G": value} if isinstance(value.state, dict) and "_modules" in value.state else {}
    if not isinstance(value, dict):
        return {}
    return {role: value[role] for role in NETWORKS if isinstance(value.get(role), Record)}


def flatten(network: Record) -> tuple[dict[str, TensorRecord], dict[str, Any]]:
    """Return the tensors of a network as its state dict names them, and the settings that the shapes do not tell.

    Raises:
        BrokenFile: the network is damaged, or nested without end.
    """
    tensors: dict[str, TensorRecord] = {}
    settings: dict[str, Any] = {}
    for number, (prefix, state) in enumerate(_modules(network, "", 0)):
        if number >= MAX_MODULES:
            raise BrokenFile(f"a network of more than {MAX_MODULES} modules")
        passing = _part(state, "_non_persistent_buffers_set", set)
        for kind in ("_parameters", "_buffers"):
            for name, value in _part(state, kind, dict).items():
                if isinstance(value, TensorRecord) and name not in passing:
                    tensors[f"{prefix}{name}"] = value
        settings = settings_of(state) | settings
    return tensors, settings


def settings_of(values: Mapping[Any, Any]) -> dict[str, float]:
    """Return the settings among some values, trusting none."""
    numbers = {name: values.get(name) for name in SETTINGS}
    are_sane = {
        name: isinstance(n, int | float) and not isinstance(n, bool) and 0 < n < 2**32 for name, n in numbers.items()
    }
    return {name: float(values[name]) for name, is_sane in are_sane.items() if is_sane}


def _modules(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, dict[Any, Any]]]:
    if not isinstance(module, Record) or not isinstance(module.state, dict) or depth > MAX_DEPTH:
        raise BrokenFile(f"a damaged network: {prefix[:80].rstrip('.') or 'its root'} is no module")
    yield prefix, module.state
    for name, child in _part(module.state, "_modules", dict).items():
        if child is not None:
            yield from _modules(child, f"{prefix}{str(name)[:80]}.", depth + 1)


def _part(state: dict[Any, Any], name: str, kind: type) -> Any:
    value = state.get(name, kind())
    if not isinstance(value, kind):
        raise BrokenFile(f"a damaged network: its {name} are of the type {type(value).__name__}")
    return value


def stylegan2_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN2 from the names and shapes of its tensors.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
    """
    try:
        channels = _channels(tensors, r"synthesis\.b(\d{1,6})\.conv1\.weight")
        w_dim = tensors["synthesis.b4.conv1.affine.weight"].shape[1]
        c_dim = tensors["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in tensors else 0
        z_dim = tensors["mapping.fc0.weight"].shape[1] - (w_dim if c_dim else 0)
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a StyleGAN2 without {error}") from error
    if min(w_dim, z_dim) < 1:
        raise BrokenFile(f"no StyleGAN2 has a W of {w_dim} and a z of {z_dim}")
    has_skips = any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", name) for name in tensors)
    heads = sum(name.endswith(".torgb.weight") for name in tensors)
    return {
        "img_resolution": max(channels),
        "z_dim": z_dim,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "mapping_layers": _mapping_layers(tensors),
        "architecture": "resnet" if has_skips else "orig" if heads == 1 else "skip",
        **_base_and_max(channels),
    }


def discriminator_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN2Discriminator from the names and shapes of its tensors.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
    """
    try:
        channels = _channels(tensors, r"b(\d{1,6})\.conv0\.weight") | {4: tensors["b4.conv.weight"].shape[0]}
        c_dim = tensors["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in tensors else 0
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a discriminator without {error}") from error
    arguments = {"img_resolution": max(channels), "c_dim": c_dim, **_base_and_max(channels)}
    return arguments | ({"mapping_layers": _mapping_layers(tensors)} if c_dim else {})


def _channels(tensors: Mapping[str, Tensor], pattern: str) -> dict[int, int]:
    matches = ((re.fullmatch(pattern, name), value) for name, value in tensors.items())
    channels = {int(match[1]): value.shape[0] for match, value in matches if match}
    if not channels or min(channels) < 4 or min(channels.values()) < 1:
        raise BrokenFile(f"no StyleGAN2 has the channels {channels}")
    return channels


def _base_and_max(channels: Mapping[int, int]) -> dict[str, int]:
    """Find the two numbers that give every resolution its channels: the widest layers tell one, the others the other."""
    most = max(channels.values())
    narrow = [resolution * n for resolution, n in channels.items() if n < most]
    return {"channel_base": max(narrow, default=max(channels) * most), "channel_max": most}


def _mapping_layers(tensors: Mapping[str, Tensor]) -> int:
    return sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
