"""What is in the files of pSp, e4e and ReStyle? An encoder, a decoder in rosinality's names, and the mean of W.

The tensors of pSp's encoder and of e4e's are alike and mean another thing: which of them it is stands in the options of the
training, if anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoders.e4e import Encoder4Editing
from encoders.psp import (
    BackboneEncoderUsingLastLayerIntoW,
    BackboneEncoderUsingLastLayerIntoWPlus,
    GradualStyleEncoder,
    PublishedEncoder,
)
from encoders.restyle import (
    BackboneEncoder,
    ProgressiveBackboneEncoder,
    ResNetBackboneEncoder,
    ResNetProgressiveBackboneEncoder,
)
from pretrained.errors import BrokenFile, ForeignFile
from pretrained.pickles import Record
from pretrained.torchfiles import PREFIXES, TensorRecord, state_dict

ENCODERS: dict[str, type[PublishedEncoder]] = {
    "GradualStyleEncoder": GradualStyleEncoder,
    "BackboneEncoderUsingLastLayerIntoW": BackboneEncoderUsingLastLayerIntoW,
    "BackboneEncoderUsingLastLayerIntoWPlus": BackboneEncoderUsingLastLayerIntoWPlus,
    "Encoder4Editing": Encoder4Editing,
    "BackboneEncoder": BackboneEncoder,
    "ProgressiveBackboneEncoder": ProgressiveBackboneEncoder,
    "ResNetBackboneEncoder": ResNetBackboneEncoder,
    "ResNetProgressiveBackboneEncoder": ResNetProgressiveBackboneEncoder,
}
"""By the names that their projects have for them."""
METHODS = {
    "psp": ("GradualStyleEncoder", "BackboneEncoderUsingLastLayerIntoW", "BackboneEncoderUsingLastLayerIntoWPlus"),
    "e4e": ("Encoder4Editing", "BackboneEncoderUsingLastLayerIntoW"),
    "restyle": (
        "BackboneEncoder",
        "ProgressiveBackboneEncoder",
        "ResNetBackboneEncoder",
        "ResNetProgressiveBackboneEncoder",
        "GradualStyleEncoder",
    ),
    "restyle-psp": ("BackboneEncoder", "ResNetBackboneEncoder", "GradualStyleEncoder"),
    "restyle-e4e": ("ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder"),
}
"""Which of them a method may mean."""
PYRAMID, RESTYLE = ("GradualStyleEncoder", "Encoder4Editing"), ("BackboneEncoder", "ProgressiveBackboneEncoder")
RESNET = ("ResNetBackboneEncoder", "ResNetProgressiveBackboneEncoder")
"""Pairs that are alike in their tensors: without deltas, and with them."""
E4E_OPTIONS = {"progressive_steps", "progressive_start", "delta_norm_lambda", "stylegan_size", "w_discriminator_lambda"}
PSP_OPTIONS = {"learn_in_w", "output_size", "label_nc", "input_nc", "n_iters_per_batch"}
ROLES = ("decoder", "encoder")
_FRONT = f"(?:{'|'.join(map(re.escape, PREFIXES))})*"
_PART = re.compile(rf"{_FRONT}({'|'.join(ROLES)})\.{_FRONT}(.+)")
"""The whole network may have been wrapped, or one of its parts."""
_SIGNS = (("decoder", "to_rgb1.conv.weight"), ("encoder", "input_layer.0.weight"))
"""Tensors that tell a bare state dict of theirs from others with an encoder or a decoder."""
CAR_BARS = 32
"""Of 256 rows: e4e and ReStyle show their encoders the other 192 of a car (``utils/inference_utils.py`` of ReStyle)."""
W_DIM, RESOLUTION = 512, 1024
"""Where nothing tells them, as their projects have it."""


def parts_of(value: Any) -> dict[str, dict[str, TensorRecord]]:
    """Return the tensors of decoder and encoder, of those that the file holds; it may be a state dict and nothing else."""
    state = value.get("state_dict", value) if isinstance(value, dict) else None
    parts: dict[str, dict[str, TensorRecord]] = {}
    for name, record in state.items() if isinstance(state, dict) else ():
        if isinstance(name, str) and isinstance(record, TensorRecord) and (match := _PART.fullmatch(name)):
            parts.setdefault(match[1], {})[match[2]] = record
    if state is value and not any(name in parts.get(role, {}) for role, name in _SIGNS):
        return {}
    return {role: parts[role] for role in ROLES if role in parts}


def options_of(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the options of the training, if the file has some."""
    options = value.get("opts")
    if isinstance(options, Record):
        options = options.state
    return {name: option for name, option in options.items() if isinstance(name, str)} if isinstance(options, dict) else {}


def family_of(value: Mapping[Any, Any]) -> str:
    """Name the project that a file is from, as far as its options tell."""
    options = options_of(value)
    if "n_iters_per_batch" in options:
        return "ReStyle"
    if options.keys() & E4E_OPTIONS:
        return "e4e"
    return "pSp" if options else "pSp, e4e or ReStyle"


def bars_of(options: Mapping[str, Any]) -> int:
    """Return how many rows above and below an encoder leaves out, where its generator draws black bars."""
    return CAR_BARS if options.get("dataset_type") == "cars_encode" else 0


def read_encoder(
    value: Mapping[Any, Any], size: int, decoder: Callable[[], Mapping[str, Tensor]] | None
) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Read the encoder of a file.

    Args:
        value: what the file holds.
        size: of the file, in bytes.
        decoder: reads its tensors, if there is one; called where the file lacks the mean of W.

    Returns:
        A key of ``ENCODERS``, or two of them joined by " or " where nothing tells which it is; its tensors, ``w_avg`` among
        them; and what had to be made up.

    Raises:
        ForeignFile: an encoder that this toolkit has no network for.
        BrokenFile: it is damaged.
    """
    options, parts = options_of(value), parts_of(value)
    tensors = {name: _single(tensor) for name, tensor in state_dict(parts["encoder"], size).items()}
    architecture, notes = encoder_architecture(tensors, options), tuple[str, ...]()
    latent_avg = value.get("latent_avg")
    if options.get("start_from_latent_avg") is False and not {*architecture.split(" or ")} <= {*RESTYLE, *RESNET}:
        bias = tensors.get("styles.0.linear.bias", tensors.get("linear.bias"))
        rows = torch.zeros(1, W_DIM if bias is None or architecture.endswith("WPlus") else bias.numel())
    elif isinstance(latent_avg, TensorRecord):
        rows = _rows(state_dict({"latent_avg": latent_avg}, size))
    elif decoder is not None:
        rows, notes = decoder()["mapping.w_avg"][None], ("latent_avg is absent: the decoder's mean of W is taken",)
    else:
        raise BrokenFile("an encoder without latent_avg, which its codes are counted from, and without a decoder to draw it")
    num_ws = _num_layers(tensors, rows.shape[1], parts.get("decoder", {}), options)
    if rows.shape[0] not in (1, num_ws):
        raise BrokenFile(f"its latent_avg has {rows.shape[0]} rows, and its encoder gives {num_ws} styles")
    return architecture, tensors | {"w_avg": rows.expand(num_ws, -1).clone()}, notes


def encoder_architecture(names: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Name the network that an encoder's tensors belong to, by their names and the training's options.

    Returns:
        A key of ``ENCODERS``, or two of them joined by " or " where neither names nor options tell which it is.

    Raises:
        ForeignFile: none that this toolkit has.
    """
    if is_resnet := "conv1.weight" in names and "body.0.conv1.weight" in names:
        if "styles.0.linear.weight" not in names or "latlayer1.weight" in names:
            raise ForeignFile("an encoder on ResNet-34 that is none of the published ones")
    elif "input_layer.0.weight" not in names:
        raise ForeignFile("an unknown encoder")
    elif "styles.0.linear.weight" not in names:
        is_wide = "output_layer_2.3.weight" in names
        return f"BackboneEncoderUsingLastLayerInto{'WPlus' if is_wide else 'W'}"
    alike = RESNET if is_resnet else PYRAMID if "latlayer1.weight" in names else RESTYLE
    if options.get("encoder_type") in alike:
        return str(options["encoder_type"])
    if options.keys() & E4E_OPTIONS:
        return alike[1]
    return alike[0] if options.keys() & PSP_OPTIONS else " or ".join(alike)


def choose(candidates: Sequence[str], method: str | None) -> str:
    """Choose between encoders that are alike by the method that the user asks for.

    Args:
        candidates: what the file may hold.
        method: a key of ``METHODS``, or None.

    Raises:
        ForeignFile: it holds another method's encoder, or still may hold two.
    """
    fitting = [name for name in candidates if method is None or name in METHODS[method]]
    if len(fitting) == 1:
        return fitting[0]
    methods = [name for name, members in METHODS.items() if len(set(members) & set(candidates)) == 1]
    advice = f"use the method {' or '.join(methods)}"
    if not fitting:
        raise ForeignFile(f"its encoder is {' or '.join(candidates)}, which is not one of {method}: {advice}")
    raise ForeignFile(
        f"nothing in it tells whether its encoder is {' or '.join(candidates)}, whose tensors are alike: {advice}"
    )


def _num_layers(tensors: Mapping[str, Tensor], w_dim: int, decoder: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Return how many styles an encoder gives: by its heads, or by the generator where one head serves all layers."""
    if heads := sum(bool(re.fullmatch(r"styles\.\d+\.linear\.weight", name)) for name in tensors):
        return heads
    if "output_layer_2.3.weight" in tensors and "linear.bias" in tensors:
        return tensors["linear.bias"].numel() // max(1, w_dim)
    if blocks := sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in decoder):
        return 2 * blocks + 2
    side = options.get("stylegan_size", options.get("output_size", RESOLUTION))
    return 2 * side.bit_length() - 4 if type(side) is int and 4 <= side <= 2**16 else 0


def _rows(tensors: Mapping[str, Tensor]) -> Float[Tensor, "rows w_dim"]:
    latent_avg = tensors["latent_avg"].float()
    while latent_avg.ndim > 2 and latent_avg.shape[0] == 1:
        latent_avg = latent_avg[0]
    if latent_avg.numel() == 0 or latent_avg.ndim not in (1, 2):
        raise BrokenFile(
            f"its latent_avg has the shape {tuple(latent_avg.shape)}: expected one style, or one for every layer"
        )
    return latent_avg.reshape(-1, latent_avg.shape[-1])


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
