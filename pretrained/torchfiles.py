"""How is a torch file read without running it? Both containers of ``torch.save``, and the table of what they may name.

Tensors stay records of a storage and a shape until they are asked for, so that only the network that is wanted is read, and
never into more bytes than the file holds.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle
from pretrained.pickles import Global, Readers, Record, Scalar, container, unpickle

MAX_DIMENSIONS = 8
"""Of a tensor."""
MAX_EXPANDED = 65_536
"""Numbers of a tensor that repeats its storage, as a mean that is expanded to all layers does."""
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""First two values of a torch file from before the zip container."""
PREFIXES = ("module.", "_orig_mod.")
"""What training on several devices and compiling put in front of every name."""
STORAGE_TYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(eq=False)
class Storage:
    """A block of numbers in a file."""

    dtype: torch.dtype
    numel: int
    data: memoryview | None = None
    """Its bytes; the older containers tell them only after all else."""


@dataclass(eq=False)
class TensorRecord:
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Return how much memory the tensor takes."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """Read the tensor, into memory of its own.

        Raises:
            BrokenFile: it reaches beyond its storage, or repeats it too often.
        """
        numel, itemsize = math.prod(self.size), self.storage.dtype.itemsize
        if numel == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        region = self.storage.data
        if region is None or numel > max(self.storage.numel, MAX_EXPANDED) or last >= self.storage.numel:
            raise BrokenFile(f"a tensor of shape {self.size} does not fit its storage of {self.storage.numel} numbers")
        part = region[self.offset * itemsize : (last + 1) * itemsize]
        if part.nbytes != (last + 1 - self.offset) * itemsize:
            raise BrokenFile(f"a storage of {self.storage.numel} numbers is truncated")
        # The bytes lie anywhere in the file, and numbers must not: hence the copy.
        numbers = torch.frombuffer(part, dtype=torch.uint8).clone().view(self.storage.dtype)
        return numbers.as_strided(self.size, self.stride).contiguous()


def map_file(path: Path) -> memoryview:
    """Map a file into memory, so that only what is looked at is read.

    Raises:
        BrokenFile: it is missing, empty, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            # A private copy on write, since torch wants memory that it could write to.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except ValueError as error:
        raise BrokenFile("it is empty") from error
    except OSError as error:
        raise BrokenFile(f"it cannot be read ({error.strerror})") from error


def read_torch_zip(path: Path, data: memoryview) -> Any:
    """Read a torch file in its zip container, whose tensors stay records.

    Args:
        path: of the file.
        data: the same file, mapped.

    Raises:
        ForeignFile: a TorchScript file.
        BrokenFile: no such file, or a damaged one; also the errors of ``unpickle``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise BrokenFile(f"a truncated or damaged PyTorch file ({error})") from error
    names = [name for name in entries if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ForeignFile("a zip file, but not of PyTorch")
    prefix = names[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries:
        raise ForeignFile("a TorchScript file: it holds a program, where weights are expected")
    if sum(info.file_size for info in entries.values()) > len(data):
        raise BrokenFile("a zip file whose parts are larger than itself")
    if f"{prefix}byteorder" in entries and bytes(_entry(data, entries[f"{prefix}byteorder"])) != b"little":
        raise BrokenFile("a torch file of a big-endian machine")

    def refer(reference: Any) -> Storage:
        dtype, key, numel = storage_reference(reference)
        info = entries.get(f"{prefix}data/{key}")
        if info is None or info.file_size != numel * dtype.itemsize:
            raise BrokenFile(f"a torch file without its storage {key[:40]!r} of {numel} numbers")
        return Storage(dtype, numel, _entry(data, info))

    return unpickle(_entry(data, entries[names[0]]), READERS, refer)[0]


def _entry(data: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of a part that is stored as it is: torch compresses nothing."""
    head = bytes(data[info.header_offset : info.header_offset + 30])
    if info.compress_type != zipfile.ZIP_STORED or len(head) != 30 or head[:4] != b"PK\x03\x04":
        raise BrokenFile(f"a zip file whose part {info.filename[-40:]!r} is compressed or damaged")
    name_length, extra_length = struct.unpack("<HH", head[26:])
    start = info.header_offset + 30 + name_length + extra_length
    part = data[start : start + info.file_size]
    if len(part) != info.file_size:
        raise BrokenFile(f"a zip file that is truncated in its part {info.filename[-40:]!r}")
    return part


def read_torch_stream(data: memoryview, readers: Readers) -> Any:
    """Read a torch file from before the zip container, whose tensors stay records.

    Raises:
        BrokenFile: no such stream, or a damaged one; also the errors of ``unpickle``.
    """
    magic, at = unpickle(data, {})
    version, at = unpickle(data, {}, at=at)
    if (magic, version) != (MAGIC, PROTOCOL):
        raise BrokenFile("it is no torch file")
    system, at = unpickle(data, {}, at=at)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BrokenFile("a torch file of a big-endian machine")
    storages: dict[str, Storage] = {}

    def refer(reference: Any) -> Storage:
        dtype, key, numel = storage_reference(reference)
        storage = storages.setdefault(key, Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise BrokenFile(f"a torch file whose storage {key[:40]!r} has two sizes")
        return storage

    value, at = unpickle(data, readers, refer, at)
    keys, at = unpickle(data, {}, at=at)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BrokenFile("a torch file without a list of storages")
    for key in keys:
        numel = int.from_bytes(data[at : at + 8], "little")
        storage = storages.get(key) or Storage(torch.uint8, -1)
        end = at + 8 + numel * storage.dtype.itemsize
        if numel != storage.numel or end > len(data):
            raise BrokenFile(f"a torch file that is truncated at storage {key[:40]!r}")
        storage.data = data[at + 8 : end]
        at = end
    return value


def storage_reference(reference: Any) -> tuple[torch.dtype, str, int]:
    """Return number type, key and length of torch's persistent id of a storage.

    Raises:
        UnsafePickle: it is none.
    """
    match reference:
        case ("storage", Global(name=name), str(key), str(), int(numel), *rest) if rest in ([], [None]) and numel >= 0:
            return STORAGE_TYPES.get(name, torch.uint8), key, numel
    raise UnsafePickle("a pickle with a persistent id that is no storage")


def state_dict(values: Mapping[Any, Any], limit: int) -> dict[str, Tensor]:
    """Read the tensors of a dictionary of records, passing over what is no tensor.

    Args:
        values: by name.
        limit: bytes that all of them may take: the size of the file, unless they repeat each other.

    Raises:
        BrokenFile: they take more, or one is damaged.
    """
    records = {name: value for name, value in values.items() if isinstance(value, TensorRecord) and isinstance(name, str)}
    if (total := sum(record.nbytes for record in records.values())) > limit:
        raise BrokenFile(f"its tensors take {total} bytes, more than the file has")
    try:
        return {name: record.tensor() for name, record in records.items()}
    except (RuntimeError, ValueError) as error:
        raise BrokenFile(f"a damaged tensor: {error}") from error


# The readers: what is made of the arguments of each call. Their arguments are a file's, hence of any type at all.


def _dictionary(items: Any = (), *_: Any) -> dict[Any, Any]:
    pairs = list(items.items()) if isinstance(items, dict) else [tuple(pair) for pair in items]
    return container("DICT", [part for key, value in pairs for part in (key, value)])


def _set(items: Any = ()) -> set[Any]:
    return container("FROZENSET", list(items))


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnsafePickle(f"a pickle that wants the codec {str(encoding)[:40]!r}")
    return text.encode(encoding)


def _persistent_object(meta: Any) -> Record:
    """NVIDIA's ``torch_utils.persistence``: the source code that comes along is passed over."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise BrokenFile("a persistent object without class and state")
    return Record(str(meta.get("class_name", ""))[:80], (), meta["state"])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    numbers = (offset, *size, *stride)
    is_sane = isinstance(storage, Storage) and len(size) == len(stride) <= MAX_DIMENSIONS
    if not is_sane or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
        raise BrokenFile("a tensor of impossible size")
    return TensorRecord(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> TensorRecord:
    if not isinstance(data, TensorRecord):
        raise BrokenFile("a parameter that is no tensor")
    return data


def _nested_storage(data: Any) -> Storage:
    if isinstance(data, bytes):
        data = memoryview(bytearray(data))  # Of protocol 2, which writes bytes as text. Torch wants what it could write to.
    if not isinstance(data, memoryview):
        raise BrokenFile("a storage without bytes")
    # Storages need no names but those of their types, so nothing nests any deeper.
    storage = read_torch_stream(data, _STORAGE_READERS)
    if not isinstance(storage, Storage):
        raise BrokenFile("a nested torch file that holds no storage")
    return storage


def _numpy_dtype(name: Any, *_: Any) -> Record:
    if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?([biuf][1-8]|[SU]\d{1,4})", name):
        raise UnsafePickle(f"a NumPy array of the type {str(name)[:40]!r}: arrays of objects can hold anything")
    return Record("dtype", (name,))


def _numpy_scalar(dtype: Any, data: Any = b"") -> Scalar:
    if not isinstance(dtype, Record) or dtype.name != "dtype" or not isinstance(data, memoryview | bytes):
        raise BrokenFile("a damaged NumPy number")
    number: Scalar = np.frombuffer(data, np.dtype(dtype.arguments[0]).newbyteorder("<"), 1)[0].item()
    return number


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _empty_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _inert(name: str) -> Callable[..., Record]:
    """Return a reader of objects whose class is all that matters."""
    return lambda *arguments: Record(name, arguments)


_STORAGE_READERS: Readers = {
    **{(module, name): None for module in ("torch", "torch.cuda") for name in STORAGE_TYPES},
    **{("torch.storage", name): None for name in ("UntypedStorage", "TypedStorage")},
}

READERS: Readers = {
    **_STORAGE_READERS,
    **{("torch", str(dtype).removeprefix("torch.")): None for dtype in STORAGE_TYPES.values()},
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _nested_storage,
    ("torch", "Size"): _size,
    ("torch", "device"): _inert("device"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    ("dnnlib.util", "EasyDict"): _dictionary,
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _empty_dictionary,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("__builtin__", "set"): _set,
    ("builtins", "dict"): None,
    ("builtins", "list"): None,
    ("builtins", "int"): None,
    ("_codecs", "encode"): _encode,
    ("argparse", "Namespace"): _inert("Namespace"),
    ("pathlib", "PosixPath"): _inert("Path"),
    ("pathlib", "WindowsPath"): _inert("Path"),
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "_reconstruct"): _inert("ndarray"),
    ("numpy._core.multiarray", "_reconstruct"): _inert("ndarray"),
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy", "ndarray"): None,
    ("torch.nn.modules.container", "ModuleList"): _inert("ModuleList"),
    ("torch.nn.modules.container", "Sequential"): _inert("Sequential"),
    ("torch.nn.modules.linear", "Identity"): _inert("Identity"),
}
"""Every global that a file may name, by exact module and name; dotted names and sub-attributes are none of them."""
