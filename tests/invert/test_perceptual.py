from __future__ import annotations

import pytest
import torch

from invert.perceptual import encoder_distance, load_perceptual, load_training_perceptual
from pretrained.errors import DownloadFailed


@pytest.fixture
def no_backbone(monkeypatch, tiny_encoder):
    def fail():
        raise DownloadFailed("no network")

    monkeypatch.setattr("pretrained.lpips.load_lpips_squeeze", fail)
    monkeypatch.setattr("pretrained.loading.load_encoder", lambda *_: tiny_encoder)


def test_the_encoders_distance_is_zero_for_equal_images_and_grows_with_noise(tiny_encoder):
    distance = encoder_distance(tiny_encoder)
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    noise = torch.randn(2, 3, 256, 256)
    with torch.no_grad():
        equal, near, far = (distance(image, image + amount * noise) for amount in (0, 0.05, 0.5))
    assert equal.tolist() == [0, 0]
    assert (near < far).all()


def test_without_lpips_another_distance_takes_its_place_under_its_own_name(no_backbone):
    told = []
    distance = load_perceptual(notify=told.append)
    assert "LPIPS" not in distance.name
    assert "it is not LPIPS" in told[0]


def test_without_lpips_training_has_no_perceptual_term(no_backbone):
    told = []
    distance = load_training_perceptual(notify=told.append)
    assert distance(torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)).tolist() == [0, 0]
    assert "off" in told[0]
