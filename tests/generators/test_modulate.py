"""Does a style reach features of another size as it should?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generators.ops import modulate, resize_style


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_constant_map_of_any_size_scales_like_a_vector(height, width, map_height, map_width, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, generator=random)
    vector = torch.randn(2, 3, 1, 1, generator=random)
    scaled = modulate(x, vector.repeat(1, 1, map_height, map_width))
    torch.testing.assert_close(scaled, x * vector, rtol=1e-5, atol=1e-6)


def test_a_1x1_style_is_left_to_broadcasting():
    style = torch.randn(2, 3, 1, 1)
    assert resize_style(style, 64, 64) is style


def test_a_style_of_the_same_size_is_left_alone():
    style = torch.randn(2, 3, 4, 6)
    assert resize_style(style, 4, 6) is style


def test_a_growing_style_is_interpolated_and_stays_in_its_range():
    style = torch.tensor([[[[0.0, 1.0]]]]).repeat(1, 1, 2, 1)
    grown = resize_style(style, 4, 4)[0, 0]
    torch.testing.assert_close(grown, torch.tensor([0.0, 0.25, 0.75, 1.0]).repeat(4, 1))


def test_a_shrinking_style_is_averaged():
    style = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    torch.testing.assert_close(resize_style(style, 2, 2), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (8, 8), (3, 5)])
def test_modulation_has_first_and_second_gradients(size):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    style = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(modulate, (x, style))
    assert torch.autograd.gradgradcheck(modulate, (x, style))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_result_lies_as_the_features_do_whatever_the_style_does(layout):
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=layout)
    style = torch.rand(2, 3, 4, 4)
    scaled = modulate(x, style)
    assert scaled.is_contiguous(memory_format=layout)
    torch.testing.assert_close(scaled, x * resize_style(style, 8, 8))
