"""Are the two forms of a latent one thing, and is everything else refused in words?"""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generators import latent as latent_module
from generators.errors import ImplUnavailable, LatentMismatch, ToolkitError, UnknownName
from generators.latent import (
    COARSE,
    FINE,
    MIDDLE,
    as_stylemaps,
    batch_size,
    check_latent,
    concatenate,
    map_layers,
    select,
    space_of,
)


@pytest.fixture
def _without_shape_checks(monkeypatch):
    """Let a test meet what a user meets, who runs without the shape checks of the test suite."""
    for function in (as_stylemaps, check_latent):
        monkeypatch.setattr(latent_module, function.__name__, inspect.unwrap(function))


def w_plus(batch=2, num_ws=6, w_dim=5):
    return torch.randn(batch, num_ws, w_dim)


def stylemaps(batch=2, w_dim=5):
    return tuple(torch.randn(batch, w_dim, size, size + 1) for size in (1, 2, 2, 4, 1, 3))


def test_the_levels_cover_all_layers_once():
    layers = list(range(18))
    assert layers[COARSE] + layers[MIDDLE] + layers[FINE] == layers


def test_a_latent_names_its_space():
    assert space_of(w_plus()) == "w_plus"
    assert space_of(stylemaps()) == "stylemap"


def test_a_w_plus_is_viewed_as_one_1x1_map_a_layer():
    codes = w_plus()
    maps = as_stylemaps(codes)
    assert [tuple(m.shape) for m in maps] == [(2, 5, 1, 1)] * 6
    assert torch.equal(torch.stack([m[:, :, 0, 0] for m in maps], 1), codes)
    assert maps[0].data_ptr() == codes.data_ptr()


@pytest.mark.parametrize("make", [w_plus, stylemaps])
def test_map_layers_keeps_the_space_and_sees_every_layer_once(make):
    latent, seen = make(), []
    result = map_layers(latent, lambda layer, m: seen.append(layer) or m * 2)
    assert seen == list(range(6))
    assert space_of(result) == space_of(latent)
    for before, after in zip(as_stylemaps(latent), as_stylemaps(result), strict=True):
        assert torch.equal(after, before * 2)


def test_map_layers_does_not_drop_what_no_longer_fits_a_w_plus():
    with pytest.raises(LatentMismatch, match="layer 0"):
        map_layers(w_plus(), lambda _, m: m.repeat(1, 1, 2, 2))


@pytest.mark.parametrize("make", [w_plus, stylemaps])
@given(split=st.integers(0, 4))
def test_selecting_and_concatenating_are_inverse(make, split):
    latent = make(batch=4)
    again = concatenate([select(latent, slice(0, split)), select(latent, slice(split, None))])
    assert all(torch.equal(a, b) for a, b in zip(as_stylemaps(again), as_stylemaps(latent), strict=True))


@pytest.mark.parametrize("make", [w_plus, stylemaps])
@pytest.mark.parametrize("index", [0, 1, 2, -1, -3])
def test_selecting_one_code_keeps_the_batch(make, index):
    latent = make(batch=3)
    one = select(latent, index)
    assert batch_size(one) == 1
    assert torch.equal(as_stylemaps(one)[2][0], as_stylemaps(latent)[2][index])


@pytest.mark.parametrize("make", [w_plus, stylemaps])
@pytest.mark.parametrize("index", [3, -4])
def test_selecting_a_code_that_is_not_there_is_an_error(make, index):
    with pytest.raises(IndexError, match="3 codes"):
        select(make(batch=3), index)


@pytest.mark.parametrize(
    "latents",
    [
        [],
        [w_plus(), stylemaps()],
        [w_plus(num_ws=6), w_plus(num_ws=7)],
        [stylemaps(), stylemaps()[:-1]],
        [stylemaps(), tuple(m[..., :1] for m in stylemaps())],
    ],
    ids=["nothing", "two spaces", "layers of w_plus", "layers of maps", "sizes of maps"],
)
def test_only_latents_of_one_space_and_shape_are_concatenated(latents):
    with pytest.raises(LatentMismatch, match="cannot concatenate"):
        concatenate(latents)


@pytest.mark.parametrize("make", [w_plus, stylemaps])
def test_a_fitting_latent_passes_the_check_unchanged(make):
    latent = make()
    checked = check_latent(latent, 6, 5)
    assert all(a is b or torch.equal(a, b) for a, b in zip(checked, as_stylemaps(latent), strict=True))


@pytest.mark.parametrize(
    ("latent", "words"),
    [
        (torch.zeros(2, 5), r"repeat a W code with w\[:, None\]"),
        (torch.zeros(6, 5), r"got a tensor of shape \(6, 5\); add the batch with latent\[None\]"),
        (torch.zeros(2, 6, 5, 1), r"got a tensor of shape \(2, 6, 5, 1\)"),
        (torch.zeros(2, 7, 5), "takes 6 styles, the latent has 7"),
        (torch.zeros(2, 6, 4), r"layer 0: expected a map of shape \(2, 5, h, w\), got \(2, 4, 1, 1\)"),
        ((), "takes 6 styles, the latent has 0"),
        (stylemaps()[:-1], "takes 6 styles, the latent has 5"),
        ((*stylemaps()[:-1], torch.zeros(3, 5, 1, 1)), r"layer 5: .* got \(3, 5, 1, 1\)"),
        ((*stylemaps()[:-1], torch.zeros(2, 5)), r"layer 5: .* got \(2, 5\)"),
        ((torch.zeros(5), *stylemaps()[1:]), r"layer 0: .* got \(5,\)"),
        ((*stylemaps()[:-1], torch.zeros(2, 5, 0, 1)), r"layer 5: .* got \(2, 5, 0, 1\)"),
    ],
)
@pytest.mark.usefixtures("_without_shape_checks")
def test_a_latent_that_does_not_fit_is_refused_with_both_shapes(latent, words):
    with pytest.raises(LatentMismatch, match=words):
        latent_module.check_latent(latent, 6, 5)


def test_an_unknown_name_comes_with_its_close_matches():
    error = UnknownName("method", "stilemap", ["projector", "stylemap", "psp"])
    assert str(error) == "unknown method 'stilemap': did you mean stylemap? known: projector, psp, stylemap"
    assert "did you mean" not in str(UnknownName("method", "zzz", ["psp"]))
    assert str(UnknownName("method", "zzz", [])).endswith("known: none")
    assert isinstance(error, ToolkitError)


def test_an_unavailable_implementation_says_why_and_what_to_do():
    assert str(ImplUnavailable("blur", "triton", "no GPU")) == (
        "blur: impl='triton' is not available here: no GPU; use impl='auto'"
    )
