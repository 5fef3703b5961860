"""Does reading a file run nothing of it, however it asks, and does every bad file end in an error that says why?"""

from __future__ import annotations

import argparse
import collections
import copyreg
import functools
import gzip
import io
import operator
import os
import pickle
import subprocess
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle
from pretrained.loading import load_generator
from pretrained.pickles import MAX_OPCODES, Record, unpickle
from pretrained.torchfiles import READERS, TensorRecord, map_file, read_torch_stream, read_torch_zip

RUN = "open('canary', 'w').close()"
SHELL = "touch canary"


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


class NewWithKeywords:
    def __init__(self, target, arguments, keywords):
        self.parts = (copyreg.__newobj_ex__, (target, arguments, keywords))

    def __reduce_ex__(self, protocol):
        return self.parts


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def stack_global(module, name):
    return text(module) + text(name) + b"\x93"


def legacy(payload):
    """Wrap a pickle as the older container of torch.save does."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(head) + payload + pickle.dumps([], 2)


def zipped(payload):
    """Wrap a pickle as the newer container of torch.save does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def nested_storage(payload):
    return (
        stack_global("torch.storage", "_load_from_bytes") + b"B" + len(payload).to_bytes(4, "little") + payload + b"\x85R."
    )


os_system = pickle.dumps(Call(os.system, SHELL))
HOSTILE = {
    "os.system": (os_system, "system"),
    "posix.system by name": (b"cposix\nsystem\n(S'touch canary'\ntR.", "posix.system"),
    "nt.system": (b"cnt\nsystem\n(S'touch canary'\ntR.", "nt.system"),
    "builtins.eval": (pickle.dumps(Call(eval, f"exec({RUN!r})")), "builtins.eval"),
    "builtins.exec": (pickle.dumps(Call(exec, RUN)), "builtins.exec"),
    "builtins.getattr": (b"cbuiltins\ngetattr\n(S'x'\nS'system'\ntR.", "builtins.getattr"),
    "builtins.__import__": (pickle.dumps(Call(__import__, "this")), "builtins.__import__"),
    "builtins.open": (pickle.dumps(Call(open, "canary", "w")), "open"),
    "builtins.map": (pickle.dumps(Call(map, os.system, [SHELL])), "builtins.map"),
    "Python 2's __builtin__.eval": (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    "subprocess.Popen": (pickle.dumps(Call(subprocess.Popen, ["touch", "canary"])), "subprocess.Popen"),
    "functools.partial": (pickle.dumps(functools.partial(os.system, SHELL)), "functools.partial"),
    "operator.attrgetter": (pickle.dumps(operator.attrgetter("system")), "operator.attrgetter"),
    "operator.methodcaller": (pickle.dumps(operator.methodcaller("system", SHELL)), "operator.methodcaller"),
    "a codec that runs": (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "codec 'rot13'"),
    "codecs.decode": (pickle.dumps(Call(__import__("codecs").decode, b"x", "zip")), "_codecs.decode"),
    "a NumPy array of objects": (pickle.dumps(np.array([Call(os.system, SHELL)], object)), "type 'O8'|system"),
    "numpy.load": (pickle.dumps(Call(np.load, "canary")), "numpy"),
    "torch.load again": (pickle.dumps(Call(torch.load, "canary")), "torch.serialization.load"),
    "torch.hub": (pickle.dumps(Call(torch.hub.load, "a", "b")), "torch.hub.load"),
    "a storage that holds a hostile pickle": (nested_storage(os_system), "system"),
    "a storage that holds a hostile torch file": (nested_storage(legacy(os_system)), "system"),
    "a storage in a storage": (
        nested_storage(legacy(nested_storage(legacy(pickle.dumps(1, 2))))),
        "torch.storage._load_from_bytes",
    ),
    "the older torch container": (legacy(os_system), "system"),
    "the newer torch container": (zipped(os_system), "system"),
    "inside a safe container": (pickle.dumps({"G_ema": [1, (2, Call(os.system, SHELL))]}), "system"),
    "INST": (b"(S'touch canary'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'touch canary'\no.", "os.system"),
    "OBJ of what is no global": (b"(S'touch canary'\nS'x'\no.", "calls a str"),
    "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n" + text("touch canary") + b"\x85\x81.", "subprocess.Popen"),
    "NEWOBJ_EX": (pickle.dumps(NewWithKeywords(subprocess.Popen, (SHELL,), {"shell": True}), 4), "subprocess.Popen"),
    "NEWOBJ_EX with keywords of something allowed": (
        b"\x80\x04" + stack_global("argparse", "Namespace") + b")}" + text("a") + b"K\x01s\x92.",
        "keywords",
    ),
    "STACK_GLOBAL": (b"\x80\x04" + stack_global("os", "system") + text(SHELL) + b"\x85R.", "os.system"),
    "STACK_GLOBAL of what is no text": (b"\x80\x04K\x01K\x02\x93.", "no name"),
    "a dotted name": (b"\x80\x04" + stack_global("argparse", "Namespace.__init__.__globals__") + b".", "Namespace.__init__"),
    "a dotted name of an allowed module": (
        b"\x80\x04" + stack_global("torch", "serialization.os.system") + b".",
        "os.system",
    ),
    "a dotted module": (b"\x80\x04" + stack_global("collections.abc", "OrderedDict") + b".", "collections.abc.OrderedDict"),
    "a name with a space": (b"ccollections OrderedDict\nx\n.", "collections.OrderedDict x"),
    "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
    "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
    "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
    "a persistent id": (b"Pos.system\n.", "persistent id"),
    "a persistent id on the stack": (b"\x80\x02" + text("os.system") + b"Q.", "persistent id"),
    "a persistent id that is no storage": (zipped(b"\x80\x02" + text("x") + text("y") + b"\x86Q."), "no storage"),
    "BUILD of a dictionary of methods": (
        pickle.dumps(Call(argparse.Namespace, state={"__setstate__": os.system, "__class__": Call})),
        "system|Call",
    ),
    "BUILD of what is no object": (b"\x80\x02]}b.", "state of a list"),
    "BUILD of a global": (b"cargparse\nNamespace\n}(S'x'\nK\x01ub.", "state of a Namespace"),
    "an allowed name that may not be called": (b"ctorch\nFloatStorage\n(tR.", "only to be mentioned"),
    "a call of what a call returned": (b"cargparse\nNamespace\n(tR(tR.", "calls a Namespace"),
    "items put into an object": (b"cargparse\nNamespace\n(tRK\x01a.", "puts items into a Namespace"),
    "an arbitrary class": (pickle.dumps(Call(zipfile.ZipFile, "canary", "w")), "zipfile"),
    "a class of the tests": (pickle.dumps(collections.ChainMap({})), "collections.ChainMap"),
    "brackets without end": (b"(" * 100_000 + b".", "deeper than"),
    "lists without end": (b"]" * 100_000 + b"a" * 99_999 + b".", "at once"),
    "a key that takes forever to hash": (b"\x80\x02})" + b"2\x86" * 100 + b"K\x01s.", "tuple as a key"),
    "too many opcodes": (b"\x80\x02" + b"N0" * (MAX_OPCODES // 2) + b"N.", "opcodes"),
    "a long text": (b"\x80\x02" + text("x" * 17_000_000) + b".", "17000000 letters"),
    "lists copied again and again": (
        b"\x80\x02](" + b"K\x01" * 10_000 + b"eq\x00(" + (b"cbuiltins\nset\nh\x00\x85R") * 200 + b"t.",
        "copies",
    ),
    "buffers from outside": (b"\x80\x05\x97.", "NEXT_BUFFER"),
}
BROKEN = {
    "nothing": (b"", "it is empty"),
    "a web page": (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "a web page: a download"),
    "a web page after white space": (b"\n\n  <html>", "a web page"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture: name a file of weights"),
    "text": (b"hello, this is no file of weights at all", "truncated or damaged"),
    "zeros": (bytes(1000), "truncated or damaged"),
    "a memo that was never filled": (b"h\x05.", "a damaged pickle"),
    "a memo far away": (b"\x80\x02Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.", "a damaged pickle"),
    "a length beyond the end": (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "a damaged pickle"),
    "nothing left on the stack": (b"\x80\x02.", "left over"),
    "two values left": (b"\x80\x02NN.", "left over"),
    "an open bracket": (b"\x80\x02(.", "where there is none"),
    "a closing bracket alone": (b"\x80\x02t.", "never opened"),
    "no end": (b"\x80\x02N", "a damaged pickle"),
    "a text of 4 GB": (b"\x80\x04X\xff\xff\xff\xff" + bytes(100), "a damaged pickle"),
    "a text of 16 million TB": (b"\x80\x04\x8d" + b"\xff" * 8 + bytes(100), "a damaged pickle"),
    "a number of 2 GB": (b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(100), "a damaged pickle"),
    "a number of negative length": (b"\x80\x02\x8b\xff\xff\xff\xff" + bytes(100), "a damaged pickle"),
    "a number of 60,000 digits": (b"L" + b"7" * 60_000 + b"L\n.", "a damaged pickle"),
    "a line without end": (b"S'" + b"x" * 1_000_000, "a damaged pickle"),
    "a long number that is no network": (
        b"\x80\x02\x8b" + (5_000_000).to_bytes(4, "little") + b"\x01" * 5_000_000 + b".",
        "no net",
    ),
    "gzip": (gzip.compress(pickle.dumps({"a": 1})), "compressed with gzip"),
    "a text with an escape that is none": (b"S'\\\x89'\n.", "a damaged pickle"),
    "an odd number of keys and values": (b"\x80\x02}(NNNu.", "a damaged pickle"),
    "a pickle of something else": (pickle.dumps({"a": 1}), "holds no network"),
    "a zip of something else": (b"PK\x03\x04" + bytes(100), "truncated or damaged PyTorch file"),
    "a torch file of something else": (zipped(pickle.dumps({"a": 1}, 2)), "holds no network"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(name, tmp_path, canary):
    data, match = HOSTILE[name]
    path = tmp_path / "face.pt"
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UnsafePickle, match=match) as caught:
        load_generator(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000
    assert time.perf_counter() - start < 20


def test_there_are_at_least_25_hostile_files():
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_of_another_kind_says_what_it_is(name, tmp_path):
    data, match = BROKEN[name]
    path = tmp_path / "face.pt"
    path.write_bytes(data)
    with pytest.raises(BrokenFile, match=match) as caught:
        load_generator(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [pickle.dumps(np.array([{}], object)), pickle.dumps(np.array([1, None]))])
def test_a_numpy_array_of_objects_is_refused_without_its_objects(value):
    with pytest.raises(UnsafePickle, match="NumPy array of the type 'O8'"):
        unpickle(memoryview(bytearray(value)), READERS)


PLAIN = {
    "none": None,
    "numbers": [0, 1, -1, 255, 256, 65535, 2**31, -(2**31), 2**70, -(2**70), 1.5, float("inf"), True, False],
    "texts": ["", "a", "ü\n\\", "x" * 300, "\U0001f600"],
    "nested": {"a": [1, (2, 3), (), (1,), (1, 2, 3, 4)], "b": {"c": {1: 2, None: 3, 2.5: 4, False: 5}}},
    "sets": {1, 2, 3},
    "ordered": {"x": 1, "y": 2},
    "large": {str(i): list(range(i % 50)) for i in range(3000)},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_are_read_as_pythons_own_reader_does(name, protocol):
    data = pickle.dumps(PLAIN[name], protocol)
    value, end = unpickle(memoryview(bytearray(data + b"more")), READERS)
    assert value == PLAIN[name]
    assert end == len(data)


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_records(protocol):
    shared = [1]
    options = argparse.Namespace(lr=0.1, betas=(0.9, 0.99), names=shared)
    value = {"args": options, "again": shared, "ordered": collections.OrderedDict(a=1), "number": np.float32(2.5)}
    allowed = dict(READERS)
    if protocol < 2:
        # The oldest protocols rebuild objects by a function, which no file of weights does.
        with pytest.raises(UnsafePickle, match="_reconstructor"):
            unpickle(memoryview(bytearray(pickle.dumps(value, protocol))), allowed)
        return
    found, _ = unpickle(memoryview(bytearray(pickle.dumps(value, protocol))), allowed)
    assert isinstance(found["args"], Record)
    assert (found["args"].name, found["args"].state) == ("Namespace", vars(options))
    assert found["args"].state["names"] is found["again"]
    assert (found["ordered"], found["number"]) == ({"a": 1}, 2.5)


TENSORS = {
    "float32": torch.arange(6.0).reshape(2, 3),
    "float16": torch.arange(6).half(),
    "bfloat16": torch.arange(6).bfloat16(),
    "float64": torch.arange(6).double(),
    "int64": torch.arange(6),
    "uint8": torch.arange(6).byte(),
    "bool": torch.tensor([True, False]),
    "number": torch.tensor(3.0),
    "empty": torch.empty(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "part": torch.arange(60.0).reshape(6, 10)[1:4, 2:9:3],
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_are_read_as_torchs_own_reader_does(name, is_zip, tmp_path):
    expected = TENSORS[name]
    path = tmp_path / "t.pt"
    torch.save({"t": expected, "again": expected}, path, _use_new_zipfile_serialization=is_zip)
    data = map_file(path)
    found = read_torch_zip(path, data) if is_zip else read_torch_stream(data, READERS)
    assert isinstance(found["t"], TensorRecord)
    tensor = found["again"].tensor()
    assert tensor.dtype == expected.dtype
    assert torch.equal(tensor, expected)
    assert found["t"].nbytes == expected.numel() * expected.element_size()


def rebuild(offset, size, stride, numel=6):
    """Pickle a tensor of impossible measures."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    tensor = Call(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, collections.OrderedDict())
    Pickler(buffer, 2).dump({"synthesis.b4.const": tensor, "mapping.w_avg": tensor})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", buffer.getvalue())
        file.writestr("archive/data/0", bytes(24))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (rebuild(0, (2, 3), (3, 1)), "no StyleGAN2 has"),
        (rebuild(1, (2, 3), (3, 1)), "does not fit its storage"),
        (rebuild(0, (7,), (1,)), "does not fit its storage"),
        (rebuild(0, (2, 3), (1000, 1)), "does not fit its storage"),
        (rebuild(0, (10**6, 10**6), (0, 0)), "more than the file has"),
        (rebuild(-1, (2,), (1,)), "impossible size"),
        (rebuild(0, (-2,), (1,)), "impossible size"),
        (rebuild(0, (2,), (-1,)), "impossible size"),
        (rebuild(0, (2, 2), (1,)), "impossible size"),
        (rebuild(0, (1,) * 9, (1,) * 9), "impossible size"),
        (rebuild(0, (2**60,), (1,)), "impossible size"),
        (rebuild(0, ("2",), (1,)), "impossible size"),
        (rebuild(0, (2,), (1,), numel=10**9), "without its storage"),
        (rebuild(0, (2,), (1,), numel=5), "without its storage"),
    ],
)
def test_tensors_of_impossible_measures_are_refused(data, match, tmp_path):
    path = tmp_path / "t.pt"
    path.write_bytes(data)
    with pytest.raises(BrokenFile, match=match):
        load_generator(path)


def test_parts_of_a_zip_that_unfold_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(BrokenFile, match="larger than itself"):
        load_generator(path)


def test_torchscript_and_other_zips_are_named(tmp_path):
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vgg16/data.pkl", pickle.dumps({}, 2))
        archive.writestr("vgg16/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(ForeignFile, match="a TorchScript file"):
        load_generator(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ForeignFile, match="a zip file, but not of PyTorch"):
        load_generator(path)


def test_reading_takes_little_memory_beside_the_file(write_nvidia, tiny_stylegan2):
    path = write_nvidia(G_ema=tiny_stylegan2())
    load_generator(path)
    tracemalloc.start()
    load_generator(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * path.stat().st_size + 1_000_000
