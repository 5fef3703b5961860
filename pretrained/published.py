"""What is in edit files that others publish? Vectors of InterFaceGAN, e4e, STIT, SFE, idinvert; components of GANSpace.

Files are told apart by their content, never by their suffix (StyleMapGAN calls a torch file ``.npy``), and nothing in them
is run. What is known not to work is refused in words: a boundary in Z, one of StyleGAN1, a map of StyleMapGAN.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editing.directions import Direction
from editing.errors import TrainingDataError
from editing.unsupervised import Components
from generators.base import Identity
from generators.errors import LatentMismatch
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle
from pretrained.pickles import Readers, Record, unpickle
from pretrained.torchfiles import READERS

MAX_BYTES = 16 * 1024**2
"""A vector for each of a hundred layers, in double precision, or eighty components with all that GANSpace keeps of them."""
NUM_WS = {DEFAULT_GENERATOR: 16}
"""Layers of generators that share a W with others of more layers: the first ones are those of the same resolutions."""
_W_DIM = 512
# InterFaceGAN's names say what its files do not: whose space it is.
_INTERFACEGAN = re.compile(r"(pggan|stylegan)_(celebahq|ffhq)_(\w+?)(_w)?_boundary")
_STYLEGAN1 = re.compile(r"stylegan-?1|karras2019stylegan-|stylegan_(celebahq|ffhq)", re.IGNORECASE)


def read_published_direction(path: Path, generator: Identity) -> Direction:
    """Read a vector that others have published; its length becomes the unit, so that strength 1 adds it as it is.

    (width,), (1, width): InterFaceGAN and e4e; (layers, width), (1, layers, width): e4e's pose, STIT, Puzer; (1, layers x
    512) flattened: SFE; idinvert's pickled dictionary, with the layers that it names. Files of 18 layers fit the default
    generator, whose 16 are the first of these.

    Args:
        path: of the file.
        generator: whose direction the caller says it is; the file does not say so itself.

    Raises:
        BrokenFile: it cannot be read, or holds no direction; also what it says about names that a pickle may not use.
        LatentMismatch: it is known to belong to another space or generator.
    """
    value = _read(path)
    _check_space(path, generator)
    layers, learnt = None, f"published file {path.name}"
    if isinstance(value, dict) and "boundary" in value:
        if "part1_indexes" in value or _array(path, value["boundary"]).ndim == 4:
            shape = tuple(_array(path, value["boundary"]).shape)
            raise LatentMismatch(
                f"{path}: a boundary of StyleMapGAN, a map of shape {shape} in that network's own code: it fits no latent of"
                f" {generator}"
            )
        value, layers = value["boundary"], _manipulate_layers(path, value)
    if isinstance(value, dict):
        raise BrokenFile(
            f"{path}: a file of {_names(value)}, expected one tensor; of a file of components"
            f" choose one, as in {path.name}#0"
        )
    rows = _rows(path, _array(path, value))
    num_ws = NUM_WS.get(generator.name)
    if rows.ndim == 2 and num_ws is not None and len(rows) > num_ws:
        rows = rows[:num_ws]
    try:
        name = path.stem.removesuffix("_boundary")
        direction = Direction.of(name, rows, generator, layers=layers, learnt=learnt)
    except ValueError as error:
        raise BrokenFile(f"{path}: {error}") from error
    return direction


def read_components(path: Path, generator: Identity) -> Components:
    """Read GANSpace's components: e4e's ``.pt`` of mean, comp and std, or the cache ``.npz`` of GANSpace itself.

    Raises:
        BrokenFile: it cannot be read, or holds no components.
    """
    value = _read(path)
    keys = ("comp", "std", "mean") if isinstance(value, dict) and "comp" in value else ("lat_comp", "lat_stdev", "lat_mean")
    if not isinstance(value, dict) or not set(keys) <= set(value):
        raise BrokenFile(
            f"{path}: no components of GANSpace: expected mean, comp and std, or lat_mean, lat_comp and lat_stdev"
        )
    vectors, deviations, mean = (_array(path, value[key]).squeeze() for key in keys)
    if vectors.ndim != 2 or deviations.ndim != 1 or mean.ndim != 1:
        shapes = ", ".join(f"{key} {tuple(_array(path, value[key]).shape)}" for key in keys)
        raise BrokenFile(f"{path}: expected (k, 1, width), (k,) and (1, width), got {shapes}")
    try:
        return Components(vectors, deviations, mean, generator, None, f"GANSpace, published file {path.name}")
    except TrainingDataError as error:
        raise BrokenFile(f"{path}: {error}") from error


def read_array(path: Path, max_bytes: int = 4 * 1024**3) -> Tensor:
    """Read the one array or tensor of a NumPy or PyTorch file, as float32; of several by name, the one named ``w``.

    Raises:
        BrokenFile: it cannot be read, is larger than ``max_bytes``, or holds something else.
    """
    value = _read(path, max_bytes)
    if isinstance(value, dict):
        if len(value) != 1 and "w" not in value:
            raise BrokenFile(f"{path}: a file of {_names(value)}, expected one array or tensor, or one that is named w")
        value = value["w"] if "w" in value else next(iter(value.values()))
    return _array(path, value)


def _names(value: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(value)[:8]))[:200] or "nothing"


def _check_space(path: Path, generator: Identity) -> None:
    match = _INTERFACEGAN.match(path.stem)
    if match is None:
        return
    family, data, _, in_w = match.groups()
    network = {"pggan": "PGGAN", "stylegan": "StyleGAN1"}[family]
    if in_w and _STYLEGAN1.search(generator.name):
        return
    space = f"W of {network} ({data})" if in_w else f"Z of {network} ({data}), and edits are made in W"
    raise LatentMismatch(
        f"{path}: by its name this is InterFaceGAN's boundary in {space}; in {generator} it means nothing: learn the"
        " direction anew with `stylegan-invert directions train`"
    )


def _rows(path: Path, vector: Tensor) -> Tensor:
    """Return (width,) or (layers, width)."""
    while vector.ndim > 1 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim == 1 and len(vector) > _W_DIM and len(vector) % _W_DIM == 0:
        vector = vector.view(-1, _W_DIM)
    if vector.ndim not in (1, 2) or 0 in vector.shape:
        raise BrokenFile(f"{path}: expected the shape (1, width) or (1, layers, width), got {tuple(vector.shape)}")
    return vector


def _manipulate_layers(path: Path, value: Mapping[Any, Any]) -> tuple[int, ...] | None:
    """Return the layers that idinvert says its boundary is for: ``0-3`` or ``2,4``."""
    meta = value.get("meta_data")
    text = str(meta.get("manipulate_layers") or "") if isinstance(meta, dict) else ""
    if not text:
        return None
    layers: list[int] = []
    for part in text.strip("[]() ").split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", part)
        if match is None:
            raise BrokenFile(f"{path}: it names the layers {text[:40]!r}, expected such as 0-3 or 2,4")
        layers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(sorted(set(layers)))


def _read(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """Read a file as an array, a tensor, or a dictionary of these, by its first bytes."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BrokenFile(f"{path}: {size / 1e6:.0f} MB is too large, expected at most {max_bytes / 1e6:.0f} MB")
        data = path.read_bytes()
    except OSError as error:
        raise BrokenFile(f"{path}: it cannot be read ({error.strerror})") from error
    if data.startswith(b"\x93NUMPY"):
        return _read_npy(path, data)
    if data.startswith(b"PK") and _is_npz(path):
        return _read_npz(path, max_bytes)
    return _read_torch(path)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _read_npz(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > max(4 * MAX_BYTES, max_bytes):
                raise BrokenFile(f"{path}: it unpacks to {unpacked / 1e6:.0f} MB, which is too large")
            # GANSpace's cache holds much else, and NVIDIA's projector writes w.
            names = [name for name in archive.namelist() if name.startswith("lat_") or name == "w.npy"]
            names = names or archive.namelist()
            return {name.removesuffix(".npy"): _read_npy(path, archive.read(name)) for name in names}
    except (ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise BrokenFile(f"{path}: a damaged NumPy archive ({error})") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About odd pickles, which are refused below anyhow.
            # weights_only: tensors, nothing that runs. Some published files were saved from a GPU.
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(
            f"{path}: expected an array or a tensor, as NumPy or PyTorch writes them; it could not be read: {reason}"
        ) from error


def _read_npy(path: Path, data: bytes) -> Any:
    """Read one array; never more than the bytes that there are, whatever its header says."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
        if dtype.hasobject:
            return _unpickle_npy(path, memoryview(data)[stream.tell() :])
        numbers = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
        return numbers.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        raise BrokenFile(f"{path}: expected a NumPy file with one array of numbers ({error})") from error


def _unpickle_npy(path: Path, data: memoryview) -> Any:
    """Read the one dictionary that an array of objects holds: what ``np.save`` makes of a dictionary."""
    try:
        value = unpickle(data, _NUMPY_READERS)[0]
    except BrokenFile as error:
        raise type(error)(f"{path}: {error}") from error
    match value:
        case Record(name="ndarray", state=(_, _, Record(arguments=("O8", *_)), _, [dict() as content])):
            return {key: _plain(path, item) for key, item in content.items()}
    raise ForeignFile(f"{path}: an array of objects, expected one array of numbers")


def _plain(path: Path, value: Any) -> Any:
    """Turn the record of an array of numbers into the array; other values stay."""
    if not isinstance(value, Record) or value.name != "ndarray":
        return value
    match value.state:
        case (_, tuple() as shape, Record(name="dtype", arguments=(str() as code, *_)), bool() as is_fortran, data):
            try:
                numbers = np.frombuffer(data, np.dtype(code))
                return numbers.reshape(shape, order="F" if is_fortran else "C")
            except (ValueError, TypeError) as error:
                raise BrokenFile(f"{path}: a damaged array ({error})") from error
    raise BrokenFile(f"{path}: a damaged array")


def _dtype(name: Any, *arguments: Any) -> Record:
    """Let arrays of objects be, whose content is read by the same rules."""
    if name == "O8":
        return Record("dtype", (name,))
    reader: Callable[..., Any] | None = READERS["numpy", "dtype"]
    if reader is None:
        raise UnsafePickle("a NumPy type that is only to be mentioned")
    return reader(name, *arguments)


_NUMPY_READERS: Readers = {**READERS, ("numpy", "dtype"): _dtype}


def _array(path: Path, value: Any) -> Tensor:
    """Return numbers as float32.

    Raises:
        BrokenFile: they are none.
    """
    is_float_array = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    tensor = torch.from_numpy(value.astype(np.float64)) if is_float_array else value
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray | Tensor) else type(value).__name__
        raise BrokenFile(f"{path}: expected one array or tensor of floating-point numbers, got {kind}")
    return tensor.detach().to(torch.float32)
