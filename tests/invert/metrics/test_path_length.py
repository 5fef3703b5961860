"""Does the perceptual path length come out as it must on generators whose images are known in closed form?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchmetrics.functional.image import perceptual_path_length as torchmetrics_ppl

from generators.base import Generator
from generators.errors import UnknownName
from invert.errors import TooFewImages
from invert.metrics.path_length import PathLengths, PerceptualPathLength, perceptual_path_length, slerp
from invert.perceptual import Perceptual

SQUARED = Perceptual("squared difference", lambda a, b: (a - b).square().sum((1, 2, 3)))
DIM, SIDE = 6, 4


class Identically(nn.Module):
    """Maps z to itself, and keeps what it was given."""

    def __init__(self, w_avg):
        super().__init__()
        self.register_buffer("w_avg", w_avg)
        self.given = []

    def forward(self, z):
        self.given.append(z)
        return z[:, None].repeat(1, 2, 1)


class LinearGenerator(Generator):
    """Image = A w, and w = z: all paths are known."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.z_dim = matrix, matrix.shape[1]
        self.mapping = Identically(torch.zeros(self.z_dim, dtype=matrix.dtype))

    def synthesis(self, latent):
        return (latent.mean(1) @ self.matrix.T).reshape(len(latent), 3, SIDE, SIDE)


@pytest.fixture
def matrix():
    return torch.randn(3 * SIDE * SIDE, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def rotation(matrix):
    """Columns of unit length at right angles: distances between images are those between codes."""
    return torch.linalg.qr(matrix).Q


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_in_w_a_linear_generator_has_the_mean_squared_length_of_its_paths(matrix, sampling):
    found = PerceptualPathLength(SQUARED, "w", sampling)(LinearGenerator(matrix), 4000, batch_size=500)
    # E |A (w1 - w0)|^2 = 2 |A|^2 for independent normal ends, wherever on the path.
    expected = 2 * matrix.square().sum().item()
    error = found.lengths.std() / len(found.lengths) ** 0.5
    assert abs(found.lengths.mean() - expected) < 4 * error


def test_every_single_length_in_w_is_exact(rotation):
    generator = LinearGenerator(rotation)
    found = PerceptualPathLength(SQUARED, "w", "full")(generator, 50, batch_size=50)
    begin, end = generator.mapping.given[0].unflatten(0, (50, 2)).unbind(1)
    assert torch.allclose(found.lengths, (end - begin).square().sum(1), rtol=1e-6)


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_every_single_length_in_z_is_the_squared_angle_under_a_rotation(rotation, sampling):
    # slerp walks along the unit circle at a constant speed: the angle between the ends; the chord is short by eps^2 / 24.
    generator = LinearGenerator(rotation)
    full = PerceptualPathLength(SQUARED, "z", sampling)
    lengths = full(generator, 50, batch_size=50).lengths
    near, far = generator.mapping.given[0].chunk(2)
    speed = (near - far).norm(dim=1) / full.epsilon
    assert torch.allclose(lengths, speed.square(), rtol=1e-6)
    assert torch.allclose(near.norm(dim=1), torch.ones(50, dtype=torch.float64))
    # Angles of random directions in 6 dimensions have mean pi / 2.
    assert speed.mean().item() == pytest.approx(math.pi / 2, rel=0.1)
    assert speed.max() <= math.pi


def test_single_precision_is_enough(rotation):
    in_double = PerceptualPathLength(SQUARED, "w", "full")(LinearGenerator(rotation), 200).mean
    assert perceptual_path_length(LinearGenerator(rotation.float()), SQUARED, 200, "w", "full") == pytest.approx(
        in_double, rel=1e-3
    )


@pytest.mark.parametrize(("space", "method"), [("w", "lerp"), ("z", "slerp_unit")])
def test_it_agrees_with_torchmetrics_on_the_same_paths(matrix, space, method):
    found = PerceptualPathLength(SQUARED, space, "end")
    generator = LinearGenerator(matrix)
    ours = found(generator, 300, batch_size=300)
    if space == "w":
        begin, end = generator.mapping.given[0].unflatten(0, (300, 2)).unbind(1)
    else:  # The points that slerp gave: walked on to t = 1 along the same circle.
        near, far = generator.mapping.given[0].chunk(2)
        across = nn.functional.normalize(far - (near * far).sum(1, keepdim=True) * near, dim=1)
        angle = (near - far).norm(dim=1, keepdim=True) / found.epsilon
        begin, end = near, near * angle.cos() + across * angle.sin()

    class Sampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.ends = [begin, end]

        def sample(self, num_samples):
            return self.ends.pop(0)

        def forward(self, z):
            # torchmetrics expects levels of 0 to 255, and hands [-1, 1] to the distance.
            return (generator.synthesis(z[:, None]) + 1) * 127.5

    class Distance(nn.Module):
        def forward(self, a, b):
            return SQUARED(a, b)

    mean, _, lengths = torchmetrics_ppl(
        Sampler(),
        300,
        batch_size=300,
        interpolation_method=method,
        lower_discard=None,
        upper_discard=None,
        resize=None,
        sim_net=Distance(),
    )
    assert torch.allclose(ours.lengths, lengths.double(), rtol=1e-3)
    assert ours.lengths.mean().item() == pytest.approx(mean.item(), rel=1e-4)


def test_lengths_do_not_depend_on_the_batches(matrix):
    generator = LinearGenerator(matrix)
    once, piecewise = (PerceptualPathLength(SQUARED)(generator, 10, batch_size=size).lengths for size in (10, 3))
    assert torch.allclose(once, piecewise, rtol=1e-9)


def test_a_generator_that_always_draws_the_same_has_length_zero(matrix):
    assert perceptual_path_length(LinearGenerator(matrix * 0), SQUARED, 5) == 0


def test_one_percent_at_either_end_does_not_count():
    lengths = PathLengths(torch.arange(201.0))
    assert lengths.kept.tolist() == list(range(2, 199))
    assert lengths.mean == 100
    assert PathLengths(torch.tensor([3.0])).mean == 3


@pytest.mark.parametrize("crop", [False, True])
def test_large_images_are_pooled_and_cropped(crop):
    # 512 px: only the middle of the image moves, in stripes of one pixel that pooling flattens.
    picture = torch.zeros(1, 3, 512, 512)
    picture[:, :, 192:448, 128:384] = torch.tensor([0.0, 2.0]).repeat(128)

    class Stripes(LinearGenerator):
        def synthesis(self, latent):
            return picture * latent[:, 0, :1, None, None]

    generator = Stripes(torch.ones(1, 1))
    seen = []
    distance = Perceptual("first", lambda a, b: seen.append(a.shape) or SQUARED(a, b))
    found = PerceptualPathLength(distance, crop=crop)(generator, 2)
    assert seen[0] == ((2, 3, 128, 128) if crop else (2, 3, 256, 256))
    plain = PerceptualPathLength(SQUARED)(LinearGenerator(torch.ones(3 * 16, 1)), 2).lengths / (3 * 16)
    # 128 x 128 pooled pixels of 1 in three colours, times the squared speed of w.
    assert torch.allclose(found.lengths, plain * 3 * 128 * 128, rtol=1e-2)


@given(st.floats(0, 1))
def test_slerp_keeps_the_share_of_the_angle(t):
    a, b = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 5.0], dtype=torch.float64)
    point = slerp(a, b, torch.tensor(t, dtype=torch.float64))
    assert point.tolist() == pytest.approx([math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)], abs=1e-12)


def test_a_real_generator_has_finite_lengths(tiny_generator):
    for space in ("z", "w"):
        found = PerceptualPathLength(SQUARED, space, "full")(tiny_generator, 3)
        assert found.lengths.isfinite().all()
        assert (found.lengths > 0).all()
        assert found.standard_error >= 0


def test_names_say_space_sampling_crop_and_backbone():
    assert PerceptualPathLength(SQUARED, "z", "full", crop=True).description.name == "PPL Z full, crop (squared difference)"
    assert PerceptualPathLength(SQUARED).description.key == "ppl-w-end"


def test_bad_settings_are_refused(matrix):
    for options, message in (({"space": "x"}, "unknown space"), ({"sampling": "middle"}, "unknown sampling")):
        with pytest.raises(UnknownName, match=message):
            PerceptualPathLength(SQUARED, **options)
    with pytest.raises(ValueError, match="expected a positive number"):
        PerceptualPathLength(SQUARED, epsilon=0.0)
    with pytest.raises(TooFewImages, match="0 images"):
        perceptual_path_length(LinearGenerator(matrix), SQUARED, 0)
