"""Do paths meet their points exactly, in steps that are even, and refuse what has no way between?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing.errors import EditError
from editing.interpolation import EASES, interpolate, interpolate_z, lerp, path, slerp
from generators.errors import LatentMismatch, UnknownName
from generators.latent import as_stylemaps, space_of

seeds = st.integers(0, 2**16)
shares = st.floats(0, 1)


def w_plus(seed, batch=1):
    return torch.randn(batch, 4, 5, generator=torch.Generator().manual_seed(seed))


def stylemap(seed, sizes=(2, 2, 4, 1)):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, 5, size, size, generator=rng) for size in sizes)


def codes(seed, batch=2):
    return torch.randn(batch, 16, generator=torch.Generator().manual_seed(seed))


@given(seeds, shares)
def test_lerp_is_the_straight_line_and_meets_both_ends(seed, t):
    a, b = w_plus(seed), w_plus(seed + 1)
    torch.testing.assert_close(lerp(a, b, t), (1 - t) * a + t * b)
    assert torch.equal(lerp(a, b, 0), a)
    assert torch.equal(lerp(a, b, 1.0), b)


@given(seeds, shares)
def test_a_map_of_one_pixel_stands_for_a_map_of_any_size(seed, t):
    a, b = w_plus(seed), stylemap(seed)
    for of_a, of_b, found in zip(as_stylemaps(a), b, lerp(a, b, t), strict=True):
        torch.testing.assert_close(found, (1 - t) * of_a + t * of_b)


def test_one_code_goes_with_a_batch():
    assert lerp(w_plus(0), w_plus(1, batch=3), 0.5).shape == (3, 4, 5)
    assert space_of(lerp(w_plus(0), w_plus(1), 0.5)) == "w_plus"


def test_maps_of_two_sizes_are_refused_and_both_are_named():
    with pytest.raises(LatentMismatch, match=r"layer 2: .*4, 4.*8, 8"):
        lerp(stylemap(0), stylemap(1, sizes=(2, 2, 8, 1)), 0.5)


@given(seeds, shares)
def test_slerp_keeps_the_length_and_divides_the_angle(seed, t):
    a, b = codes(seed).double(), codes(seed + 1).double()
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (a, b))
    found = slerp(a, b, t)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2).double())
    whole, part = ((a * z).sum(1).clamp(-1, 1).acos() for z in (b, found))
    torch.testing.assert_close(part, t * whole, atol=1e-6, rtol=1e-6)


@given(seeds)
def test_slerp_meets_both_ends_exactly(seed):
    a, b = codes(seed), codes(seed + 1)
    assert torch.equal(slerp(a, b, 0), a)
    assert torch.equal(slerp(a, b, 1), b)


@given(seeds, shares, st.floats(0, 1e-6))
def test_slerp_between_equal_or_almost_equal_codes_stays_there(seed, t, distance):
    a = codes(seed)
    torch.testing.assert_close(slerp(a, a + distance, t), a, atol=1e-5, rtol=1e-5)


def test_slerp_between_opposite_codes_is_refused():
    with pytest.raises(EditError, match="opposite"):
        slerp(codes(0), -2 * codes(0), 0.5)


def test_slerp_from_nowhere_is_refused():
    with pytest.raises(EditError, match="zero"):
        slerp(codes(0), torch.zeros(2, 16), 0.5)


@pytest.mark.parametrize("t", [math.nan, math.inf])
@pytest.mark.parametrize("function", [lambda t: lerp(w_plus(0), w_plus(1), t), lambda t: slerp(codes(0), codes(1), t)])
def test_a_share_that_is_no_number_is_refused(function, t):
    with pytest.raises(EditError, match="finite"):
        function(t)


@given(st.integers(2, 6), st.integers(0, 60), st.sampled_from(sorted(EASES)), st.booleans())
def test_a_path_has_as_many_frames_as_asked_for_and_meets_every_point(num_points, more, ease, loop):
    steps = path(num_points, num_points + more, ease, loop)
    assert len(steps) == num_points + more
    met = [i for i, t in steps if t == 0] + [num_points - 1] * (not loop)
    assert met == list(range(num_points))
    assert steps == sorted(steps), "never back"
    assert steps[-1] == (num_points - 2, 1.0) or loop


@given(st.sampled_from(sorted(EASES)))
def test_every_ease_begins_at_zero_ends_at_one_and_never_turns_back(ease):
    values = [EASES[ease](k / 50) for k in range(51)]
    assert (values[0], values[-1]) == (0, 1)
    assert values == sorted(values)


def test_an_even_path_is_even():
    assert path(3, 5) == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5), (1, 1.0)]
    assert path(2, 4, loop=True) == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5)]


def test_interpolation_goes_through_all_points():
    points = [w_plus(seed) for seed in range(3)]
    frames = list(interpolate(points, 5))
    for found, expected in zip(frames[::2], points, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(frames[1], lerp(points[0], points[1], 0.5))
    assert torch.equal(list(interpolate(points, 6, loop=True))[-1], lerp(points[2], points[0], 0.5))


def test_identical_ends_give_frames_that_stay():
    assert all(torch.equal(frame, w_plus(0)) for frame in interpolate([w_plus(0), w_plus(0)], 4))
    for frame in interpolate_z([codes(0), codes(0)], 4):
        torch.testing.assert_close(frame, codes(0))


def test_points_that_do_not_go_together_are_refused_before_the_first_frame():
    with pytest.raises(LatentMismatch):
        interpolate([w_plus(0), w_plus(1), torch.zeros(1, 6, 5)], 10)
    with pytest.raises(EditError, match="opposite"):
        interpolate_z([codes(0), codes(1), -codes(0)], 10, loop=True)


@pytest.mark.parametrize(
    ("num_points", "frames", "words"), [(1, 5, "at least 2"), (2, 0, "0 frames"), (3, 2, "one a point")]
)
def test_too_few_points_or_frames_are_refused(num_points, frames, words):
    with pytest.raises(EditError, match=words):
        path(num_points, frames)


def test_an_unknown_ease_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean smooth"):
        path(2, 5, "smoth")
