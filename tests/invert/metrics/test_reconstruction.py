from __future__ import annotations

import torch
import torch.nn.functional as F

from invert.inversion import resize
from invert.metrics import reconstruction


def test_equal_images_have_no_error(cheap_distance):
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    figures = reconstruction(image, image, cheap_distance)
    assert figures.mse.tolist() == [0, 0]
    assert figures.perceptual.tolist() == [0, 0]
    assert figures.perceptual_name == "mean absolute difference"


def test_black_against_white_has_the_largest_squared_error(cheap_distance):
    black, white = -torch.ones(1, 3, 256, 256), torch.ones(1, 3, 512, 512)
    assert reconstruction(black, white, cheap_distance).mse.item() == 4


def test_larger_images_are_pooled_before_they_are_compared(cheap_distance):
    small = torch.rand(1, 3, 256, 256)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert reconstruction(large, small, cheap_distance).mse.item() < 1e-10


def test_resizing_keeps_the_mean_and_the_range():
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.allclose(resize(image, 16).mean(), image.mean(), atol=1e-6)
    assert resize(image, 200).abs().max() <= 1


def test_resizing_looks_at_the_longer_side():
    image = torch.rand(1, 3, 64, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for turned in (image, image.mT):
        # The mean of four pixels along the longer side; bicubic interpolation would skip pixels.
        assert torch.allclose(resize(turned, 16), F.adaptive_avg_pool2d(turned, 16), atol=1e-6)
