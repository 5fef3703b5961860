"""Is every metric found by its name, described in full, and missing only with a reason?"""

from __future__ import annotations

import math

import lpips
import pytest
import torch
from torchvision.models import squeezenet1_1
from torchvision.transforms.functional import normalize

from generators.errors import UnknownName
from invert.errors import ImageError, MetricError, MetricUnavailable
from invert.inversion import resize
from invert.metrics import (
    PAIR_METRICS,
    SET_METRICS,
    load_features,
    load_pair_metric,
    load_set_metric,
    mse,
    reconstruction,
    ssim,
)
from invert.metrics.base import check_image
from invert.metrics.features import FEATURE_NETWORKS, FeatureNetwork
from invert.perceptual import Perceptual
from pretrained.backbones import Backbone
from pretrained.errors import DownloadFailed
from pretrained.lpips import SHARED_FILE


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def fail(self):
        raise DownloadFailed(f"{self.what} could not be fetched from {self.url}; put that file into the cache")

    monkeypatch.setattr(Backbone, "fetch", fail)
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path))
    monkeypatch.delenv("STYLEGAN_INVERT_SHARED", raising=False)
    monkeypatch.setattr("invert.identity.find_predictor", lambda: None)


@pytest.mark.parametrize("key", PAIR_METRICS)
def test_without_its_weights_a_metric_is_there_or_says_why_not(key, offline):
    if key in ("mse", "psnr", "ssim", "ms-ssim"):
        assert load_pair_metric(key).key == key
        return
    with pytest.raises(MetricUnavailable, match=r"could not be fetched from https|pip install|put it there"):
        load_pair_metric(key)


@pytest.mark.parametrize("key", FEATURE_NETWORKS)
def test_without_its_weights_a_feature_network_says_why_not(key, offline):
    with pytest.raises(MetricUnavailable, match="could not be fetched from https"):
        load_features(key)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(UnknownName, match="did you mean lpips-alex"):
        load_pair_metric("lpips-alexnet")
    with pytest.raises(UnknownName, match="known: inception, squeezenet"):
        load_features("clip")
    with pytest.raises(UnknownName, match="did you mean fid"):
        load_set_metric("fidd", FeatureNetwork("toy", "toy", 3, lambda image: image.mean((2, 3))))


def test_set_metrics_take_any_function_of_images(tmp_path):
    network = FeatureNetwork("mean", "mean colour", 3, lambda image: image.mean((2, 3)))
    random = torch.Generator().manual_seed(0)
    for key in SET_METRICS:
        metric = load_set_metric(key, network)
        for is_real in (False, True):
            metric.update(network(torch.rand(60, 3, 8, 8, generator=random)), is_real)
        assert all(math.isfinite(value) for value in metric.compute().values())


@pytest.fixture
def packages_own(monkeypatch, tmp_path):
    """Make LPIPS by the ``lpips`` package alone, and let its random backbone be what torchvision publishes."""
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path))
    monkeypatch.delenv("STYLEGAN_INVERT_SHARED", raising=False)

    def make(net):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
        slices = {name: value for name, value in model.state_dict().items() if name.startswith("net.slice")}
        published = {f"features.{name.split('.', 2)[2]}": value for name, value in slices.items()}
        monkeypatch.setattr(Backbone, "state_dict", lambda self: published)
        return model, published

    return make


@pytest.mark.parametrize(
    ("net", "name"), [("alex", "LPIPS-AlexNet"), ("vgg", "LPIPS-VGG16"), ("squeeze", "LPIPS-SqueezeNet")]
)
def test_lpips_is_the_lpips_packages_own(net, name, packages_own):
    theirs, _ = packages_own(net)
    metric = load_pair_metric(f"lpips-{net}")
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = theirs(a, b).flatten().tolist()
    assert metric.measure(a, b).tolist() == pytest.approx(expected, rel=1e-5)
    assert metric.measure(a, a).abs().max() < 1e-6
    assert metric.name == name
    assert metric.resolution == 256


def test_squeezenets_features_are_torchvisions(packages_own):
    _, published = packages_own("squeeze")
    network = load_features("squeezenet")
    theirs = squeezenet1_1(weights=None).features
    theirs.load_state_dict({name.removeprefix("features."): value for name, value in published.items()})
    image = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        expected = theirs(normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))).mean((2, 3))
    features = network(image * 2 - 1)
    assert features.shape == (2, network.width)
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_inception_gets_levels_of_0_to_255(monkeypatch):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, levels):
            seen.append(levels)
            return (levels.float().mean((2, 3)),)

    monkeypatch.setattr("pretrained.backbones.load_inception", Network)
    network = load_features("inception")
    assert network(torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None])[0].tolist() == [0, 128, 255]
    assert seen[0].dtype == torch.uint8
    assert network.width == 2048


@pytest.mark.parametrize(("size", "other"), [((128, 256), (256, 256)), ((128, 256), (256, 128)), ((300, 256), (256, 256))])
def test_images_of_other_aspect_ratios_are_not_squashed_and_compared(size, other):
    image, target = torch.zeros(1, 3, *size), torch.zeros(1, 3, *other)
    words = f"images of {size[1]}x{size[0]} and {other[1]}x{other[0]} px: expected equal aspect ratios"
    with pytest.raises(MetricError, match=f"MSE: {words}"):
        load_pair_metric("mse").per_image(image, target)
    with pytest.raises(MetricError, match=f"reconstruction: {words}"):
        reconstruction(image, target, Perceptual("none", lambda a, b: torch.zeros(1)))


@pytest.mark.parametrize(("size", "other"), [((512, 512), (256, 257)), ((667, 1000), (333, 500)), ((64, 96), (256, 384))])
def test_images_of_one_aspect_ratio_are_compared_whatever_their_sizes(size, other):
    assert load_pair_metric("mse").per_image(torch.zeros(1, 3, *size), torch.zeros(1, 3, *other)) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_features_are_made_of_what_is_not_finite(value):
    network = FeatureNetwork("mean", "mean colour", 3, lambda image: image.nan_to_num().mean((2, 3)))
    with pytest.raises(ImageError, match="48 values that are NaN or infinite"):
        network(torch.full((1, 3, 4, 4), value))


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 4, 8, 8), torch.zeros(3, 8, 8)]
)
def test_features_are_of_images_alone(image):
    # Asked directly: in the tests jaxtyping would speak first.
    with pytest.raises(MetricError, match=r"expected floats of shape \(batch, 3, height, width\) in \[-1, 1\], got"):
        check_image(image)


@pytest.mark.shared
def test_the_published_squeezenet_separates_noise_from_faces(shared_folder, monkeypatch):
    if not (shared_folder / SHARED_FILE).is_file():
        pytest.skip(f"the reference data has no {SHARED_FILE}")
    monkeypatch.setenv("STYLEGAN_INVERT_SHARED", str(shared_folder))
    metric = load_pair_metric("lpips-squeeze")
    image = torch.zeros(1, 3, 256, 256)
    near, far = (metric.per_image(image + amount * torch.randn_like(image), image) for amount in (0.05, 0.5))
    assert 0 < near < far


def test_images_of_one_small_size_are_compared_as_they_are_and_others_at_256_px():
    random = torch.Generator().manual_seed(0)
    small, other, large = (torch.rand(2, 3, side, side, generator=random) * 2 - 1 for side in (64, 64, 512))
    assert torch.equal(load_pair_metric("mse").per_image(small, other), mse(small, other))
    assert torch.equal(load_pair_metric("ssim").per_image(small, other), ssim(small, other))
    expected = mse(resize(small, 256), resize(large, 256))
    assert torch.equal(load_pair_metric("mse").per_image(small, large), expected)
    with pytest.raises(MetricError, match="64x64 px: expected at least 176 px"):
        load_pair_metric("ms-ssim").per_image(small, other)
