"""Do EQ-T and EQ-R come out as they must for images that move with their input, and for images that do not?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generators.base import Generator, Identity
from generators.errors import UnknownName
from generators.stylegan3 import StyleGAN3
from invert.errors import MetricError, TooFewImages
from invert.metrics.equivariance import DESCRIPTIONS, Equivariance, equivariance, pseudo_rotate, rotate, translate
from invert.quality import Settings, measure_generator

SIDE = 64


class Waves(nn.Module):
    """Draws sine waves of low frequency: exactly equivariant, since it is a function of where its input is."""

    def __init__(self, frequency=4.0):
        super().__init__()
        self.frequency = frequency
        self.input = nn.Module()
        self.input.register_buffer("transform", torch.eye(3))

    def forward(self, latent):
        steps = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
        at = torch.stack([*torch.meshgrid(steps, steps, indexing="xy"), torch.ones(SIDE, SIDE)], -1) @ self.input.transform.T
        phases = latent[:, 0, :3, None, None]
        angles = torch.tensor([0.3, 1.5, 2.6])[None, :, None, None]
        along = at[..., 0] * angles.cos() + at[..., 1] * angles.sin()
        return torch.sin(2 * math.pi * self.frequency * along + phases) / 2


class Noise(Waves):
    """Draws the same white noise wherever its input is, 0.25 strong."""

    def forward(self, latent):
        return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.25


class Corner(Waves):
    """Draws the first pixels of waves."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, latent):
        return super().forward(latent)[:, :, : self.side, : self.side]


class Identically(nn.Module):
    """Maps z to itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(3))

    def forward(self, z):
        return z[:, None].repeat(1, 2, 1)


class Toy(Generator):
    def __init__(self, synthesis):
        super().__init__()
        self.mapping, self.synthesis, self.z_dim = Identically(), synthesis, 3


def test_waves_that_move_with_their_input_are_equivariant():
    found = equivariance(Toy(Waves()), 8)
    assert found["eq-t"].decibels > 100, "whole pixels: rounding alone"
    assert found["eq-t-frac"].decibels > 45, "what the interpolating filter leaves"
    assert found["eq-r"].decibels > 45
    assert all((result.per_sample > 40).all() for result in found.values())


def test_noise_that_stays_has_the_closed_form():
    # Two independent pixels differ by 2 sigma^2 in the mean square: 20 log10(2) - 10 log10(2 / 16) = 15.05 dB.
    found = equivariance(Toy(Noise()), 8, ["eq-t"])
    assert found["eq-t"].decibels == pytest.approx(20 * math.log10(2) - 10 * math.log10(2 * 0.25**2), abs=0.2)


def test_waves_that_go_beyond_what_the_grid_holds_are_worse():
    low, high = (equivariance(Toy(Waves(f)), 4, ["eq-r"])["eq-r"].decibels for f in (4.0, 28.0))
    assert high < low - 10


def test_an_untrained_stylegan3_moves_by_whole_pixels_and_gets_its_transform_back():
    torch.manual_seed(0)
    generator = StyleGAN3(
        32, z_dim=8, w_dim=8, channel_base=256, channel_max=16, num_layers=6, num_critical=1, margin_size=6
    ).eval()
    generator.identity = Identity("tiny")
    transform = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    generator.synthesis.input.transform.copy_(transform)
    told = []
    found = equivariance(generator, 2, on_sample=told.append)
    assert told == [1, 2]
    assert found.keys() == DESCRIPTIONS.keys()
    assert all(math.isfinite(result.decibels) for result in found.values())
    assert torch.equal(generator.synthesis.input.transform, transform)
    again = equivariance(generator, 2)
    assert [again[kind].decibels for kind in again] == [found[kind].decibels for kind in found]


@pytest.mark.parametrize("side", [8, 12, 14])
def test_images_that_the_filter_does_not_fit_into_are_told_and_can_still_be_translated(side):
    found = equivariance(Toy(Corner(side)), 3)
    with pytest.raises(MetricError, match=f"images of {side} px are too small for the filter"):
        _ = found["eq-r"].decibels
    assert len(found["eq-r"].per_sample) == 0
    assert math.isfinite(found["eq-t"].decibels)
    figures = {
        figure.description.key: figure for figure in measure_generator(Toy(Corner(side)), list(DESCRIPTIONS), Settings(3))
    }
    assert figures["eq-t"].value is not None
    assert (figures["eq-r"].value, figures["eq-r"].note.startswith(f"images of {side} px are")) == (None, True)


def test_samples_of_which_nothing_counts_are_left_out():
    found = Equivariance(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 4.0]), 13)
    assert found.per_sample.tolist() == [found.decibels]


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_whole_pixels_are_moved_exactly(right, down):
    image = torch.rand(1, 2, SIDE, SIDE).repeat(1, 2, 1, 1)[:, :3]
    moved, mask = translate(image, float(right), float(down))
    assert mask.sum() == (SIDE - abs(right)) * (SIDE - abs(down))
    for y, x in ((32, 32), (30, 41)):
        assert torch.equal(moved[:, :, y + down, x + right], image[:, :, y, x])
        assert mask[y + down, x + right] == 1


@given(st.floats(-5, 5), st.floats(-5, 5))
@settings(max_examples=20)
def test_fractions_of_pixels_are_moved_as_the_wave_moves(right, down):
    steps = torch.arange(float(SIDE))
    wave = torch.sin(0.4 * steps[:, None] + 0.3 * steps).expand(1, 3, SIDE, SIDE)
    moved, mask = translate(wave, right, down)
    expected = torch.sin(0.4 * (steps[:, None] - down) + 0.3 * (steps - right))
    assert ((moved - expected) * mask).abs().max() < 0.02


def test_a_quarter_turn_is_torchs():
    small = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    image = nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic")
    turned, mask = rotate(image, math.pi / 2)
    filtered, known = pseudo_rotate(image.rot90(1, (2, 3)), math.pi / 2)
    assert ((turned - filtered) * mask * known).abs().max() < 2e-3
    assert mask.sum() == (SIDE - 12) ** 2


def test_colours_that_do_not_change_are_kept_by_every_filter():
    image = torch.full((1, 3, SIDE, SIDE), 0.7)
    for moved, mask in (translate(image, 0.3, -1.6), rotate(image, 0.4), pseudo_rotate(image, 0.4)):
        assert ((moved - 0.7) * mask).abs().max() < 1e-5
        assert mask.sum() > 1000


def test_a_generator_whose_input_cannot_be_moved_is_refused(tiny_generator):
    with pytest.raises(MetricError, match=r"tiny.*MobileStyleGAN has no input that can be moved"):
        equivariance(tiny_generator, 2)


def test_bad_requests_are_refused():
    with pytest.raises(UnknownName, match="did you mean eq-t"):
        equivariance(Toy(Waves()), 2, ["eq-tt"])
    with pytest.raises(TooFewImages):
        equivariance(Toy(Waves()), 0)
