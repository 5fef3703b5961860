"""How are tensors taken out of an ONNX file? By reading its protobuf by hand: three messages deep, no code run.

Only initialisers are read, float32 and stored as raw bytes, which is what PyTorch's exporter writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pretrained.errors import BrokenFile

GRAPH, INITIALIZER = 7, 5  # Field numbers in ModelProto and GraphProto.
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # In TensorProto.
FLOAT = 1


def read_onnx_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the float32 initialisers of an ONNX model by name.

    Raises:
        BrokenFile: the bytes are not such a model.
    """
    tensors: dict[str, Tensor] = {}
    try:
        for field, graph in _fields(data):
            if field == GRAPH and isinstance(graph, bytes):
                for kind, tensor in _fields(graph):
                    if kind == INITIALIZER and isinstance(tensor, bytes):
                        tensors.update(_tensor(tensor))
    except (IndexError, ValueError, OverflowError) as error:
        raise BrokenFile(f"not a readable ONNX file: {error}") from error
    if not tensors:
        raise BrokenFile("not a readable ONNX file: it holds no float tensors")
    return tensors


def _tensor(message: bytes) -> dict[str, Tensor]:
    dims: list[int] = []
    name, data_type, raw = "", 0, b""
    for field, value in _fields(message):
        if field == DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif field == DATA_TYPE and isinstance(value, int):
            data_type = value
        elif field == NAME and isinstance(value, bytes):
            name = value.decode()
        elif field == RAW_DATA and isinstance(value, bytes):
            raw = value
    if data_type != FLOAT:
        return {}
    if len(raw) != 4 * math.prod(dims):
        raise ValueError(f"tensor {name!r} of shape {dims} has {len(raw)} bytes")
    return {name: torch.from_numpy(np.frombuffer(raw, "<f4").astype(np.float32).reshape(dims))}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length integer; return it and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Walk over a message: field number, and an integer or the bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                size, at = _varint(data, at)
                if size > len(data) - at:
                    raise ValueError("a field is longer than the file")
                yield key >> 3, data[at : at + size]
                at += size
            case 1 | 5 as wire:
                at += 8 if wire == 1 else 4
                if at > len(data):
                    raise ValueError("a field is longer than the file")
            case wire:
                raise ValueError(f"unknown wire type {wire}")
