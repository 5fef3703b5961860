"""What is this file? Recognised by its content, never by its suffix, and read without running anything of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.stylegan2 import MappingNetwork
from pretrained import nvidia, psp, rosinality, safetensors
from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle
from pretrained.pickles import unpickle
from pretrained.torchfiles import MAGIC, READERS, TensorRecord, map_file, read_torch_stream, read_torch_zip, state_dict

GENERATORS = ("G_ema", "g_ema", "generator_smooth", "generator", "decoder", "G", "g")
"""Roles of generators, the preferred first: moving averages draw better than what was trained."""
DISCRIMINATORS = ("D", "d", "discriminator")
W_AVG_SAMPLES = 16384
"""How many z the mean of W is taken over where a file lacks it: its error is then below 1 % of W's spread."""
MAX_WIDTH = 4096
"""Of z and W where codes must be drawn to read a file."""
MAX_HEADER = 100_000_000
"""Of safetensors, as its specification has it."""


@dataclass(frozen=True)
class Weights:
    """One network of a file, under this toolkit's names."""

    architecture: str
    """A key of ``pretrained.loading.ARCHITECTURES``."""
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments that the shapes do not tell."""
    notes: tuple[str, ...] = ()
    """What had to be made up."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that was recognised."""

    path: Path
    kind: str
    """What it is, in words."""
    readers: Mapping[str, Callable[[], Weights]]
    """One for every network, by its role in the file."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """What a file of this toolkit says about itself."""

    def read(self, role: str) -> Weights:
        """Read a network.

        Raises:
            BrokenFile: it is damaged.
            CheckpointMismatch: its names are not all there.
        """
        with _Named(self.path):
            return self.readers[role]()

    def role(self, roles: tuple[str, ...]) -> str | None:
        """Return the first of some roles that the file has."""
        return next((role for role in roles if role in self.readers), None)


class _Named:
    """Puts the path in front of errors about a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenFile) and not str(error).startswith(str(self.path)):
            raise type(error)(f"{self.path}: {error}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Recognise a file of weights: safetensors, PyTorch's two containers, NVIDIA's pickles.

    Raises:
        UnsafePickle: it wants to run something; the message names it.
        ForeignFile: a sound file that cannot be used here; the message says what it is.
        BrokenFile: no file of weights, or a damaged one; the message says what it looks like.
    """
    with _Named(path):
        data = map_file(path)
        head = bytes(data[:16])
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER:
            return _from_safetensors(path)
        if head[:4] == b"PK\x03\x04":
            return _recognise(path, "PyTorch file", read_torch_zip(path, data), len(data))
        if head.lstrip()[:1] == b"<":
            raise BrokenFile(safetensors.looks_like(path))
        try:
            value, _ = unpickle(data, READERS)
        except (UnsafePickle, ForeignFile):
            raise
        except BrokenFile as error:
            raise BrokenFile(f"{safetensors.looks_like(path)}, and cannot be read as one ({error})") from error
        if value == MAGIC:
            return _recognise(path, "PyTorch file of before version 1.6", read_torch_stream(data, READERS), len(data))
        return _recognise(path, "pickle", value, len(data))


def architecture_of(names: Mapping[str, Any]) -> str:
    """Name the network that tensors belong to, by their names.

    Raises:
        ForeignFile: a network that is known, but cannot be used here.
        BrokenFile: none that is known.
    """
    for name, architecture in _SIGNS.items():
        if name in names:
            return architecture
    raise BrokenFile("no generator that this version can read: its tensors have other names")


_SIGNS = {
    "synthesis.blocks.0.up_modulation.weight": "MobileStyleGAN",
    "synthesis.b4.const": "StyleGAN2",
    "synthesis.b4.conv1.weight": "StyleGAN2",
    "b4.out.weight": "StyleGAN2 discriminator",
    "to_rgb1.conv.weight": "rosinality generator",
    "final_linear.1.weight": "rosinality discriminator",
    "synthesis.input.freqs": "StyleGAN3",
    "mapping.dense0.linear.weight": "StyleGAN1 (InterFaceGAN)",
    "synthesis.layer0.apply_noise.weight": "StyleGAN1 (genforce)",
    "synthesis.early_layer.const": "StyleGAN2 (genforce)",
}
"""Tensors that only one network has."""


def _from_safetensors(path: Path) -> Checkpoint:
    tensors, card = safetensors.load(path)
    prefix = "discriminator."
    parts = {
        "generator": {name: value for name, value in tensors.items() if not name.startswith(prefix)},
        "discriminator": {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)},
    }
    arguments = card.get("arguments")
    settings = nvidia.settings_of(arguments) if isinstance(arguments, dict) else {}
    readers = {role: _reader(part, settings, path) for role, part in parts.items() if part}
    return Checkpoint(path, "safetensors", readers, card)


def _recognise(path: Path, container: str, value: Any, size: int) -> Checkpoint:
    """Find the networks in what a file holds."""
    readers: dict[str, Callable[[], Weights]] = {}
    kind = "weights without a known origin"
    if networks := nvidia.networks(value):
        kind = "NVIDIA's" if isinstance(value, dict) else "a network of NVIDIA's that was saved by itself, as PTI does"
        for role, network in networks.items():
            records, settings = nvidia.flatten(network)
            readers[role] = _reader(records, settings, path, size)
    elif (decoder := psp.decoder_of(value)) is not None:
        kind = f"{psp.family_of(value)}'s encoder and decoder"
        readers["decoder"] = _reader(decoder, {}, path, size, value.get("latent_avg"))
    elif isinstance(value, dict):
        parts = {role: value[role] for role in (*GENERATORS, *DISCRIMINATORS) if _is_state(value.get(role))}
        if "g_ema" in parts or "g" in parts:
            kind = "rosinality's"
        elif not parts and _is_state(value):
            parts = {"generator": value}
        for role, part in parts.items():
            readers[role] = _reader(part, {}, path, size, value.get("latent_avg"))
    if not readers:
        raise BrokenFile(f"a {container} that holds no network")
    return Checkpoint(path, f"{container}, {kind}", readers)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, TensorRecord) for item in value.values())


def _reader(
    values: Mapping[Any, Any], settings: Mapping[str, Any], path: Path, size: int | None = None, latent_avg: Any = None
) -> Callable[[], Weights]:
    """Return what reads one network: its tensors in single precision, renamed where they are rosinality's."""

    def read() -> Weights:
        architecture = architecture_of(values)
        tensors = dict(values) if size is None else state_dict(values, size)
        tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        if architecture == "rosinality discriminator":
            renamed = rosinality.discriminator_from_rosinality(tensors, str(path))
            return Weights("StyleGAN2 discriminator", renamed)
        if architecture != "rosinality generator":
            return Weights(architecture, tensors, dict(settings))
        renamed, notes = rosinality.generator_from_rosinality(tensors, str(path))
        if isinstance(latent_avg, TensorRecord) and latent_avg.size:
            # pSp and e4e repeat the mean for every layer.
            rows = latent_avg.tensor().float().reshape(-1, latent_avg.size[-1])
            is_repeated = torch.equal(rows, rows[:1].expand_as(rows))
            renamed["mapping.w_avg"] = rows[0] if is_repeated else rows.mean(0)
            notes += [] if is_repeated else ["latent_avg differs from layer to layer: its mean is taken"]
        else:
            notes.append(f"latent_avg is absent: the mean of {W_AVG_SAMPLES} drawn codes is taken")
            renamed["mapping.w_avg"] = _mean_w(renamed)
        return Weights("StyleGAN2", renamed, {}, tuple(notes))

    return read


def _mean_w(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of W over many z with a fixed seed."""
    layers = {name.removeprefix("mapping."): value for name, value in tensors.items() if name.startswith("mapping.")}
    arguments = nvidia.stylegan2_arguments(tensors)
    z_dim, w_dim = arguments["z_dim"], arguments["w_dim"]
    if max(z_dim, w_dim) > MAX_WIDTH:
        raise BrokenFile(f"no StyleGAN2 has a W of {w_dim} and a z of {z_dim}")
    try:
        with torch.device("meta"):
            mapping = MappingNetwork(z_dim, 0, w_dim, None, arguments["mapping_layers"])
        mapping.load_state_dict(layers, assign=True)
    except RuntimeError as error:
        raise BrokenFile(f"a mapping network of impossible shapes: {str(error)[:200]}") from error
    random, total = torch.Generator().manual_seed(0), torch.zeros(w_dim, dtype=torch.float64)
    with torch.inference_mode():
        for _ in range(W_AVG_SAMPLES // 1024):
            total = total + mapping.w(torch.randn(1024, z_dim, generator=random)).double().sum(0)
    return (total / W_AVG_SAMPLES).float()
