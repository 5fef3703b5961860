"""What is in NVIDIA's files? Networks as trees of records, flattened to tensors under the names that the code gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pretrained.errors import BrokenFile, ForeignFile
from pretrained.pickles import Record
from pretrained.torchfiles import TensorRecord

NETWORKS = ("G_ema", "G", "D")
MAX_MODULES = 2000
"""A network at 1024 px has about 150."""
MAX_DEPTH = 12
MAX_SIDE = 4096
"""Of images in pixels."""
LINEAR = ("affine", "embed", "out", "skip")
"""Layers that nothing bends, by the last part of their names."""
ATTRIBUTES = (
    (r".*", "conv_clamp", "conv_clamp"),
    (r"mapping\.fc0\.", "bias_gain", "mapping_lr_multiplier"),
    (r"b4\.mbstd\.", "group_size", "mbstd_group_size"),
    (r"synthesis\.", "num_critical", "num_critical"),
    (r"synthesis\.", "margin_size", "margin_size"),
    (r"synthesis\.", "output_scale", "output_scale"),
    (r"synthesis\.input\.", "bandwidth", "first_cutoff"),
)
"""Settings that modules keep as attributes: whose, under which name, and what they are called here."""
KEYWORDS = ("first_stopband", "last_stopband_rel", "filter_size", "lrelu_upsampling")
"""Settings of StyleGAN3 that only the arguments of its construction tell."""


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
        ForeignFile: its layers bend in a way that this toolkit does not know.
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
        _check_activation(prefix, state)
        settings = _settings(prefix, state) | settings
    return tensors, settings


def _settings(prefix: str, state: Mapping[Any, Any]) -> dict[str, Any]:
    found = {
        setting: state[attribute]
        for pattern, attribute, setting in ATTRIBUTES
        if attribute in state and re.fullmatch(pattern, prefix)
    }
    keywords = state.get("_init_kwargs")
    if prefix == "synthesis." and isinstance(keywords, dict):
        found |= {name: keywords[name] for name in KEYWORDS if name in keywords}
    return found


def _check_activation(prefix: str, state: Mapping[Any, Any]) -> None:
    *_, name = prefix.rstrip(".").split(".")
    expected = "linear" if name in LINEAR else "lrelu"
    if (found := state.get("activation", expected)) != expected:
        shown = found[:20] if isinstance(found, str) else type(found).__name__
        raise ForeignFile(f"its layer {prefix[:80]} bends with {shown!r}, where this toolkit knows {expected!r}")


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


def without_noise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return silent noise for a StyleGAN2 that was trained without any, and has no tensors for it."""
    convs = re.compile(r"synthesis\.b(\d{1,6})\.conv[01]\.weight")
    found = {name: int(match[1]) for name in tensors if (match := convs.fullmatch(name))}
    if (
        any(name.endswith((".noise_const", ".noise_strength")) for name in tensors)
        or max(found.values(), default=0) > MAX_SIDE
    ):
        return {}
    silent: dict[str, Tensor] = {}
    for name, side in found.items():
        layer = name.removesuffix("weight")
        silent |= {f"{layer}noise_const": torch.zeros(side, side), f"{layer}noise_strength": torch.zeros([])}
    return silent
