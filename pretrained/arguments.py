"""Which network do tensors belong to? Its constructor arguments, deduced from their names and shapes.

What shapes do not tell (a clamp, a learning rate, a filter's length) comes from the file as *settings*: few, known by name,
and each within bounds, since a file may say anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor

from encoders.irse import GROUP_CHANNELS
from generators.stylegan3 import Band, plan_bands
from pretrained.errors import BrokenFile, ForeignFile
from pretrained.psp import ENCODERS

Tensors = Mapping[str, Tensor]
Settings = Mapping[str, Any]


class Bounds(NamedTuple):
    """What a setting may be."""

    low: float
    high: float
    kind: type = float
    is_optional: bool = False


MAX_LAYERS = 64
"""Styles of a generator; one of 4096 px takes 22."""
_CLAMP = Bounds(1e-6, 2**32, is_optional=True)
_LR_MULTIPLIER = Bounds(1e-9, 1e9)
SETTINGS: dict[str, dict[str, Bounds]] = {
    "StyleGAN2": {"conv_clamp": _CLAMP, "mapping_lr_multiplier": _LR_MULTIPLIER},
    "StyleGAN2 discriminator": {
        "conv_clamp": _CLAMP,
        "mapping_lr_multiplier": _LR_MULTIPLIER,
        "mbstd_group_size": Bounds(1, 4096, int, is_optional=True),
    },
    "StyleGAN3": {
        "conv_clamp": _CLAMP,
        "mapping_lr_multiplier": _LR_MULTIPLIER,
        "num_critical": Bounds(0, 64, int),
        "first_cutoff": Bounds(1e-3, 1e4),
        "first_stopband": Bounds(1e-3, 1e4),
        "last_stopband_rel": Bounds(1e-3, 1e3),
        "margin_size": Bounds(0, 256, int),
        "filter_size": Bounds(1, 64, int),
        "lrelu_upsampling": Bounds(1, 16, int),
        "output_scale": Bounds(-1e6, 1e6),
    },
    "StyleGAN1": {"fused_from": Bounds(4, 65536, int)},
    **{name: {"bars": Bounds(0, 96, int)} for name in ENCODERS},
}
"""Constructor arguments that no shape tells, by architecture."""


def settings_for(architecture: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the settings of an architecture among some values; those that are absent keep the constructor's default.

    Raises:
        BrokenFile: one is out of its bounds.
    """
    bounds = SETTINGS.get(architecture, {})
    return {name: _within(name, values[name], bound) for name, bound in bounds.items() if name in values}


def _within(name: str, value: Any, bounds: Bounds) -> float | int | None:
    if value is None and bounds.is_optional:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not bounds.low <= value <= bounds.high or bounds.kind(value) != value:
        shown = str(value)[:40] if is_number or isinstance(value, str | None) else type(value).__name__
        raise BrokenFile(f"its {name} is {shown!r}: expected a number from {bounds.low:g} to {bounds.high:g}")
    return bounds.kind(value)


def stylegan2_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN2.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
        ForeignFile: it draws something else than RGB.
    """
    try:
        channels = _channels(tensors, r"synthesis\.b(\d{1,6})\.conv1\.weight")
        w_dim = tensors["synthesis.b4.conv1.affine.weight"].shape[1]
        colours = tensors[f"synthesis.b{max(channels)}.torgb.weight"].shape[0]
        mapping = _mapping_arguments(tensors, w_dim)
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a StyleGAN2 without {error}") from error
    if min(w_dim, mapping["z_dim"]) < 1:
        raise BrokenFile(f"no StyleGAN2 has a W of {w_dim} and a z of {mapping['z_dim']}")
    _check_rgb("StyleGAN2", colours)
    _check_filters(tensors)
    has_skips = any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", name) for name in tensors)
    heads = sum(name.endswith(".torgb.weight") for name in tensors)
    arguments = {
        "img_resolution": max(channels),
        "w_dim": w_dim,
        "architecture": "resnet" if has_skips else "orig" if heads == 1 else "skip",
        **mapping,
        **_base_and_max(channels),
    }
    return arguments | dict(settings or {})


def discriminator_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN2Discriminator.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
        ForeignFile: it looks at something else than RGB.
    """
    try:
        out, width, *_ = tensors["b4.conv.weight"].shape
        channels = _channels(tensors, r"b(\d{1,6})\.conv0\.weight") | {4: out}
        colours = tensors[f"b{max(channels)}.fromrgb.weight"].shape[1]
        c_dim = tensors["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in tensors else 0
        label = _mapping_arguments(tensors, tensors["b4.out.weight"].shape[0]) if c_dim else {}
    except (KeyError, IndexError, ValueError) as error:
        raise BrokenFile(f"a discriminator without {error}") from error
    _check_rgb("StyleGAN2 discriminator", colours)
    _check_filters(tensors)
    if c_dim:
        label["cmap_dim"] = tensors["b4.out.weight"].shape[0]
        label.pop("z_dim")
    has_skips = any(re.fullmatch(r"b\d+\.skip\.weight", name) for name in tensors)
    arguments = {
        "img_resolution": max(channels),
        "architecture": "resnet" if has_skips else "skip" if "b4.fromrgb.weight" in tensors else "orig",
        "mbstd_num_channels": max(width - out, 0),
        "c_dim": c_dim,
        **label,
        **_base_and_max(channels),
    }
    return arguments | dict(settings or {})


def stylegan3_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN3; what neither shapes nor settings tell is as published.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
        ForeignFile: it draws something else than RGB.
    """
    settings = dict(settings or {})
    names = {match[0] for name in tensors if (match := re.match(r"synthesis\.L(\d{1,3})_(\d{1,5})_(\d{1,5})\.", name))}
    layers = sorted(tuple(int(n) for n in re.findall(r"\d+", name)) for name in names)
    try:
        w_dim = tensors["synthesis.input.affine.weight"].shape[1]
        mapping = _mapping_arguments(tensors, w_dim)
        kernel_size = tensors[f"synthesis.L0_{layers[0][1]}_{layers[0][2]}.weight"].shape[2]
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a StyleGAN3 without {error}") from error
    num_layers, img_resolution, colours = layers[-1]
    if [n for n, _, _ in layers] != list(range(num_layers + 1)) or not 2 <= num_layers <= 64 or img_resolution < 4:
        raise BrokenFile(f"no StyleGAN3 has {len(layers)} layers that end with number {num_layers} at {img_resolution} px")
    _check_rgb("StyleGAN3", colours)
    plan = {"num_critical": 2, "first_cutoff": 2.0, "first_stopband": 2**2.1, "last_stopband_rel": 2**0.3}
    plan |= {name: value for name, value in settings.items() if name in plan}
    try:
        bands = plan_bands(
            img_resolution, channel_base=1, channel_max=1, num_layers=num_layers, margin_size=0, **cast(Any, plan)
        )
    except (ArithmeticError, ValueError) as error:
        raise BrokenFile(f"no StyleGAN3 has the layers that its settings make: {error}") from error
    # StyleGAN3's mapping network has one width.
    mapping = {name: value for name, value in mapping.items() if name not in ("mapping_features", "embed_features")}
    arguments = {
        "img_resolution": img_resolution,
        "w_dim": w_dim,
        "num_layers": num_layers,
        "margin_size": max(layers[0][1] - bands[0].size, 0) // 2,
        "kernel_size": kernel_size,
        "radial": any(name.endswith(".down_filter") and value.ndim == 2 for name, value in tensors.items()),
        **mapping,
        **_stylegan3_base_and_max(bands, [channels for _, _, channels in layers[:-1]]),
    }
    return arguments | settings


def stylegan1_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a StyleGAN1.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
        ForeignFile: it draws something else than RGB.
    """
    outputs = {
        int(match[1]): value.shape
        for name, value in tensors.items()
        if (match := re.fullmatch(r"synthesis\.output(\d{1,2})\.weight", name)) and value.ndim == 4
    }
    mapping_layers = sum(bool(re.fullmatch(r"mapping\.dense\d+\.weight", name)) for name in tensors)
    try:
        z_dim = tensors["mapping.dense0.weight"].shape[1]
        w_dim = tensors[f"mapping.dense{mapping_layers - 1}.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise BrokenFile(f"a StyleGAN1 without {error}") from error
    if len(outputs) < 2 or sorted(outputs) != list(range(len(outputs))) or min(shape[1] for shape in outputs.values()) < 1:
        raise BrokenFile(f"no StyleGAN1 has colours at the levels {sorted(outputs)}")
    _check_rgb("StyleGAN1", outputs[0][0])
    arguments = {
        "img_resolution": 2 ** (len(outputs) + 1),
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": mapping_layers,
        **_base_and_max({2 ** (level + 2): shape[1] for level, shape in outputs.items()}),
    }
    return arguments | dict(settings or {})


def mobilestylegan_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a MobileStyleGAN, which shapes tell completely.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
    """
    num_blocks = sum(name.endswith(".up_modulation.weight") for name in tensors)
    try:
        channels = [tensors[f"synthesis.blocks.{k}.conv2.pointwise.weight"].shape[0] for k in range(num_blocks)]
        const_channels = tensors["synthesis.const"].shape[1]
        w_dim, z_dim = tensors["mapping.layers.0.weight"].shape
    except (KeyError, IndexError, ValueError) as error:
        raise BrokenFile(f"a MobileStyleGAN without {error}") from error
    # Every block passes a quarter of its input's channels on to its first convolution.
    if min(w_dim, z_dim, *channels) < 1 or min(const_channels, *channels[:-1]) < 4:
        raise BrokenFile(f"no MobileStyleGAN has the channels {const_channels}, {channels} and a W of {w_dim}")
    return {
        "channels": channels,
        "const_channels": const_channels,
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": sum(name.startswith("mapping.layers.") for name in tensors) // 2,
    }


def encoder_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of an encoder of pSp's, e4e's or ReStyle's.

    Raises:
        BrokenFile: a tensor that tells a size is missing, or tells one that no network can have.
    """
    try:
        num_ws, w_dim = tensors["w_avg"].shape
        first = "conv1.weight" if "conv1.weight" in tensors else "input_layer.0.weight"
        in_channels = tensors[first].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise BrokenFile(f"an encoder without {error}") from error
    if not 1 <= num_ws <= MAX_LAYERS or min(w_dim, in_channels) < 1:
        raise BrokenFile(f"no encoder gives {num_ws} styles of {w_dim} for {in_channels} channels")
    return {"num_ws": num_ws, "w_dim": w_dim, "in_channels": in_channels} | dict(settings or {})


def arcface_arguments(tensors: Tensors, settings: Settings | None = None) -> dict[str, Any]:
    """Deduce the constructor arguments of a face network: ArcFace's, CurricularFace's.

    Raises:
        BrokenFile: no face network has such units.
    """
    numbers = sorted(
        int(match[1]) for name in tensors if (match := re.fullmatch(r"body\.(\d{1,4})\.res_layer\.4\.bias", name))
    )
    widths = [tensors[f"body.{number}.res_layer.4.bias"].numel() for number in numbers]
    units = tuple(widths.count(width) for width in GROUP_CHANNELS)
    if numbers != list(range(len(numbers))) or widths != sorted(widths) or not all(units) or sum(units) != len(widths):
        raise BrokenFile(f"no face network has {len(widths)} residual units of {sorted(set(widths))} channels")
    return {
        "units": units,
        "squeeze": "body.0.res_layer.5.fc1.weight" in tensors,
        "affine": "output_layer.4.weight" in tensors,
        **(settings or {}),
    }


ARGUMENTS: dict[str, Callable[[Tensors, Settings], dict[str, Any]]] = {
    "MobileStyleGAN": mobilestylegan_arguments,
    "StyleGAN1": stylegan1_arguments,
    "StyleGAN2": stylegan2_arguments,
    "StyleGAN2 discriminator": discriminator_arguments,
    "StyleGAN3": stylegan3_arguments,
    "ArcFace": arcface_arguments,
    **dict.fromkeys(ENCODERS, encoder_arguments),
}
"""What deduces the constructor arguments, by architecture."""


def _mapping_arguments(tensors: Tensors, w_dim: int) -> dict[str, Any]:
    """Read the widths of a mapping network; those that are w_dim, as is usual, are left to the constructor."""
    num_layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    c_dim = embed = 0
    if "mapping.embed.weight" in tensors:
        embed, c_dim = tensors["mapping.embed.weight"].shape[:2]
    width, *_ = (tensors["mapping.fc0.weight"].shape[1:] if num_layers else (w_dim + embed,)) or (0,)
    arguments = {"z_dim": width - embed, "c_dim": c_dim, "mapping_layers": num_layers}
    if c_dim and embed != w_dim:
        arguments["embed_features"] = embed
    if num_layers > 1 and (features := tensors["mapping.fc0.weight"].shape[0]) != w_dim:
        arguments["mapping_features"] = features
    return arguments


def _check_rgb(what: str, colours: int) -> None:
    if colours != 3:
        raise ForeignFile(f"a {what} of {colours} colour channels, where this toolkit knows images of 3")


def _check_filters(tensors: Tensors) -> None:
    filters = ((name, tuple(value.shape)) for name, value in tensors.items() if name.endswith("resample_filter"))
    if odd := next(((name, shape) for name, shape in filters if shape != (4, 4)), None):
        raise ForeignFile(f"its filter {odd[0]} has the shape {odd[1]}, where this toolkit knows filters of 4x4 taps")


def _channels(tensors: Tensors, pattern: str) -> dict[int, int]:
    matches = ((re.fullmatch(pattern, name), value) for name, value in tensors.items())
    channels = {int(match[1]): value.shape[0] for match, value in matches if match}
    if not channels or min(channels) < 4 or min(channels.values()) < 1:
        raise BrokenFile(f"no StyleGAN2 has the channels {channels}")
    return channels


def _base_and_max(channels: Mapping[int, int]) -> dict[str, int]:
    """Find the two numbers that give every resolution its channels, which are rounded down."""
    return {"channel_base": max(resolution * n for resolution, n in channels.items()), "channel_max": max(channels.values())}


def _stylegan3_base_and_max(bands: list[Band], channels: list[int]) -> dict[str, int]:
    """Find the two numbers that give every layer its channels, which are rounded to the nearest."""
    most = max(channels)
    # A layer's channels are half the base over its cutoff, so each narrow one bounds the base from both sides.
    pairs = list(zip(bands, channels, strict=False))
    low = max(2 * band.cutoff * (n - 0.5) for band, n in pairs)
    high = min((2 * band.cutoff * (n + 0.5) for band, n in pairs if n < most), default=math.inf)
    power = 2 ** math.ceil(math.log2(max(low, 1)))
    return {"channel_base": power if power < high else math.ceil((low + high) / 2), "channel_max": most}
