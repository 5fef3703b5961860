"""How do rosinality's names become NVIDIA's, and back? As data: rows of names, and the axes of length 1 that come or go.

No weight is flipped or scaled. Only the resampling filters differ: rosinality keeps them times 4, beside fewer layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.stylegan2 import fir
from pretrained.errors import BrokenFile, CannotConvert, CheckpointMismatch

NOISE_SEED = 0
"""Of noise constants for files from before they were saved."""


MAX_RESOLUTIONS = 11
"""From 4 to 4096 px."""


@dataclass(frozen=True)
class Row:
    """One tensor under its two names."""

    theirs: str
    """rosinality's."""
    ours: str
    """NVIDIA's."""
    lead: int = 0
    """Axes of length 1 that theirs has in front."""
    trail: int = 0
    """And behind."""


def generator_rows(num_resolutions: int, mapping_layers: int) -> list[Row]:
    """Return the map of a generator's names, without filters and without the mean of W, which is not in its state dict."""
    rows = [
        Row(f"style.{i + 1}.{kind}", f"mapping.fc{i}.{kind}") for i in range(mapping_layers) for kind in ("weight", "bias")
    ]
    rows += [Row("input.input", "synthesis.b4.const", lead=1)]
    for k in range(num_resolutions):
        block = f"synthesis.b{4 * 2**k}"
        for conv in ("conv0", "conv1") if k else ("conv1",):
            number = 2 * k - 2 + (conv == "conv1")
            theirs, ours = (f"convs.{number}" if k else "conv1"), f"{block}.{conv}"
            rows += _styled(theirs, ours)
            rows += [
                Row(f"{theirs}.noise.weight", f"{ours}.noise_strength", lead=1),
                Row(f"{theirs}.activate.bias", f"{ours}.bias"),
                Row(f"noises.noise_{number + 1 if k else 0}", f"{ours}.noise_const", lead=2),
            ]
        theirs, ours = (f"to_rgbs.{k - 1}" if k else "to_rgb1"), f"{block}.torgb"
        rows += [*_styled(theirs, ours), Row(f"{theirs}.bias", f"{ours}.bias", lead=1, trail=2)]
    return rows


def _styled(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.conv.weight", f"{ours}.weight", lead=1),
        Row(f"{theirs}.conv.modulation.weight", f"{ours}.affine.weight"),
        Row(f"{theirs}.conv.modulation.bias", f"{ours}.affine.bias"),
    ]


def discriminator_rows(num_resolutions: int) -> list[Row]:
    """Return the map of a discriminator's names, without filters."""
    top = f"b{2 ** (num_resolutions + 1)}"
    rows = [Row("convs.0.0.weight", f"{top}.fromrgb.weight"), Row("convs.0.1.bias", f"{top}.fromrgb.bias")]
    for k in range(1, num_resolutions):
        theirs, ours = f"convs.{k}", f"b{2 ** (num_resolutions + 2 - k)}"
        rows += [
            Row(f"{theirs}.conv1.0.weight", f"{ours}.conv0.weight"),
            Row(f"{theirs}.conv1.1.bias", f"{ours}.conv0.bias"),
            Row(f"{theirs}.conv2.1.weight", f"{ours}.conv1.weight"),
            Row(f"{theirs}.conv2.2.bias", f"{ours}.conv1.bias"),
            Row(f"{theirs}.skip.1.weight", f"{ours}.skip.weight"),
        ]
    rows += [Row("final_conv.0.weight", "b4.conv.weight"), Row("final_conv.1.bias", "b4.conv.bias")]
    for k, name in enumerate(("fc", "out")):
        rows += [Row(f"final_linear.{k}.{kind}", f"b4.{name}.{kind}") for kind in ("weight", "bias")]
    return rows


def generator_filters(num_resolutions: int) -> tuple[dict[str, float], list[str]]:
    """Return theirs with their factors, and ours."""
    theirs: dict[str, float] = {}
    ours = ["synthesis.b4.resample_filter", "synthesis.b4.conv1.resample_filter"]
    for k in range(num_resolutions - 1):
        theirs |= {f"convs.{2 * k}.conv.blur.kernel": 4.0, f"to_rgbs.{k}.upsample.kernel": 4.0}
        ours += [f"synthesis.b{8 * 2**k}{layer}.resample_filter" for layer in ("", ".conv0", ".conv1")]
    return theirs, ours


def discriminator_filters(num_resolutions: int) -> tuple[dict[str, float], list[str]]:
    """Return theirs with their factors, and ours."""
    theirs: dict[str, float] = {}
    ours = ["b4.conv.resample_filter", f"b{2 ** (num_resolutions + 1)}.fromrgb.resample_filter"]
    for k in range(1, num_resolutions):
        theirs |= {f"convs.{k}.conv2.0.kernel": 1.0, f"convs.{k}.skip.0.kernel": 1.0}
        layers = ("", ".conv0", ".conv1", ".skip")
        ours += [f"b{2 ** (num_resolutions + 2 - k)}{layer}.resample_filter" for layer in layers]
    return theirs, ours


def generator_from_rosinality(tensors: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], list[str]]:
    """Rename a generator's tensors to NVIDIA's names; return also what had to be made up.

    The mean of W is none of them: it lies beside them in the file.

    Raises:
        CheckpointMismatch: missing or unexpected tensors, or of another number of axes; their names are rosinality's.
        BrokenFile: its filters are not StyleGAN2's.
    """
    # One to_rgbs for every resolution from 8 px on.
    num_resolutions = _count(tensors, r"to_rgbs\.\d+\.bias", what)
    mapping_layers = sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in tensors)
    notes, given = [], dict(tensors)
    if not any(name.startswith("noises.") for name in tensors):
        notes.append(f"noise constants are absent, and drawn with the seed {NOISE_SEED}")
        random = torch.Generator().manual_seed(NOISE_SEED)
        for i in range(2 * num_resolutions - 1):
            side = 2 ** ((i + 5) // 2)
            given[f"noises.noise_{i}"] = torch.randn(1, 1, side, side, generator=random)
    rows, filters = generator_rows(num_resolutions, mapping_layers), generator_filters(num_resolutions)
    return _from_theirs(given, rows, filters, what), notes


def discriminator_from_rosinality(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Rename a discriminator's tensors to NVIDIA's names.

    Raises:
        CheckpointMismatch: missing or unexpected tensors, or of another number of axes; their names are rosinality's.
        BrokenFile: its filters are not StyleGAN2's.
    """
    num_resolutions = _count(tensors, r"convs\.\d+\.conv1\.0\.weight", what)
    return _from_theirs(tensors, discriminator_rows(num_resolutions), discriminator_filters(num_resolutions), what)


def generator_to_rosinality(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a generator's tensors to rosinality's names; the mean of W is left out.

    Raises:
        CannotConvert: rosinality's code cannot express this network.
    """
    num_resolutions = sum(name.endswith(".torgb.weight") for name in tensors)
    mapping_layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    given = {name: value for name, value in tensors.items() if name != "mapping.w_avg"}
    return _to_theirs(given, generator_rows(num_resolutions, mapping_layers), generator_filters(num_resolutions))


def discriminator_to_rosinality(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a discriminator's tensors to rosinality's names.

    Raises:
        CannotConvert: rosinality's code cannot express this network.
    """
    num_resolutions = sum(name.endswith(".skip.weight") for name in tensors) + 1
    return _to_theirs(tensors, discriminator_rows(num_resolutions), discriminator_filters(num_resolutions))


def _count(tensors: Mapping[str, Tensor], pattern: str, what: str) -> int:
    """Return the number of resolutions: one more than there are blocks."""
    blocks = sum(bool(re.fullmatch(pattern, name)) for name in tensors)
    if not 0 < blocks < MAX_RESOLUTIONS:
        raise BrokenFile(f"{what}: no StyleGAN2 has {blocks} blocks")
    return blocks + 1


def _from_theirs(
    tensors: Mapping[str, Tensor], rows: list[Row], filters: tuple[dict[str, float], list[str]], what: str
) -> dict[str, Tensor]:
    kernels = {name: value for name, value in tensors.items() if name.endswith(".kernel")}
    names = {row.theirs for row in rows}
    missing, unexpected = sorted(names - tensors.keys()), sorted(tensors.keys() - names - kernels.keys())
    misshapen = [row.theirs for row in rows if row.theirs in tensors and not _has_axes(tensors[row.theirs], row)]
    if missing or unexpected or misshapen:
        raise CheckpointMismatch(what, missing, unexpected, misshapen)
    for name, kernel in kernels.items():
        expected = fir() * filters[0].get(name, 1.0)
        if kernel.shape != expected.shape or not torch.allclose(kernel.float(), expected):
            raise BrokenFile(f"{what}: the filter {name} is not StyleGAN2's 1-3-3-1")
    renamed = {row.ours: tensors[row.theirs].squeeze(_axes(tensors[row.theirs], row)) for row in rows}
    return renamed | {name: fir() for name in filters[1]}


def _to_theirs(
    tensors: Mapping[str, Tensor], rows: list[Row], filters: tuple[dict[str, float], list[str]]
) -> dict[str, Tensor]:
    unknown = sorted(tensors.keys() - {row.ours for row in rows} - set(filters[1]))
    if unknown:
        raise CannotConvert(f"rosinality's code has no place for {', '.join(unknown[:3])}: a conditional or another network")
    if other := [name for name in filters[1] if not torch.allclose(tensors[name].float(), fir())]:
        raise CannotConvert(f"rosinality's code has one filter, 1-3-3-1, and {other[0]} is another")
    renamed = {}
    for row in rows:
        value = tensors[row.ours]
        renamed[row.theirs] = value.reshape((1,) * row.lead + value.shape + (1,) * row.trail)
    return renamed | {name: fir() * factor for name, factor in filters[0].items()}


def _axes(value: Tensor, row: Row) -> tuple[int, ...]:
    return (*range(row.lead), *range(value.ndim - row.trail, value.ndim))


def _has_axes(value: Tensor, row: Row) -> bool:
    return value.ndim >= row.lead + row.trail and all(value.shape[axis] == 1 for axis in _axes(value, row))
