"""Is LPIPS filled from whatever holds its backbone, always to the same network, and never with something else?"""

from __future__ import annotations

import pytest
import torch
from torchvision.models import alexnet, squeezenet1_1, vgg16

from encoders.backbone import SqueezeBackbone
from generators.errors import UnknownName
from pretrained import lpips
from pretrained.backbones import Backbone
from pretrained.errors import BrokenFile, DownloadFailed
from pretrained.lpips import (
    BACKBONE_FILE,
    BACKBONES,
    SHARED_FILE,
    load_lpips,
    load_lpips_squeeze,
    lpips_backbone_file,
    squeezenet_imagenet,
)


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
        return {name: value.clone() for name, value in lpips._build("squeeze", pnet_rand=True).state_dict().items()}


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


@pytest.mark.parametrize(
    ("net", "model", "first", "last"),
    [
        ("alex", alexnet, "slice1.0.weight", "slice5.10.bias"),
        ("vgg", vgg16, "slice1.0.weight", "slice5.28.bias"),
        ("squeeze", squeezenet1_1, "slice1.0.weight", "slice7.12.expand3x3.bias"),
    ],
)
def test_without_a_file_torchvisions_weights_fill_the_backbone(cache, monkeypatch, images, net, model, first, last):
    # VGG16's and AlexNet's classifiers are large, and play no part.
    published = {name: value for name, value in model(weights=None).state_dict().items() if name.startswith("features.")}
    asked = []
    monkeypatch.setattr(Backbone, "state_dict", lambda self: asked.append(self.file_name) or published)
    heads = lpips._build(net, pnet_rand=True).state_dict()
    network = load_lpips(net)
    assert asked == [BACKBONES[net].file_name]
    for name in (first, last):
        assert torch.equal(network.state_dict()[f"net.{name}"], published[f"features.{name.split('.', 1)[1]}"])
    for name, value in heads.items():  # The heads are the package's own.
        assert name.startswith("net.") or torch.equal(network.state_dict()[name], value), name
    assert network(images[0], images[0]).abs().max() < 1e-6
    assert (network(images[0], images[1]) > 0).all()


def test_its_backbone_starts_an_encoder(cache, monkeypatch):
    published = squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(Backbone, "state_dict", lambda self: published)
    backbone = SqueezeBackbone()
    backbone.load_state_dict(squeezenet_imagenet())
    assert all(torch.equal(value, published[name]) for name, value in backbone.state_dict().items())


def test_a_backbone_of_another_network_is_refused(cache, monkeypatch):
    monkeypatch.setattr(Backbone, "state_dict", lambda self: {"features.0.weight": torch.zeros(1)})
    with pytest.raises(BrokenFile, match="LPIPS's SqueezeNet: it lacks"):
        load_lpips_squeeze()


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(UnknownName, match="alex, squeeze, vgg"):
        load_lpips("vgg19")


def test_a_failing_download_is_told(cache, monkeypatch):
    def fail(self):
        raise DownloadFailed("no network")

    monkeypatch.setattr(Backbone, "state_dict", fail)
    with pytest.raises(DownloadFailed, match="no network"):
        load_lpips_squeeze()


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
