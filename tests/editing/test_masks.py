"""Are masks what they say: set where they should be, whole numbers where they are whole, refused where they are none?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing.errors import EditError
from editing.masks import check_mask, dilate, feather, linear_gradient, radial_gradient, rectangle, resize_mask


def test_a_rectangle_covers_its_share_of_the_picture():
    mask = rectangle(0.25, 0.5, 0.75, 1.0, size=64)
    assert mask.shape == (1, 1, 64, 64)
    assert mask[0, 0, 32:, 16:48].eq(1).all()
    assert mask.sum() == 32 * 32


def test_a_rectangle_between_pixels_is_antialiased():
    assert rectangle(0.1, 0, 0.6, 1, size=8).mean() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "sides", [(0.5, 0, 0.5, 1), (0.8, 0, 0.2, 1), (1.2, 0, 1.5, 1), (0, -2, 1, -1), (math.nan, 0, 1, 1)]
)
def test_an_empty_rectangle_is_refused(sides):
    with pytest.raises(EditError, match="left < right"):
        rectangle(*sides)


def test_a_vertical_gradient_rises_from_top_to_bottom():
    mask = linear_gradient(size=64)[0, 0]
    assert (mask == mask[:, :1]).all()
    assert mask[:, 0].diff().gt(0).all()
    assert (mask[0, 0], mask[-1, 0]) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


@pytest.mark.parametrize(("degrees", "high"), [(0, (32, 63)), (180, (32, 0)), (270, (0, 32)), (45, (63, 63)), (225, (0, 0))])
def test_a_gradient_rises_to_where_it_is_told(degrees, high):
    mask = linear_gradient(degrees, size=64)[0, 0]
    assert mask[high] == mask.max()
    assert mask.min() < 0.02 < 0.98 < mask.max()


def test_a_gradient_without_a_way_is_a_sharp_edge():
    assert linear_gradient(90, 0.5, 0.5, size=8)[0, 0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_radial_gradient_falls_from_its_core_to_its_radius():
    mask = radial_gradient(0.5, 0.25, 0.25, 0.125, size=64)[0, 0]
    assert mask[16, 32] == 1
    assert mask[16, 32 + 17] == 0
    assert 0 < mask[16, 32 + 12] < 1
    assert mask[32:].sum() == 0


@pytest.mark.parametrize("call", [lambda: linear_gradient(90, 1, 0), lambda: linear_gradient(math.nan)])
def test_a_gradient_that_runs_backwards_or_nowhere_is_refused(call):
    with pytest.raises(EditError, match="gradient"):
        call()


@pytest.mark.parametrize("arguments", [(0.5, 0.5, 0.0), (0.5, 0.5, 0.2, 0.3), (math.inf, 0.5)])
def test_a_radial_gradient_without_room_is_refused(arguments):
    with pytest.raises(EditError, match="core < radius"):
        radial_gradient(*arguments)


def test_dilating_reaches_the_share_in_all_directions():
    mask = torch.zeros(1, 1, 200, 200)
    mask[..., 100, 100] = 1
    y, x = torch.nonzero(dilate(mask, 0.1)[0, 0], as_tuple=True)
    distance = torch.hypot(y - 100.0, x - 100.0)
    assert distance.max() <= 22
    outline = torch.hypot(*torch.meshgrid(torch.arange(200) - 100.0, torch.arange(200) - 100.0, indexing="ij")) <= 18
    assert dilate(mask, 0.1)[0, 0][outline].eq(1).all()


@given(st.floats(0, 0.4))
def test_feathering_keeps_what_is_set_and_reaches_no_further_than_the_share(share):
    mask = rectangle(0.4, 0.4, 0.6, 0.6, size=50)
    soft = feather(mask, share)
    assert soft[mask == 1].eq(1).all()
    assert soft.max() <= 1
    assert soft[dilate(mask, share + 0.04) == 0].eq(0).all()
    assert share < 0.03 or ((soft > 0) & (soft < 1)).any()


@given(st.integers(1, 90), st.integers(1, 90))
def test_whole_masks_stay_whole_at_any_size(height, width):
    assert resize_mask(torch.ones(1, 1, 33, 47), height, width).eq(1).all()
    assert resize_mask(torch.zeros(1, 1, 33, 47), height, width).eq(0).all()


@given(st.integers(1, 64))
def test_halves_stay_whole_away_from_their_border(size):
    mask = rectangle(0, 0, 0.5, 1, size=64)
    found = resize_mask(mask, size, size)
    assert found[..., : (size // 2)].eq(1).all()
    assert found[..., (size + 1) // 2 :].eq(0).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(1, 1, 8, 8), "no pixel set"),
        (torch.full((1, 1, 8, 8), math.nan), "64 values that are NaN"),
        (torch.full((1, 1, 8, 8), 255.0), "divide one of 8 bits by 255"),
        (torch.full((1, 1, 8, 8), -1.0), "from -1"),
        (torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)]), "no pixel set"),
    ],
)
def test_what_is_no_mask_is_refused(mask, words):
    with pytest.raises(EditError, match=words):
        check_mask(mask)


@pytest.mark.parametrize("share", [-0.1, 0.6, math.nan])
def test_a_feather_out_of_range_is_refused(share):
    with pytest.raises(EditError, match=r"0 to 0\.5"):
        feather(rectangle(0, 0, 1, 1), share)
