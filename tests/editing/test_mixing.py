"""Does mixing take exactly the layers asked for, from latents of any kind that go together?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing.errors import EditError
from editing.mixing import mix, mix_grid
from generators.errors import LatentMismatch, UnknownName
from generators.latent import as_stylemaps, space_of

NUM_WS, W_DIM = 6, 5
some_layers = st.sets(st.integers(0, NUM_WS - 1), min_size=1)


def w_plus(seed, batch=1, num_ws=NUM_WS, w_dim=W_DIM):
    return torch.randn(batch, num_ws, w_dim, generator=torch.Generator().manual_seed(seed))


def stylemap(seed, batch=1, sizes=(2, 2, 4, 4, 1, 1)):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, W_DIM, size, size, generator=rng) for size in sizes)


@given(some_layers, st.booleans(), st.booleans(), st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1)]))
def test_the_layers_asked_for_come_from_b_and_the_rest_from_a(layers, a_is_map, b_is_map, batches):
    a = (stylemap if a_is_map else w_plus)(0, batches[0])
    b = (stylemap if b_is_map else w_plus)(1, batches[1])
    mixed = mix(a, b, layers)
    for layer, style_map in enumerate(as_stylemaps(mixed)):
        source = as_stylemaps(b if layer in layers else a)[layer]
        assert torch.equal(style_map, source.expand(max(batches), -1, -1, -1))


@pytest.mark.parametrize(("text", "layers"), [("coarse", range(4)), ("4-5", (4, 5)), ("0,middle", (0, 4, 5))])
def test_layers_may_be_given_as_they_are_typed(text, layers):
    assert torch.equal(mix(w_plus(0), w_plus(1), text), mix(w_plus(0), w_plus(1), layers))
    assert torch.equal(mix_grid(w_plus(0), w_plus(1), text)[0], mix(w_plus(0), w_plus(1), layers))


def test_a_mistyped_level_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean coarse"):
        mix(w_plus(0), w_plus(1), "corse")


def test_vectors_give_vectors_and_maps_give_maps():
    assert space_of(mix(w_plus(0), w_plus(1), [0])) == "w_plus"
    assert space_of(mix(w_plus(0), stylemap(1), [0])) == "stylemap"
    assert space_of(mix(w_plus(0), stylemap(1), [5])) == "stylemap", "the space is no matter of the sizes"


def test_the_grid_mixes_every_a_with_every_b():
    a, b = w_plus(0, 2), w_plus(1, 3)
    rows = mix_grid(a, b, (1, 4))
    assert len(rows) == 2
    for i, row in enumerate(rows):
        for j in range(3):
            assert torch.equal(row[j : j + 1], mix(a[i : i + 1], b[j : j + 1], (1, 4)))


def test_sources_are_left_as_they_were():
    a, b = stylemap(0), stylemap(1)
    before = [style_map.clone() for style_map in (*a, *b)]
    mix(a, b, [0])[0].add(1)
    assert all(torch.equal(x, y) for x, y in zip((*a, *b), before, strict=True))


@pytest.mark.parametrize("layers", [(), (6,), (-1,), (0, 99)])
def test_layers_that_there_are_not_are_refused(layers):
    with pytest.raises(EditError, match="some of 0 to 5"):
        mix(w_plus(0), w_plus(1), layers)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (w_plus(1, num_ws=8), "6 and 8 layers"),
        (w_plus(1, w_dim=7), "5 and 7 wide"),
        (w_plus(1, batch=3), "2 and 3 codes"),
        ((), "no maps"),
        (torch.zeros(2, 5), "a W code to be repeated"),
    ],
)
def test_latents_that_do_not_go_together_are_refused(other, words):
    with pytest.raises(LatentMismatch, match=words):
        mix(w_plus(0, batch=2), other, [0])
