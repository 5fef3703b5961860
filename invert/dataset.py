"""How are many aligned faces read? Folders and zip files of images, with an optional table that names splits."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from generators.errors import ToolkitError
from invert.errors import PhotoError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
TABLE = "attributes.csv"
MAX_MEMBER_BYTES = 64 * 2**20
"""Largest image that is read out of a zip file: a header can promise less than it unpacks to."""


def read_faces(
    source: Path, split: str | None = None, resolution: int = 256, limit: int | None = None
) -> tuple[UInt8[Tensor, "n 3 resolution resolution"], list[str]]:
    """Read aligned faces.

    Args:
        source: a folder of images, a zip file of images, or a folder that holds one such zip file.
        split: keep the faces that ``attributes.csv`` beside them (columns ``image_id`` and ``split``) puts there.
        resolution: side that images are resized to.
        limit: read only this many, in the order of their names.

    Returns:
        The images, and their names without suffix.

    Raises:
        PhotoError: nothing to read there, or an image that cannot be read.
        ToolkitError: a split was asked for and there is no table, or none of the faces is in it.
    """
    if source.is_dir() and not any(path.suffix.lower() in SUFFIXES for path in source.iterdir()):
        zips = sorted(source.glob("*.zip"))
        if len(zips) != 1:
            raise PhotoError(f"{source}: expected images or one zip file of images, found neither")
        source = zips[0]
    wanted = None if split is None else _names_of_split(source, split)
    images, names = [], []
    for name, data in _files(source):
        stem = Path(name).stem
        if wanted is not None and stem not in wanted:
            continue
        images.append(_decode(data, f"{source}/{name}", resolution))
        names.append(stem)
        if limit is not None and len(names) == limit:
            break
    if not images:
        raise PhotoError(f"{source}: no images{'' if split is None else f' of the split {split!r}'} to read")
    return torch.from_numpy(np.stack(images)), names


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES):
            yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if Path(info.filename).suffix.lower() in SUFFIXES:
                    with archive.open(info) as member:
                        yield info.filename, member.read(MAX_MEMBER_BYTES)
    except (OSError, zipfile.BadZipFile) as error:
        raise PhotoError(f"{source}: expected a folder or a zip file of images ({error})") from error


def _names_of_split(source: Path, split: str) -> set[str]:
    table = (source if source.is_dir() else source.parent) / TABLE
    if not table.is_file():
        raise ToolkitError(f"the split {split!r} was asked for, but there is no {table}")
    with table.open(newline="") as file:
        rows = [(row.get("image_id", ""), row.get("split", "")) for row in csv.DictReader(file)]
    names = {name for name, its_split in rows if its_split == split}
    if not names:
        raise ToolkitError(f"{table} has no split {split!r}; it has {', '.join(sorted({s for _, s in rows}))}")
    return names


def _decode(data: bytes, name: str, resolution: int) -> UInt8[np.ndarray, "3 resolution resolution"]:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{name}: not a readable image ({error})") from error
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image).transpose(2, 0, 1)
