"""Is the inverse Haar transform the one of the published networks?"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from generators.ops import haar, inverse_haar


def by_definition(bands: np.ndarray) -> np.ndarray:
    """Fill every 2x2 square of the image from the four sub-bands, pixel by pixel."""
    batch, four_c, height, width = bands.shape
    channels = four_c // 4
    image = np.zeros((batch, channels, 2 * height, 2 * width))
    for b, c, y, x in np.ndindex(batch, channels, height, width):
        ll = bands[b, c, y, x]
        lh, hl, hh = bands[b, channels + 3 * c : channels + 3 * c + 3, y, x]
        image[b, c, 2 * y, 2 * x] = (ll + lh + hl + hh) / 2
        image[b, c, 2 * y, 2 * x + 1] = (ll + lh - hl - hh) / 2
        image[b, c, 2 * y + 1, 2 * x] = (ll - lh + hl - hh) / 2
        image[b, c, 2 * y + 1, 2 * x + 1] = (ll - lh - hl + hh) / 2
    return image


@given(st.integers(0, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_inverse_haar_is_its_definition(batch, channels, height, width, seed):
    bands = np.random.default_rng(seed).standard_normal((batch, 4 * channels, height, width))
    image = inverse_haar(torch.from_numpy(bands)).numpy()
    np.testing.assert_allclose(image, by_definition(bands), rtol=0, atol=1e-12)


@given(st.floats(-100, 100), st.integers(1, 3))
def test_a_flat_low_band_gives_a_flat_image_of_half_its_value(value, channels):
    bands = torch.zeros(1, 4 * channels, 3, 2, dtype=torch.float64)
    bands[:, :channels] = value
    assert torch.equal(inverse_haar(bands), torch.full((1, channels, 6, 4), value / 2, dtype=torch.float64))


@given(st.integers(0, 2**32 - 1))
def test_inverse_haar_keeps_lengths_and_angles(seed):
    random = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 1, 8, 3, 5, generator=random, dtype=torch.float64)
    torch.testing.assert_close((inverse_haar(a) * inverse_haar(b)).sum(), (a * b).sum())


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_splitting_an_image_undoes_joining_its_bands(batch, channels, height, width, seed):
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, 2 * height, 2 * width, generator=random, dtype=torch.float64)
    torch.testing.assert_close(inverse_haar(haar(image)), image)


def test_inverse_haar_has_first_and_second_gradients():
    bands = torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(inverse_haar, bands)
    assert torch.autograd.gradgradcheck(inverse_haar, bands)


def test_inverse_haar_keeps_the_type():
    assert inverse_haar(torch.zeros(1, 4, 2, 2, dtype=torch.float16)).dtype == torch.float16


def test_inverse_haar_keeps_the_layout():
    bands = torch.randn(2, 8, 3, 5)
    image = inverse_haar(bands.contiguous(memory_format=torch.channels_last))
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(image, inverse_haar(bands))
    assert torch.equal(inverse_haar(bands[:, :, ::2]), inverse_haar(bands[:, :, ::2].contiguous()))
