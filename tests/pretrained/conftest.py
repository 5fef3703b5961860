"""What do the tests of weights share? A cache and a server of their own, and a writer of the published files."""

from __future__ import annotations

import collections
import hashlib
import pickle
import re
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

GAIN = 0.25  # A power of 2, so that folding it back in is exact.


class IrWriter:
    """Write an OpenVINO network: layers, edges, and constants in one block of bytes."""

    def __init__(self):
        self.layers, self.edges, self.weights = [], [], b""

    def layer(self, kind, name, *inputs):
        """Add a layer fed by others; return its id."""
        key = str(len(self.layers))
        self.layers.append(f"<layer id={quoteattr(key)} name={quoteattr(name)} type={quoteattr(kind)} version='opset1'/>")
        for port, source in enumerate(inputs):
            self.edges.append(f"<edge from-layer='{source}' from-port='0' to-layer='{key}' to-port='{port}'/>")
        return key

    def const(self, name, value):
        """Add a constant; return its id."""
        array = np.asarray(value)
        array = array.astype("<i8" if array.dtype.kind == "i" else "<f4")
        key, data = str(len(self.layers)), array.tobytes()
        kind = "i64" if array.dtype.kind == "i" else "f32"
        shape = ", ".join(str(n) for n in array.shape)
        attributes = f"element_type='{kind}' shape='{shape}' offset='{len(self.weights)}' size='{len(data)}'"
        self.layers.append(
            f"<layer id='{key}' name={quoteattr(name)} type='Const' version='opset1'><data {attributes}/></layer>"
        )
        self.weights += data
        return key

    def xml(self):
        """Return the XML."""
        layers, edges = "\n".join(self.layers), "\n".join(self.edges)
        head = "<?xml version='1.0'?>\n<net name='n' version='10'>"
        return f"{head}\n<layers>\n{layers}\n</layers>\n<edges>\n{edges}\n</edges>\n</net>".encode()


class Server:
    """A server on this machine that can break off, forget ranges, change its file or answer nonsense."""

    def __init__(self):
        self.content, self.etag, self.status, self.break_after, self.has_ranges = b"", '"one"', 200, None, True
        self.requests = []
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                state.requests.append((self.path, self.headers["Range"]))
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
                is_same = self.headers["If-Range"] == state.etag
                start = int(wanted[1]) if wanted and is_same and state.has_ranges else 0
                if wanted and is_same and start >= len(state.content):
                    self.send_error(416)
                    return
                body = state.content[start:]
                self.send_response(206 if start else state.status)
                self.send_header("Content-Length", str(len(body)))
                if state.etag:
                    self.send_header("ETag", state.etag)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
                self.end_headers()
                self.wfile.write(body if state.break_after is None else body[: state.break_after])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # Connections that a test breaks off are no news.
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/files/face.pkl"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def write_mapping(state, reshape_bias=True):
    """Write the mapping network as the published one is laid out."""
    ir = IrWriter()
    x = ir.layer("Parameter", "var")
    for i in range(sum(name.startswith("mapping.layers.") for name in state) // 2):
        product = ir.layer("MatMul", f"MatMul_{i}", x, ir.const(f"w{i}", state[f"mapping.layers.{i}.weight"]))
        bias = ir.const(f"b{i}", state[f"mapping.layers.{i}.bias"])
        if reshape_bias:
            bias = ir.layer("Reshape", f"Reshape_{i}", bias, ir.const(f"s{i}", np.array([1, -1])))
        x = ir.layer("Add", f"Add_{i}", product, bias)
        x = ir.layer("PReLU", f"PReLU_{i}", x, ir.const(f"slope{i}", [0.2]))
        x = ir.layer("Multiply", f"Mul_{i}", x, ir.const(f"gain{i}", [[2**0.5]]))
    ir.layer("Result", "w", x)
    return ir


def write_synthesis(state):
    """Write the synthesis network as the published one is laid out, with its names."""
    ir = IrWriter()
    style = ir.layer("Parameter", "style")

    def modulate(x, source, name, gain):
        weight, bias = (np.asarray(state[f"synthesis.{source}.{kind}"]) / (gain or 1) for kind in ("weight", "bias"))
        product = ir.layer("MatMul", f"{name}.mm", style, ir.const(f"{name}.modulation.weight", weight))
        scale = ir.layer("Add", f"{name}.gemm", product, ir.const(f"{name}.modulation.bias", bias[None]))
        scale = ir.layer("Reshape", f"{name}.reshape", scale, ir.const(f"{name}.shape", np.array([1, -1, 1, 1])))
        if gain:
            scale = ir.layer("Multiply", f"{name}.scaled", scale, ir.const(f"{name}.gain", np.float32(gain)))
        return ir.layer("Multiply", f"{name}.modulated", scale, x)

    def activate(x, source, name):
        x = ir.layer("Add", f"{name}.noisy", x, ir.const(f"{name}.noise1", state[f"synthesis.{source}.activation.noise"]))
        bias = np.asarray(state[f"synthesis.{source}.activation.bias"])[None]
        x = ir.layer("Add", f"{name}.biased", x, ir.const(f"{name}.bias", bias))
        return ir.layer("PReLU", f"{name}.prelu", x, ir.const(f"{name}.slope", [0.2]))

    x = ir.layer("Tile", "tile", ir.layer("Broadcast", "expand", ir.const("m.input.input", state["synthesis.const"])))
    x = modulate(x, "conv1.modulation", "m.conv1.conv", GAIN)
    x = ir.layer("Convolution", "conv_first", x, ir.const("Mul_39_copy", state["synthesis.conv1.conv.weight"]))
    x = activate(x, "conv1", "m.conv1")
    num_blocks = sum(name.endswith("up_modulation.weight") for name in state)
    for k in range(num_blocks):
        x = modulate(x, f"blocks.{k}.up_modulation", f"m.layers.{k}.up", None)
        x = ir.layer("GroupConvolutionBackpropData", f"haar{k}", ir.layer("VariadicSplit", f"split{k}", x))
        for conv in ("conv1", "conv2"):
            source, name = f"blocks.{k}.{conv}", f"m.layers.{k}.{conv}"
            x = modulate(x, f"{source}.modulation", f"{name}.conv", GAIN)
            depthwise = np.asarray(state[f"synthesis.{source}.depthwise.weight"])[:, None]
            x = ir.layer("GroupConvolution", f"{name}.dw", x, ir.const(f"{name}.conv.weight_dw", depthwise))
            pointwise = ir.const(f"{name}.copy", state[f"synthesis.{source}.pointwise.weight"])
            x = activate(ir.layer("Convolution", f"{name}.pw", x, pointwise), source, name)
    name = f"m.layers.{num_blocks - 1}.to_img"
    x = modulate(x, "to_image.modulation", f"{name}.conv", GAIN)
    x = ir.layer("Convolution", "rgb", x, ir.const(f"{name}.conv.weight", state["synthesis.to_image.conv.weight"]))
    bias = np.asarray(state["synthesis.to_image.conv.bias"]).reshape(1, -1, 1, 1)
    ir.layer("Result", "img", ir.layer("Add", "rgb.biased", x, ir.const(f"{name}.bias", bias)))
    return ir


@pytest.fixture
def server():
    """Return a server for as long as a test runs; the test gives it its content."""
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Let the cache of weights be an empty folder of this test."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("STYLEGAN_INVERT_SHARED", raising=False)
    return folder


@pytest.fixture
def published(tiny_generator):
    """The writers of the tiny generator's two networks, in the published layout."""
    state = tiny_generator.state_dict()
    return write_mapping(state), write_synthesis(state)


@pytest.fixture
def published_without_reshape(tiny_generator):
    """The same, where a bias feeds its addition directly."""
    return write_mapping(tiny_generator.state_dict(), reshape_bias=False)


@pytest.fixture
def entry(tmp_path, monkeypatch, cache, published):
    """A catalogue entry ``tiny``, and the wheel that it asks for, which is not in the cache."""
    from pretrained import catalog, mobilestylegan

    monkeypatch.setattr(mobilestylegan, "W_AVG_SAMPLES", 4096)
    wheel = tmp_path / "index" / "tiny_face-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for network, ir in zip(("Mapping", "Synthesis"), published, strict=True):
            archive.writestr(f"random_face/data/{network}Network.xml", ir.xml())
            archive.writestr(f"random_face/data/{network}Network.bin", ir.weights)
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
    entry = catalog.Wheel("tiny", "a tiny network", 256, "tiny-face==1", wheel.name, checksum, 1, "CC0, drawn by chance")
    monkeypatch.setitem(catalog.CATALOG, "tiny", entry)
    return entry, wheel


@pytest.fixture
def tiny_stylegan2():
    """A 16 px StyleGAN2 with labels or clamp as asked: weights random, noise and mean of W not zero."""
    import torch

    from generators.stylegan2 import StyleGAN2

    def make(**arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 3, "channel_base": 128, "channel_max": 16}
            generator = StyleGAN2(16, **(sizes | arguments))
            for name, value in generator.state_dict().items():
                if name.endswith(("noise_strength", "bias", "w_avg")):
                    value.add_(torch.randn_like(value) * 0.3)
        return generator.eval().requires_grad_(False)

    return make


@pytest.fixture
def tiny_discriminator():
    """A 16 px discriminator, its weights random."""
    import torch

    from generators.stylegan2 import StyleGAN2Discriminator

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return StyleGAN2Discriminator(16, 0, 128, 16).eval().requires_grad_(False)


@pytest.fixture
def write_nvidia(tmp_path, monkeypatch):
    """A writer of NVIDIA's container: networks as persistent objects under the global names of their code."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        pytest.fail("a pickle was run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    for name, module in {"torch_utils.persistence": persistence, "dnnlib.util": util}.items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))

    class Persistent:
        """Pickles a module as their code does; ``extra``, or what it returns of a module, goes into its state."""

        def __init__(self, module, extra):
            self.module, self.extra = module, extra

        def __reduce__(self):
            module = self.module
            state = {
                "training": False,
                "_parameters": module._parameters,
                "_buffers": module._buffers,
                "_non_persistent_buffers_set": set(),
                "_backward_hooks": collections.OrderedDict(),
                "_modules": collections.OrderedDict(
                    (name, child and Persistent(child, self.extra)) for name, child in module._modules.items()
                ),
                "_init_args": (),
                "_init_kwargs": util.EasyDict(act_gain=np.sqrt(2)),
                "act_gain": np.float64(2**0.5),
                **(self.extra(module) if callable(self.extra) else self.extra),
            }
            meta = util.EasyDict(type="class", version=6, module_src="raise SystemExit", state=state)
            meta["class_name"] = type(module).__name__
            return persistence._reconstruct_persistent_obj, (meta,)

    def write(name="network.pkl", protocol=4, extra=None, save=pickle.dump, **networks):
        path = tmp_path / name
        value = {role: network and Persistent(network, extra or {}) for role, network in networks.items()}
        value = value.get("alone") or value | {"training_set_kwargs": util.EasyDict(path="x"), "augment_pipe": None}
        with path.open("wb") as file:
            save(value, file, **({"protocol": protocol} if save is pickle.dump else {}))
        return path

    return write


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that hostile pickles try to make, and a check that none did."""
    path = tmp_path / "canary"
    monkeypatch.chdir(tmp_path)
    yield path
    assert not path.exists(), "a file was run"
