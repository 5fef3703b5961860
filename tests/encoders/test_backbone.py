"""Does the backbone give the features that it promises, under names that published weights fit?"""

from __future__ import annotations

import pytest
import torch
from torchvision.models import squeezenet1_1

from encoders import irse
from encoders.arcface import ArcFace
from encoders.backbone import IRSEBackbone, SqueezeBackbone


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SqueezeBackbone().eval().requires_grad_(False)


def faces(batch=1, side=256):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_256_px_face_gives_features_of_64_32_and_16_px(backbone):
    shapes = [tuple(x.shape) for x in backbone(faces())]
    assert shapes == [(1, 128, 64, 64), (1, 256, 32, 32), (1, 512, 16, 16)]
    assert backbone.out_channels == (128, 256, 512)


def test_features_do_not_depend_on_the_rest_of_the_batch(backbone):
    images = faces(2, 64)
    for both, alone in zip(backbone(images), backbone(images[1:]), strict=True):
        torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_the_weights_of_torchvision_fit_and_mean_the_same(backbone):
    published = squeezenet1_1(weights=None).eval().requires_grad_(False)
    own = SqueezeBackbone().eval().requires_grad_(False)
    own.load_state_dict({k: v for k, v in published.state_dict().items() if k.startswith("features.")})
    published.features[0].padding = (1, 1)  # The one difference.
    image = faces(1, 64)
    # ImageNet's own numbers, for images in [0, 1].
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = published.features((image / 2 + 0.5 - mean) / std)
    torch.testing.assert_close(own(image)[2], expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_image(backbone):
    image = faces(1, 64).requires_grad_(True)
    sum(x.square().mean() for x in backbone(image)).backward()
    assert image.grad.abs().sum() > 0


def test_ir_se50_has_arcfaces_names_and_the_same_three_features(monkeypatch):
    with torch.device("meta"):
        published = ArcFace().state_dict()
        network = IRSEBackbone()
    own = {name: value.shape for name, value in network.state_dict().items()}
    assert own == {name: value.shape for name, value in published.items() if not name.startswith("output_layer.")}
    assert IRSEBackbone.FIRST in own
    monkeypatch.setattr(IRSEBackbone, "units", (1, 1, 1, 1))
    small = IRSEBackbone().eval().requires_grad_(False)
    assert [tuple(x.shape) for x in small(faces())] == [(1, 128, 64, 64), (1, 256, 32, 32), (1, 512, 16, 16)]
    image = faces(1, 64)
    expected = irse.pyramid_features(small.body, small.input_layer(image), (1, 1, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(small(image), expected, strict=True))
