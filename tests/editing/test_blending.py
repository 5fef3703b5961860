"""Does a blend take each source exactly where its mask says so, and does what changes stay there?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.blending import LOCAL_FROM, LocalEdit, blend, draw_blended, map_sizes, share_inside
from editing.directions import Direction
from editing.errors import EditError
from editing.masks import rectangle, resize_mask
from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import as_stylemaps
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3

NUM_WS, W_DIM = 6, 5
SIZES = (0, 2, 4, 4, 8, 8)
seeds = st.integers(0, 2**16)
SMALL = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1}


def rng(seed):
    return torch.Generator().manual_seed(seed)


def w_plus(seed, batch=1):
    return torch.randn(batch, NUM_WS, W_DIM, generator=rng(seed))


def stylemap(seed, batch=1, sizes=(2, 2, 4, 4, 1, 1)):
    return tuple(torch.randn(batch, W_DIM, size, size, generator=rng(seed + i)) for i, size in enumerate(sizes))


def random_mask(seed, size=16):
    """Blocks of 0 and of 1, with everything between at some borders."""
    blocks = torch.rand(1, 1, 4, 4, generator=rng(seed)).gt(0.5).float()
    blocks[0, 0, 0, 0], blocks[0, 0, 3, 3] = 1, 0
    return resize_mask(blocks.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3), size, size)


@given(seeds, st.booleans(), st.booleans(), st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
def test_where_the_mask_is_whole_the_style_is_a_sources_bit_for_bit(seed, a_is_map, b_is_map, batches):
    a, b = (
        (stylemap if is_map else w_plus)(seed + i, n)
        for i, (is_map, n) in enumerate(zip((a_is_map, b_is_map), batches, strict=True))
    )
    mask = random_mask(seed)
    blended = blend([a, b], [mask], SIZES)
    for layer, style_map in enumerate(blended):
        of_a, of_b = as_stylemaps(a)[layer], as_stylemaps(b)[layer]
        if SIZES[layer] == 0:
            assert torch.equal(style_map, of_a.expand_as(style_map))
            continue
        size = style_map.shape[-1]
        assert size == max(SIZES[layer], of_a.shape[-1], of_b.shape[-1])
        share = resize_mask(mask, size, size).expand_as(style_map)
        if {of_a.shape[-1], of_b.shape[-1]} <= {1, size}:
            assert torch.equal(style_map[share == 0], of_a.expand_as(style_map)[share == 0])
            assert torch.equal(style_map[share == 1], of_b.expand_as(style_map)[share == 1])


@given(seeds, st.floats(0, 1))
def test_between_0_and_1_styles_are_interpolated(seed, share):
    a, b = w_plus(seed), w_plus(seed + 1)
    mask = torch.full((1, 1, 8, 8), max(share, 1e-3))
    for of_a, of_b, found in zip(
        as_stylemaps(a), as_stylemaps(b), as_stylemaps(blend([a, b], [mask], (4,) * 6)), strict=True
    ):
        torch.testing.assert_close(found, torch.lerp(of_a, of_b, mask[0, 0, 0, 0]).expand_as(found), atol=1e-6, rtol=1e-5)


def test_several_sources_lie_over_each_other_in_order():
    a, b, c = w_plus(0), w_plus(1), w_plus(2)
    left, top = rectangle(0, 0, 0.5, 1, size=8), rectangle(0, 0, 1, 0.5, size=8)
    blended = blend([a, b, c], [left, top], (8,) * 6)
    for of_a, of_b, of_c, found in zip(as_stylemaps(a), as_stylemaps(b), as_stylemaps(c), blended, strict=True):
        corners = [(0, 0, of_c), (0, 7, of_c), (7, 0, of_b), (7, 7, of_a)]
        assert all(torch.equal(found[:, :, y, x], source[:, :, 0, 0]) for y, x, source in corners)


def test_a_mask_of_its_own_for_every_code_of_a_batch():
    masks = torch.cat([rectangle(0, 0, 0.5, 1, size=8), rectangle(0.5, 0, 1, 1, size=8)])
    blended = blend([w_plus(0), w_plus(1)], [masks], (8,) * 6)
    assert torch.equal(blended[0][0, :, 0, 0], w_plus(1)[0, 0])
    assert torch.equal(blended[0][1, :, 0, 0], w_plus(0)[0, 0])


def test_layers_in_which_the_sources_agree_stay_small():
    a = w_plus(0)
    b = a.clone()
    b[:, 4] += 1
    sizes = [style_map.shape[-1] for style_map in blend([a, b], [rectangle(0, 0, 0.5, 1)], (8,) * 6)]
    assert sizes == [1, 1, 1, 1, 8, 1]
    assert torch.equal(blend([a, a], [rectangle(0, 0, 0.5, 1)], (8,) * 6), a)


def direction(layers=None):
    vector = torch.randn(W_DIM, generator=rng(9))
    return Direction.of("test", vector, Identity("toy"), layers=layers)


@given(seeds, st.booleans())
def test_a_local_edit_of_strength_0_is_the_identity(seed, is_map):
    latent = stylemap(seed) if is_map else w_plus(seed)
    edited = LocalEdit(direction(), random_mask(seed), SIZES)(latent, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(as_stylemaps(edited), as_stylemaps(latent), strict=True))


@given(seeds, st.floats(-4, 4).filter(lambda s: abs(s) > 1e-3))
def test_a_local_edit_is_the_edit_inside_and_nothing_outside(seed, strength):
    latent, mask = w_plus(seed), random_mask(seed)
    whole = as_stylemaps(direction()(latent, strength))
    for layer, found in enumerate(LocalEdit(direction(), mask, (16,) * 6)(latent, strength)):
        share = mask.expand_as(found)
        assert torch.equal(found[share == 1], whole[layer].expand_as(found)[share == 1])
        assert torch.equal(found[share == 0], as_stylemaps(latent)[layer].expand_as(found)[share == 0])


@pytest.mark.parametrize(
    ("latents", "masks", "sizes", "error", "words"),
    [
        ([w_plus(0), w_plus(1)], [torch.zeros(1, 1, 8, 8)], SIZES, EditError, "no pixel set"),
        ([w_plus(0), w_plus(1)], [torch.full((1, 1, 8, 8), math.nan)], SIZES, EditError, "NaN"),
        ([w_plus(0), w_plus(1)], [], SIZES, EditError, "2 latents and 0 masks"),
        ([w_plus(0), w_plus(1)], [torch.ones(1, 1, 8, 8)], (4, 4), EditError, "2 map sizes for 6 layers"),
        ([w_plus(0), w_plus(1)[:, :4]], [torch.ones(1, 1, 8, 8)], SIZES, LatentMismatch, "4 and 6 layers"),
    ],
)
def test_what_does_not_go_together_is_refused(latents, masks, sizes, error, words):
    with pytest.raises(error, match=words):
        blend(latents, masks, sizes)


def small_stylegan2():
    return StyleGAN2(64, channel_base=256, channel_max=8, **SMALL)


def small_stylegan1():
    return StyleGAN1(64, channel_base=256, channel_max=8, **SMALL)


@pytest.fixture(params=["tiny_generator", small_stylegan2, small_stylegan1])
def generator(request):
    if isinstance(request.param, str):
        return request.getfixturevalue(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param().eval().requires_grad_(False)


def codes(generator, count=2):
    return generator.mapping(torch.randn(count, generator.z_dim, generator=rng(3)))


def test_every_generator_with_places_draws_a_blend_of_styles(generator):
    a, b = codes(generator).split(1)
    left = rectangle(0, 0, 0.5, 1)
    image = generator.synthesis(blend([a, b], [left], map_sizes(generator)))
    ends = [generator.synthesis(code) for code in (a, b)]
    far_left, far_right = (slice(0, 8), slice(-8, None))
    nearer = [(image - end).abs() for end in ends]
    assert nearer[1][..., far_left].mean() < nearer[0][..., far_left].mean()
    assert nearer[0][..., far_right].mean() < nearer[1][..., far_right].mean()


def test_features_that_are_blended_change_the_picture_in_the_mask_alone(generator):
    a, b = codes(generator).split(1)
    size = generator.img_resolution
    mask = rectangle(0.375, 0.375, 0.625, 0.625, size=size)
    before = generator.synthesis(a)
    after = draw_blended(generator, a, b, mask, resolution=size // 4)
    # StyleGAN1 normalises by the whole picture, so that all of it feels a change of any part.
    assert share_inside(before, after, mask, 0.2).item() > (0.45 if isinstance(generator, StyleGAN1) else 0.99)
    assert torch.equal(draw_blended(generator, a, a, mask, size // 4), before)


def test_a_whole_mask_gives_the_other_code(generator):
    a, b = codes(generator).split(1)
    drawn = draw_blended(generator, a, b, torch.ones(1, 1, 8, 8), generator.img_resolution // 4)
    torch.testing.assert_close(drawn, generator.synthesis(b), atol=5e-4, rtol=1e-3)  # A 16th of a grey level.


def test_one_code_is_blended_with_a_batch(tiny_generator):
    a, b = codes(tiny_generator, 1), codes(tiny_generator, 3)
    drawn = draw_blended(tiny_generator, a, b, rectangle(0, 0, 0.5, 1), 32)
    alone = draw_blended(tiny_generator, a, b[2:], rectangle(0, 0, 0.5, 1), 32)
    torch.testing.assert_close(drawn[2:], alone, atol=1e-4, rtol=1e-3)


def test_features_that_there_are_not_are_refused(tiny_generator):
    with pytest.raises(EditError, match=r"48 px.*expected one of \[4, 8"):
        draw_blended(tiny_generator, codes(tiny_generator, 1), codes(tiny_generator, 1), torch.ones(1, 1, 8, 8), 48)


def test_map_sizes_follow_the_layers_and_their_limits(tiny_generator):
    assert map_sizes(tiny_generator) == (4, 8, 8, 16, 16, 32, 32, 64, 64, 64, 64, 64)
    assert map_sizes(tiny_generator, lowest=LOCAL_FROM, largest=32) == (0, 0, 0, 0, 0, 0, 32, 32, 32, 32, 32, 32)
    assert map_sizes(tiny_generator, layers=(1, 3)) == (0, 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0)
    assert map_sizes(tiny_generator, layers="1,3") == map_sizes(tiny_generator, layers=(1, 3))
    with pytest.raises(EditError, match="nothing would change"):
        map_sizes(tiny_generator, layers=(0, 1), lowest=LOCAL_FROM)


def test_stylegan3_is_refused_in_words():
    network = StyleGAN3(32, num_layers=6, margin_size=4, channel_base=128, channel_max=8, **SMALL)
    with pytest.raises(LatentMismatch, match="move under the pixels"):
        map_sizes(network)
    with pytest.raises(LatentMismatch, match="move under the pixels"):
        draw_blended(network, codes(network, 1), codes(network, 1), torch.ones(1, 1, 8, 8))


@settings(max_examples=10)
@given(st.floats(0.05, 0.95))
def test_the_share_inside_is_that_of_the_change(part):
    before = torch.zeros(1, 3, 40, 40)
    after = before.clone()
    after[..., :, :4], after[..., :, -4:] = part, 1 - part
    mask = rectangle(0, 0, 0.1, 1, size=40)
    assert share_inside(before, after, mask).item() == pytest.approx(part, abs=1e-5)
    assert share_inside(before, before, mask).isnan().all()


@pytest.mark.weights
def test_a_local_edit_of_the_default_generator_stays_local(default_generator):
    from pretrained.directions import load_direction

    code = default_generator.mapping(torch.randn(1, 512, generator=rng(1)), 0.7)
    mouth = rectangle(0.38, 0.62, 0.62, 0.78)
    smile = load_direction("smile", default_generator.identity)
    with torch.no_grad():
        before = default_generator.synthesis(code)
        features = draw_blended(default_generator, code, smile(code, 2.0), mouth)
        assert share_inside(before, features, mouth).item() >= 0.98
        styles = LocalEdit(smile, mouth, map_sizes(default_generator, lowest=LOCAL_FROM))(code, 2.0)
        assert share_inside(before, default_generator.synthesis(styles), mouth).item() >= 0.9
