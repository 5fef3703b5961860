"""What is this file? Recognised by its content, never by its suffix, and read without running anything of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.stylegan2 import MappingNetwork
from pretrained import nvidia, psp, rosinality, safetensors, stylegan1
from pretrained.arguments import settings_for, stylegan2_arguments
from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle
from pretrained.pickles import Record, unpickle
from pretrained.torchfiles import (
    MAGIC,
    PREFIXES,
    READERS,
    TensorRecord,
    map_file,
    read_torch_stream,
    read_torch_zip,
    state_dict,
)

GENERATORS = ("G_ema", "g_ema", "generator_smooth", "generator", "decoder", "G", "g")
"""Roles of generators, the preferred first: moving averages draw better than what was trained."""
DISCRIMINATORS = ("D", "d", "discriminator")
W_AVG_SAMPLES = 16384
"""How many z the mean of W is taken over where a file lacks it: its error is then below 1 % of W's spread."""
MAX_WIDTH = 4096
"""Of z and W where codes must be drawn to read a file."""
WRAPPERS = ("models", "state_dict", "model", "params_ema", "params")
"""Entries that hold all that matters of a training file."""
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
    contents: Mapping[str, str] = field(default_factory=dict)
    """Everything that it holds, in words, by name."""

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
        if head.lstrip()[:1] == b"<" or head.startswith(tuple(safetensors.PICTURES)):
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
    "synthesis.early_layer.const": "StyleGAN2 of genforce's",
    "mapping.dense0.linear.weight": "StyleGAN1 of InterFaceGAN's",
    "truncation.w_avg": "StyleGAN1 of genforce's",
    "synthesis.layer0.apply_noise.weight": "StyleGAN1",
    "output_layer.3.weight": "ArcFace",
    "encoder.input_layer.0.weight": "an encoder of pSp, e4e or ReStyle without its generator",
    "input0.weight": "StyleGAN1 or ProGAN discriminator of genforce's",
    "layer0.wscale.bias": "ProGAN of InterFaceGAN's",
    "layer0.weight": "ProGAN of genforce's",
}
"""Tensors that only one network has."""


def _from_safetensors(path: Path) -> Checkpoint:
    tensors, card = safetensors.load(path)
    latent_avg = tensors.pop("latent_avg", None)
    arguments = card.get("arguments")
    settings = arguments if isinstance(arguments, dict) else {}
    readers = {role: _reader(part, settings, path, None, latent_avg) for role, part in _by_role(tensors).items()}
    return Checkpoint(path, "safetensors", readers, card)


def _by_role(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Part tensors by the role in front of their names; those without one are a generator's."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        role, _, rest = name.partition(".")
        is_role = role in (*GENERATORS, *DISCRIMINATORS)
        parts.setdefault(role if is_role else "generator", {})[rest if is_role else name] = value
    return parts


def _recognise(path: Path, container: str, value: Any, size: int) -> Checkpoint:
    """Find the networks in what a file holds."""
    readers: dict[str, Callable[[], Weights]] = {}
    kind = "weights without a known origin"
    if networks := nvidia.networks(value):
        kind = "NVIDIA's" if isinstance(value, dict) else "a network of NVIDIA's that was saved by itself, as PTI does"
        for role, network in networks.items():
            readers[role] = _module_reader(network, path, size)
    elif parts := psp.parts_of(value):
        kind = f"{psp.family_of(value)}'s {' and '.join(sorted(parts, reverse=True))}"
        if "decoder" in parts:
            readers["decoder"] = _reader(parts["decoder"], {}, path, size, value.get("latent_avg"))
        if "encoder" in parts:
            readers["encoder"] = _encoder_reader(value, size, readers.get("decoder"))
    elif isinstance(value, dict):
        latent_avg = value.get("latent_avg")
        parts = _states(value)
        if parts.keys() & {"g_ema", "g"}:
            kind = "rosinality's"
        elif "generator_smooth" in parts:
            kind = "genforce's"
        readers |= {role: _reader(part, {}, path, size, latent_avg) for role, part in parts.items()}
    if not readers:
        raise BrokenFile(f"a {container} that holds no network")
    return Checkpoint(path, f"{container}, {kind}", readers, contents=_contents(value))


def _states(value: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """Find state dicts by their roles, or one that stands alone, also where a training file wraps them."""
    for _ in WRAPPERS:
        parts = {role: _stripped(value[role]) for role in (*GENERATORS, *DISCRIMINATORS) if _is_state(value.get(role))}
        if parts:
            return parts
        inner = next((value[name] for name in WRAPPERS if isinstance(value.get(name), dict)), None)
        if inner is None:
            break
        value = inner
    if not _is_state(value):
        return {}
    state = _stripped(value)
    return {"face" if "output_layer.3.weight" in state else "generator": state}


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, TensorRecord) for item in value.values())


def _stripped(state: dict[Any, Any]) -> dict[str, Any]:
    """Take off what is in front of every name."""
    state = {name: value for name, value in state.items() if isinstance(name, str)}
    for prefix in PREFIXES * 2:  # One may be inside the other.
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _contents(value: Any) -> dict[str, str]:
    """Say in a few words what each entry of a file is."""
    return {str(name)[:80]: _in_words(entry) for name, entry in value.items()} if isinstance(value, dict) else {}


def _in_words(entry: Any) -> str:
    if isinstance(entry, Record):
        is_network = isinstance(entry.state, dict) and "_modules" in entry.state
        return (
            "a network" if is_network else f"{entry.name[:40]} of {len(entry.state) if isinstance(entry.state, dict) else 0}"
        )
    if isinstance(entry, TensorRecord):
        return f"a tensor {entry.size}"
    if isinstance(entry, dict):
        tensors = sum(isinstance(item, TensorRecord) for item in entry.values())
        return f"{tensors} tensors" if tensors else f"{len(entry)} entries"
    return "nothing" if entry is None else f"of the type {type(entry).__name__}"


def _module_reader(network: Record, path: Path, size: int) -> Callable[[], Weights]:
    """Return what reads a network of NVIDIA's: its modules are looked at when it is asked for."""

    def read() -> Weights:
        records, settings = nvidia.flatten(network)
        return _reader(records, settings, path, size)()

    return read


def _reader(
    values: Mapping[Any, Any], settings: Mapping[Any, Any], path: Path, size: int | None = None, latent_avg: Any = None
) -> Callable[[], Weights]:
    """Return what reads one network: its tensors in single precision, under the names that they have here."""

    def read() -> Weights:
        architecture = architecture_of(values)
        tensors = dict(values) if size is None else state_dict(values, size)
        tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        if architecture == "rosinality discriminator":
            tensors = rosinality.discriminator_from_rosinality(tensors, str(path))
            return Weights("StyleGAN2 discriminator", tensors, settings_for("StyleGAN2 discriminator", settings))
        if architecture == "rosinality generator":
            mean = latent_avg.tensor() if isinstance(latent_avg, TensorRecord) else latent_avg
            return _from_rosinality(tensors, mean if isinstance(mean, Tensor) else None, path)
        if (rename := _STYLEGAN1.get(architecture)) is not None:
            tensors, found = rename(tensors)
            return Weights("StyleGAN1", tensors, found)
        found = settings_for(architecture, settings)
        silent = nvidia.without_noise(tensors) if architecture == "StyleGAN2" else {}
        notes = ("it was trained without noise: it gets some of strength 0",) if silent else ()
        return Weights(architecture, tensors | silent, found, notes)

    return read


def _encoder_reader(value: Mapping[Any, Any], size: int, decoder: Callable[[], Weights] | None) -> Callable[[], Weights]:
    """Return what reads the encoder of a file of pSp, e4e or ReStyle."""

    def read() -> Weights:
        mapping = None if decoder is None else lambda: decoder().tensors
        architecture, tensors, notes = psp.read_encoder(value, size, mapping)
        return Weights(architecture, tensors, {"bars": psp.bars_of(psp.options_of(value))}, notes)

    return read


_STYLEGAN1 = {
    "StyleGAN1 of genforce's": stylegan1.from_genforce,
    "StyleGAN1 of InterFaceGAN's": stylegan1.from_interfacegan,
}


def _from_rosinality(tensors: Mapping[str, Tensor], latent_avg: Tensor | None, path: Path) -> Weights:
    """Rename a generator of rosinality's, and put the mean of W in, which lies beside it."""
    renamed, notes = rosinality.generator_from_rosinality(tensors, str(path))
    if latent_avg is not None and latent_avg.numel():
        # pSp and e4e repeat the mean for every layer.
        rows = torch.atleast_2d(latent_avg.float()).flatten(0, -2)
        is_repeated = torch.equal(rows, rows[:1].expand_as(rows))
        renamed["mapping.w_avg"] = rows[0] if is_repeated else rows.mean(0)
        notes += [] if is_repeated else ["latent_avg differs from layer to layer: its mean is taken"]
    else:
        notes.append(f"latent_avg is absent: the mean of {W_AVG_SAMPLES} drawn codes is taken")
        renamed["mapping.w_avg"] = _mean_w(renamed)
    return Weights("StyleGAN2", renamed, {}, tuple(notes))


def _mean_w(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of W over many z with a fixed seed."""
    layers = {name.removeprefix("mapping."): value for name, value in tensors.items() if name.startswith("mapping.")}
    arguments = stylegan2_arguments(tensors)
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
