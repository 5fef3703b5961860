"""Do the compact kinds compare: as many weights each, quick, and each the code that its paper has?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.base import Encoder, add_deltas
from encoders.compact import COMPACT, compact_encoder
from generators.errors import UnknownName
from generators.latent import as_stylemaps, space_of

KINDS = sorted(COMPACT)


@pytest.fixture
def small():
    def build(kind, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = compact_encoder(kind, 12, 6, pyramid_channels=(8, 8, 8), width=8, **arguments)
        encoder.w_avg.copy_(torch.linspace(-1, 1, 6))
        return encoder.eval().requires_grad_(False)

    return build


def faces(encoder, batch=1):
    return torch.rand(batch, encoder.in_channels, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1


def random_maps(sizes, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, size, size, generator=random) for size in sizes]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_contract_of_encoders(small, kind):
    encoder = small(kind)
    assert isinstance(encoder, Encoder)
    latent = encoder(faces(encoder, 2))
    assert encoder.space == space_of(latent)
    maps = as_stylemaps(latent)
    assert len(maps) == encoder.num_ws == 12
    assert all(m.shape[:2] == (2, encoder.w_dim) for m in maps)
    before = [m.clone() for m in maps]
    encoder.w_avg.add_(2)
    for a, b in zip(as_stylemaps(encoder(faces(encoder, 2))), before, strict=True):
        torch.testing.assert_close(a, b + 2)


def test_the_spaces_are_those_of_the_papers(small):
    spaces = {kind: small(kind).space for kind in KINDS}
    stylemap = {kind for kind, space in spaces.items() if space == "stylemap"}
    assert stylemap == {"stylemap", "stylemap-e"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"restyle"}))
def test_all_but_restyle_have_as_many_weights_and_ship_in_24_megabytes(kind):
    with torch.device("meta"):
        encoder = compact_encoder(kind)
        count = sum(p.numel() for p in encoder.parameters())
        overview = sum(p.numel() for p in encoder.overview.parameters()) if encoder.context else 0
        reference = sum(p.numel() for p in compact_encoder("stylemap").parameters())
    assert abs(count - overview - reference) <= 0.001 * reference
    assert overview < 0.08 * reference, "what only stylemap-e has is small"
    assert 2 * count < 24e6


def test_restyle_ships_in_9_megabytes_and_all_together_in_100():
    with torch.device("meta"):
        sizes = {kind: 2 * sum(p.numel() for p in compact_encoder(kind).parameters()) for kind in KINDS}
    assert sizes["restyle"] < 9e6
    assert sum(sizes.values()) < 100e6


@pytest.mark.parametrize("kind", ["e4e", "stylemap"])
def test_stages_turn_deltas_on_layer_by_layer(small, kind):
    encoder = small(kind, deltas=True)
    image = faces(encoder)
    whole = as_stylemaps(encoder(image))
    w_0 = whole[0].mean((2, 3), keepdim=True)
    for stage in (0, 1, 5, 11):
        encoder.stage = stage
        for layer, style_map in enumerate(as_stylemaps(encoder(image))):
            expected = whole[layer] if max(layer, 1) <= stage else w_0.expand_as(whole[layer])
            torch.testing.assert_close(style_map, expected)
    assert not torch.equal(whole[5], w_0.expand_as(whole[5]))


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), stage=st.integers(0, 7), seed=st.integers(0, 99))
def test_the_first_layers_mean_is_the_same_at_every_stage(sizes, stage, seed):
    maps = random_maps(sizes, seed)
    styles = add_deltas(maps, stage)
    assert [s.shape for s in styles] == [m.shape for m in maps]
    torch.testing.assert_close(styles[0].mean((2, 3)), maps[0].mean((2, 3)))


def test_deltas_that_are_off_get_no_gradient():
    maps = [m.requires_grad_(True) for m in random_maps([2, 1, 3])]
    sum(style.square().sum() for style in add_deltas(maps, 1)).backward()
    assert maps[0].grad.abs().sum() > 0
    assert maps[1].grad.abs().sum() > 0
    assert maps[2].grad.abs().sum() == 0


def test_a_vector_for_the_first_layer_is_w_0_itself():
    maps = random_maps([1, 2])
    assert torch.equal(add_deltas(maps, None)[0], maps[0])


def test_a_restyle_encoder_looks_at_both_images(small):
    encoder = small("restyle")
    both = faces(encoder)
    for part in (slice(0, 3), slice(3, 6)):
        changed = both.clone()
        changed[:, part] *= -1
        assert not torch.equal(encoder(changed), encoder(both))


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean stylemap"):
        compact_encoder("stylemaps")


def test_further_arguments_go_before_those_of_the_kind(small):
    assert small("stylemap", sizes=(4, 8, 1)).sizes == (4, 8, 1)
