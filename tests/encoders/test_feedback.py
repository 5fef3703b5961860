"""Does an encoder that looks again come closer to the face, and never further away?"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from encoders.base import Encoder
from encoders.compact import compact_encoder
from encoders.feedback import GAIN, look_again
from generators.base import Generator
from generators.latent import as_stylemaps


class Shy(Encoder):
    """An encoder of a known generator that finds a share of the code, and something that is always there."""

    input_resolution = 8
    num_ws, w_dim = 2, 3

    def __init__(self, share, bias=0.1):
        super().__init__()
        self.share, self.bias = share, bias

    def forward(self, image):
        pixel = image.mean((2, 3))
        return torch.stack([self.share * pixel + self.bias, torch.zeros_like(pixel)], dim=1)


class Plain(Generator):
    """A generator whose image has its first style for a colour."""

    def synthesis(self, latent):
        return as_stylemaps(latent)[0].expand(-1, -1, 16, 16).contiguous()


def faces(batch=3):
    return (torch.rand(batch, 3, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5).expand(-1, -1, 8, 8).contiguous()


def test_looks_add_what_the_encoder_does_not_find_in_the_drawing():
    image = faces()
    (first, _), (second, drawn) = look_again(Shy(0.8), Plain(), image, 2)
    colour = image[:, :, 0, 0]
    torch.testing.assert_close(first[:, 0], 0.8 * colour + 0.1)
    torch.testing.assert_close(second[:, 0], first[:, 0] + GAIN * 0.8 * (colour - first[:, 0]))
    torch.testing.assert_close(drawn, Plain().synthesis(second))


def test_many_looks_reach_the_face():
    image = faces()
    *_, (latent, drawn) = look_again(Shy(0.8), Plain(), image, 20)
    torch.testing.assert_close(latent[:, 0], image[:, :, 0, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn, image.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("share", [-1.0, 3.0, 6.0])
def test_looks_are_never_further_away_even_where_the_encoder_overshoots(share):
    image = faces()
    errors = []
    for _, drawn in look_again(Shy(share), Plain(), image, 6):
        errors.append((drawn[:, :, ::2, ::2] - image).square().mean((1, 2, 3)))
    for before, after in itertools.pairwise(errors):
        assert (after <= before).all()


def test_a_small_drawing_is_looked_at_as_the_training_shows_it():
    drawing = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    class Small(Generator):
        def synthesis(self, latent):
            return drawing

    encoder, seen = Shy(0.8), []
    encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    list(look_again(encoder, Small(), faces(1), 2))
    torch.testing.assert_close(seen[1], F.interpolate(drawing, (8, 8), mode="bilinear", align_corners=False))


def test_faces_do_not_depend_on_each_other():
    image = faces()
    *_, (both, _) = look_again(Shy(2.5), Plain(), image, 4)
    *_, (alone, _) = look_again(Shy(2.5), Plain(), image[1:2], 4)
    torch.testing.assert_close(both[1:2], alone)


def test_a_stylemap_stays_a_stylemap_and_its_drawing_belongs_to_it(tiny_generator):
    encoder = compact_encoder("stylemap-e", tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8).eval()
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    *_, (latent, drawn) = look_again(encoder, tiny_generator, image, encoder.looks)
    assert isinstance(latent, tuple)
    with torch.no_grad():
        torch.testing.assert_close(drawn, tiny_generator.synthesis(latent))


def test_looks_correct_the_pixels_of_a_map_and_keep_its_mean_style():
    class ShyMaps(Shy):
        def forward(self, image):
            pixels = F.avg_pool2d(image, 4)
            return self.share * pixels + self.bias, torch.zeros_like(pixels)

    class Mosaic(Generator):
        def synthesis(self, latent):
            return as_stylemaps(latent)[0].repeat_interleave(8, 2).repeat_interleave(8, 3)

    image = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    (first, _), (second, _) = look_again(ShyMaps(0.8), Mosaic(), image, 2)
    missing = 0.8 * (F.avg_pool2d(image, 4) - first[0])
    torch.testing.assert_close(second[0] - first[0], GAIN * (missing - missing.mean((2, 3), keepdim=True)))
    torch.testing.assert_close(second[0].mean((2, 3)), first[0].mean((2, 3)))
