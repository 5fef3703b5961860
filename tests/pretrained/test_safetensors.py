"""Do tensors and cards survive a file, and is every other kind of file called by its name?"""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pretrained import safetensors
from pretrained.errors import BrokenFile

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([1, 2]), "half": torch.ones(2, dtype=torch.float16)}
CARD = {"name": "toy", "arguments": {"sizes": [2, 4, 1]}, "licence": "é ü 顔"}


@pytest.fixture
def file(tmp_path):
    safetensors.save(tmp_path / "toy.safetensors", TENSORS, CARD)
    return tmp_path / "toy.safetensors"


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def pytorch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    return buffer.getvalue()


def test_tensors_and_card_come_back(file):
    tensors, card = safetensors.load(file)
    assert card == CARD
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(value, TENSORS[name]) and value.dtype == TENSORS[name].dtype for name, value in tensors.items())


def test_a_tensor_that_is_a_view_is_written_as_it_looks(tmp_path):
    safetensors.save(tmp_path / "view", {"t": TENSORS["a"].T}, {})
    assert torch.equal(safetensors.load(tmp_path / "view")[0]["t"], TENSORS["a"].T)


def test_a_file_of_another_writer_has_an_empty_card(tmp_path):
    save_file(TENSORS, tmp_path / "plain")
    assert safetensors.load(tmp_path / "plain")[1] == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
        (pickle.dumps({"w": 1}), "it looks like a pickle"),
        (pytorch_file(), "it looks like a PyTorch or zip file"),
        (b"\x00\x01\x02 anything at all, long enough for a header", "it is truncated or damaged"),
        (b"abc", "it is truncated or damaged"),
        (header(b'{"a": [1, 2'), "it is truncated or damaged"),
        (struct.pack("<Q", 2**62) + b"{}", "it is truncated or damaged"),
    ],
    ids=["empty", "html", "pickle", "zip", "garbage", "3 bytes", "bad json", "absurd header"],
)
def test_every_other_kind_of_file_is_called_by_its_name(tmp_path, content, words):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=words) as caught:
        safetensors.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BrokenFile, match="it is truncated or damaged"):
        safetensors.load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BrokenFile, match=r"nowhere\.safetensors: no such file"):
        safetensors.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(BrokenFile, match="no such file"):
        safetensors.load(tmp_path)


def test_a_file_that_may_not_be_read_is_named(file, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BrokenFile, match=r"it cannot be read .*Permission denied"):
        safetensors.load(file)


@pytest.mark.parametrize("card", ["[1, 2]", '"text"', "7"])
def test_a_card_that_is_no_object_is_refused(tmp_path, card):
    save_file(TENSORS, tmp_path / "odd", {"card": card})
    with pytest.raises(BrokenFile, match="its card is no JSON object"):
        safetensors.load(tmp_path / "odd")


@pytest.mark.parametrize("card", ["{", "[" * 100_000])
def test_a_card_that_is_no_json_is_refused(tmp_path, card):
    save_file(TENSORS, tmp_path / "odd", {"card": card})
    with pytest.raises(BrokenFile, match="truncated or damaged"):
        safetensors.load(tmp_path / "odd")


def test_a_header_that_asks_for_absurd_sizes_is_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [2**40, 2**10], "data_offsets": [0, 2**52]}
    (tmp_path / "absurd").write_bytes(header(json.dumps({"w": entry}).encode()) + b"\0" * 64)
    with pytest.raises(BrokenFile, match="truncated or damaged"):
        safetensors.load(tmp_path / "absurd")


HEADERS = {
    "overlapping": {"a": ("F32", [4], [0, 16]), "b": ("F32", [4], [8, 24])},
    "with a hole": {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [16, 24])},
    "backwards": {"a": ("F32", [2], [8, 0])},
    "a negative size": {"a": ("F32", [-2], [0, 8])},
    "a negative offset": {"a": ("F32", [2], [-8, 0])},
    "beyond the end": {"a": ("F32", [200], [0, 800])},
    "another size than the shape": {"a": ("F32", [3], [0, 8])},
    "an unknown type": {"a": ("F99", [2], [0, 8])},
    "a type that is a number": {"a": (32, [2], [0, 8])},
    "sizes whose product overflows": {"a": ("F32", [2**33, 2**33], [0, 8])},
    "a size that is text": {"a": ("F32", ["2"], [0, 8])},
    "a size with a fraction": {"a": ("F32", [2.5], [0, 8])},
    "no offsets": {"a": ("F32", [2])},
    "trailing bytes": {"a": ("F32", [2], [0, 8])},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, name):
    keys = ("dtype", "shape", "data_offsets")
    entries = {tensor: dict(zip(keys, values, strict=False)) for tensor, values in HEADERS[name].items()}
    (tmp_path / "lies").write_bytes(header(json.dumps(entries).encode()) + bytes(24 if name != "trailing bytes" else 4000))
    with pytest.raises(BrokenFile, match="truncated or damaged"):
        safetensors.load(tmp_path / "lies")


@pytest.mark.parametrize("text", [b"[" * 50_000, b'{"a":' * 50_000, b'{"a": 1}', b'{"a": null}', b'"x"'])
def test_a_header_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "odd").write_bytes(header(text))
    with pytest.raises(BrokenFile, match="truncated or damaged"):
        safetensors.load(tmp_path / "odd")


@pytest.mark.parametrize("length", [2**63, 2**62, 100_000_001, 2**32])
def test_a_header_longer_than_the_file_is_refused_unread(tmp_path, length):
    (tmp_path / "long").write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
    with pytest.raises(BrokenFile, match="truncated or damaged"):
        safetensors.load(tmp_path / "long")


@given(content=st.binary(max_size=200))
def test_random_bytes_are_a_broken_file_and_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with pytest.raises(BrokenFile):
        safetensors.load(path)
