"""Are tensors taken out of an ONNX file exactly, and is anything else a BrokenFile?"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.errors import BrokenFile
from pretrained.onnx import read_onnx_tensors


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: np.ndarray, data_type: int = 1, packed: bool = False) -> bytes:
    dims = field(1, b"".join(map(varint, array.shape))) if packed else b"".join(field(1, n) for n in array.shape)
    return dims + field(2, data_type) + field(8, name.encode()) + field(9, array.tobytes())


def model(*initializers: bytes) -> bytes:
    """Wrap tensors into a graph, with other fields around it as an exporter writes them."""
    node = field(1, field(4, b"Conv"))
    graph = node + field(2, b"graph") + b"".join(field(5, t) for t in initializers)
    return (
        field(1, 8)
        + field(2, b"pytorch")
        + field(7, graph)
        + varint(14 << 3 | 5)
        + b"abcd"
        + varint(15 << 3 | 1)
        + b"8 bytes!"
    )


WEIGHT = np.arange(24, dtype="<f4").reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_float_initialisers_are_read_by_name(packed):
    tensors = read_onnx_tensors(model(tensor("conv.weight", WEIGHT, packed=packed), tensor("é", WEIGHT[0, 0])))
    assert tensors.keys() == {"conv.weight", "é"}
    assert torch.equal(tensors["conv.weight"], torch.from_numpy(WEIGHT))
    tensors["conv.weight"].add_(1)  # It owns its memory.


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (1, 1, 1, 1)])
def test_any_shape_comes_back(shape):
    array = np.ones(shape, "<f4")
    assert read_onnx_tensors(model(tensor("t", array)))["t"].shape == shape


def test_tensors_of_other_types_are_left_out():
    tensors = read_onnx_tensors(model(tensor("shape", np.array([1, 2]), data_type=7), tensor("w", WEIGHT)))
    assert tensors.keys() == {"w"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no float tensors"),
        (model(), "no float tensors"),
        (b"<html>not found</html>", "not a readable ONNX file"),
        (model(tensor("w", WEIGHT))[:-30], "longer than the file"),
        (model(tensor("w", WEIGHT))[:-4], "longer than the file"),
        (
            field(7, field(5, field(1, 7) + field(2, 1) + field(8, b"w") + field(9, b"1234"))),
            r"'w' of shape \[7\] has 4 bytes",
        ),
        (field(7, field(5, field(1, 2**62) + field(2, 1) + field(8, b"w"))), "has 0 bytes"),
        (field(7, field(5, field(1, 0) + field(1, 2**64) + field(2, 1))), "not a readable ONNX file"),
        (field(7, field(5, field(1, 1) * 80 + field(2, 1) + field(9, b"1234"))), "not a readable ONNX file"),
        (field(7, field(5, tensor("w", WEIGHT)[:-1])), "longer than the file"),
        (field(7, field(5, field(2, 1) + field(8, b"\xff\xfe") + field(9, b"1234"))), "utf-8"),
        (b"\xff" * 20, "a number is too long"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x08", "not a readable ONNX file"),
    ],
)
def test_everything_else_is_a_broken_file_that_says_why(data, words):
    with pytest.raises(BrokenFile, match=words):
        read_onnx_tensors(data)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_random_bytes_give_tensors_or_a_broken_file(data):
    for candidate in (data, field(7, data), field(7, field(5, data)), field(7, field(5, field(2, 1) + data))):
        with contextlib.suppress(BrokenFile):
            assert read_onnx_tensors(candidate)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_model_gives_tensors_or_a_broken_file(data):
    whole = bytearray(model(tensor("w", WEIGHT), tensor("b", WEIGHT[0])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BrokenFile):
        assert read_onnx_tensors(bytes(whole))
