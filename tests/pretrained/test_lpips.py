"""Is LPIPS filled from whatever holds its backbone, always to the same network, and never with something else?"""

from __future__ import annotations

import urllib.error
from http.client import IncompleteRead

import pytest
import torch
from torchvision.models import _api as torchvision_api
from torchvision.models import squeezenet1_1

from encoders.backbone import SqueezeBackbone
from pretrained import lpips
from pretrained.errors import BrokenFile, DownloadFailed
from pretrained.lpips import BACKBONE_FILE, SHARED_FILE, load_lpips_squeeze, lpips_backbone_file, squeezenet_imagenet


def varint(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_file(state):
    """Write tensors as ONNX initialisers."""
    tensors = b""
    for name, value in state.items():
        dims = b"".join(varint(1 << 3) + varint(n) for n in value.shape)
        body = dims + varint(2 << 3) + varint(1) + message(8, name.encode()) + message(9, value.numpy().tobytes())
        tensors += message(5, body)
    return message(7, tensors)


@pytest.fixture(scope="module")
def weights():
    """Return an LPIPS state dict whose backbone is random, but fixed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: value.clone() for name, value in lpips._build(pnet_rand=True).state_dict().items()}


@pytest.fixture
def images():
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_file_in_the_cache_fills_it_alike_every_time(cache, weights, images):
    (cache / BACKBONE_FILE).write_bytes(onnx_file({f"core.{name}": value for name, value in weights.items()}))
    assert lpips_backbone_file() == cache / BACKBONE_FILE
    first, second = load_lpips_squeeze(), load_lpips_squeeze()
    for name, value in first.state_dict().items():
        assert torch.equal(value, weights[name]), name
        assert torch.equal(value, second.state_dict()[name]), name
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    distance = first(images[0], images[1]).flatten()
    assert distance.shape == (3,)
    assert (distance > 0).all()
    assert torch.equal(first(images[0], images[0]).flatten(), torch.zeros(3))


def test_the_cache_goes_before_the_reference_data(cache, weights, tmp_path, monkeypatch):
    shared = tmp_path / "shared" / SHARED_FILE
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"")
    monkeypatch.setenv("STYLEGAN_INVERT_SHARED", str(tmp_path / "shared"))
    assert lpips_backbone_file() == shared
    (cache / BACKBONE_FILE).write_bytes(b"")
    assert lpips_backbone_file() == cache / BACKBONE_FILE


def test_a_file_of_something_else_is_refused(cache, weights):
    file = cache / BACKBONE_FILE
    file.write_bytes(b"<html>")
    with pytest.raises(BrokenFile, match="not a readable ONNX file"):
        load_lpips_squeeze()
    some = {f"core.{name}": value for name, value in weights.items() if "slice3" not in name}
    file.write_bytes(onnx_file(some))
    with pytest.raises(BrokenFile, match=r"not LPIPS with SqueezeNet: it lacks net\.slice3"):
        load_lpips_squeeze()
    file.write_bytes(onnx_file({f"core.{name}": value[:1] for name, value in weights.items()}))
    with pytest.raises(BrokenFile, match=r"not LPIPS with SqueezeNet: other shapes of net\.slice1"):
        load_lpips_squeeze()


def test_without_a_file_torchvisions_weights_fill_the_backbone(cache, weights, monkeypatch):
    published = squeezenet1_1(weights=None).state_dict()
    asked = []
    monkeypatch.setattr(torchvision_api, "load_state_dict_from_url", lambda url, **_: asked.append(url) or published)
    assert lpips_backbone_file() is None
    model = load_lpips_squeeze()
    assert len(asked) == 1
    assert torch.equal(model.state_dict()["net.slice1.0.weight"], published["features.0.weight"])
    assert torch.equal(model.state_dict()["net.slice7.12.expand3x3.bias"], published["features.12.expand3x3.bias"])
    for name, value in weights.items():  # The heads are the package's own.
        assert name.startswith("net.") or torch.equal(model.state_dict()[name], value), name


def test_its_backbone_starts_an_encoder(cache, monkeypatch):
    published = squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(torchvision_api, "load_state_dict_from_url", lambda *_, **__: published)
    backbone = SqueezeBackbone()
    backbone.load_state_dict(squeezenet_imagenet())
    assert all(torch.equal(value, published[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), ConnectionResetError("reset"), RuntimeError("invalid hash"), IncompleteRead(b"")],
)
def test_a_failing_download_names_the_address_and_the_folder(cache, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision_api, "load_state_dict_from_url", fail)
    with pytest.raises(DownloadFailed, match=r"https://download\.pytorch\.org/.*squeezenet1_1.*by hand"):
        load_lpips_squeeze()


def test_a_damaged_download_is_fetched_again(cache, monkeypatch, caplog):
    damaged = lpips._downloaded()
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a file")
    published = squeezenet1_1(weights=None).state_dict()
    there = []
    monkeypatch.setattr(
        torchvision_api, "load_state_dict_from_url", lambda *_, **__: there.append(damaged.exists()) or published
    )
    load_lpips_squeeze()
    assert there == [False]
    assert "damaged: it is fetched again" in caplog.text


@pytest.mark.shared
def test_the_published_file_fills_it_and_keeps_the_packages_own_heads(cache, shared_folder, monkeypatch, weights, images):
    if not (shared_folder / SHARED_FILE).is_file():
        pytest.skip(f"the reference data has no {SHARED_FILE}")
    monkeypatch.setenv("STYLEGAN_INVERT_SHARED", str(shared_folder))
    first, second = load_lpips_squeeze(), load_lpips_squeeze()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
        assert name.startswith("net.") or torch.equal(value, weights[name]), name
    assert torch.equal(first(images[0], images[0]).flatten(), torch.zeros(3))
    assert (first(images[0], images[1]) > 0.05).all()
