"""Does MobileStyleGAN keep the contract of a generator: one image a code, from vectors and from maps alike?"""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import as_stylemaps
from generators.mobilestylegan import MobileStyleGAN, MobileSynthesis, NoisyLeakyReLU

TOLERANCE = 1e-5  # Relative to the largest value: DESIGN.md's contract of spatial styles.


@pytest.fixture
def codes(tiny_generator):
    return tiny_generator.mapping(torch.randn(2, tiny_generator.z_dim, generator=torch.Generator().manual_seed(1)))


def assert_same_image(image, expected, tolerance=TOLERANCE):
    assert (image - expected).abs().max() <= tolerance * expected.abs().max()


def mixed_maps(codes):
    """Return maps that vary in space, of a different size for each layer."""
    random = torch.Generator().manual_seed(2)
    sizes = [(1, 1), (2, 2), (4, 4), (3, 5), (8, 8), (1, 2), (16, 16), (32, 32), (2, 2), (1, 1), (64, 64), (4, 4)]
    return tuple(
        m + 0.5 * torch.randn(*m.shape[:2], *size, generator=random)
        for m, size in zip(as_stylemaps(codes), sizes, strict=True)
    )


def test_the_generator_states_its_numbers(tiny_generator, codes):
    assert (tiny_generator.img_resolution, tiny_generator.num_ws, tiny_generator.w_dim) == (256, 12, 32)
    image = tiny_generator.synthesis(codes)
    assert image.shape == (2, 3, 256, 256)
    assert image.isfinite().all()
    assert 0.05 < image.std() < 20


def test_the_default_arguments_are_those_of_the_published_network():
    with torch.device("meta"):
        generator = MobileStyleGAN()
    assert (generator.img_resolution, generator.num_ws, generator.w_dim, generator.z_dim) == (1024, 16, 512, 512)
    # Belousov 2021, table 1, counts 8 M with all RGB heads; only the last is kept.
    assert 7e6 < sum(p.numel() for p in generator.synthesis.parameters()) < 8e6


def test_drawing_from_z_is_mapping_then_synthesis(tiny_generator):
    z = torch.randn(1, 32)
    expected = tiny_generator.synthesis(tiny_generator.mapping(z, 0.5, 3))
    assert torch.equal(tiny_generator(z, 0.5, 3), expected)


def test_the_variance_of_w_is_that_of_other_samples_too(tiny_generator):
    z = torch.randn(20_000, tiny_generator.z_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = (tiny_generator.mapping.w(z) - tiny_generator.w_avg).square().mean().item()
    assert tiny_generator.w_variance() == pytest.approx(expected, rel=0.1)
    assert tiny_generator.w_variance() == tiny_generator.w_variance()


def test_a_w_plus_draws_the_same_image_as_its_1x1_stylemaps(tiny_generator, codes):
    assert_same_image(tiny_generator.synthesis(as_stylemaps(codes)), tiny_generator.synthesis(codes))


@settings(max_examples=12)
@given(data=st.data())
def test_constant_maps_of_any_size_draw_the_same_image_as_vectors(small_synthesis, data):
    codes = torch.randn(1, small_synthesis.num_ws, small_synthesis.w_dim, generator=torch.Generator().manual_seed(3))
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=6, max_size=6))
    maps = tuple(m.repeat(1, 1, *size) for m, size in zip(as_stylemaps(codes), sizes, strict=True))
    assert_same_image(small_synthesis(maps), small_synthesis(codes))


@pytest.fixture(scope="module")
def small_synthesis():
    synthesis = MobileSynthesis((8, 8), const_channels=8, w_dim=4)
    random = torch.Generator().manual_seed(0)
    for name, value in synthesis.state_dict().items():
        value.copy_(torch.randn(value.shape, generator=random) * (0.3 if value.ndim > 1 else 1))
        if name.endswith("modulation.bias"):
            value.add_(1)
    return synthesis.requires_grad_(False)


def test_full_size_constant_maps_draw_the_same_image_as_vectors(tiny_generator, codes):
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 4, 2, 8, 1]
    maps = tuple(m.repeat(1, 1, size, size) for size, m in zip(sizes, as_stylemaps(codes), strict=True))
    assert_same_image(tiny_generator.synthesis(maps), tiny_generator.synthesis(codes))


def test_a_map_that_varies_changes_its_own_side_of_the_image(tiny_generator, codes):
    maps = list(as_stylemaps(codes[:1]))
    plain = tiny_generator.synthesis(maps)
    maps[10] = maps[10].repeat(1, 1, 1, 64).clone()
    maps[10][..., :24] += 1.0
    change = (tiny_generator.synthesis(maps) - plain).abs().mean((0, 1, 2))
    assert change[:80].mean() > 100 * change[176:].mean()


def test_an_image_does_not_depend_on_the_rest_of_its_batch(tiny_generator, codes):
    together = tiny_generator.synthesis(codes)
    for i in range(2):
        assert_same_image(tiny_generator.synthesis(codes[i : i + 1])[0], together[i])
    maps = mixed_maps(codes)
    together = tiny_generator.synthesis(maps)
    assert_same_image(tiny_generator.synthesis([m[1:] for m in maps])[0], together[1])


def test_an_empty_batch_gives_no_images(tiny_generator, codes):
    assert tiny_generator.synthesis(codes[:0]).shape == (0, 3, 256, 256)


def test_gradients_reach_every_vector(tiny_generator, codes):
    codes = codes.clone().requires_grad_(True)
    tiny_generator.synthesis(codes).square().mean().backward()
    assert (codes.grad.abs().amax((0, 2)) > 0).all()
    assert codes.grad.isfinite().all()


def test_gradients_reach_every_pixel_of_every_map(tiny_generator, codes):
    maps = [m.requires_grad_(True) for m in mixed_maps(codes)]
    tiny_generator.synthesis(maps).square().mean().backward()
    for style_map in maps:
        assert (style_map.grad.abs().amax(1) > 0).all()


def test_the_gradient_is_the_slope(small_synthesis):
    synthesis = MobileSynthesis((8, 8), const_channels=8, w_dim=4).double().requires_grad_(False)
    synthesis.load_state_dict(small_synthesis.state_dict())
    random = torch.Generator().manual_seed(4)
    maps = [torch.randn(1, 4, k, k, dtype=torch.float64, generator=random) for k in (1, 2, 2, 1, 3, 1)]
    slope = [torch.randn(m.shape, dtype=torch.float64, generator=random) for m in maps]

    def loss(t: torch.Tensor) -> torch.Tensor:
        return synthesis([m + t * s for m, s in zip(maps, slope, strict=True)]).square().mean()

    t, h = torch.zeros((), dtype=torch.float64, requires_grad=True), 1e-6
    (found,) = torch.autograd.grad(loss(t), t)
    expected = (loss(t.detach() + h) - loss(t.detach() - h)) / (2 * h)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_drawing_without_gradients_gives_the_same_image(tiny_generator, codes, noise_mode):
    for latent in (codes, mixed_maps(codes)):
        with torch.enable_grad():
            expected = tiny_generator.synthesis(latent, noise_mode)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert_same_image(tiny_generator.synthesis(latent, noise_mode), expected)


def test_drawing_without_gradients_changes_neither_weights_nor_codes(tiny_generator, codes):
    before = {name: value.clone() for name, value in tiny_generator.state_dict().items()}
    maps = mixed_maps(codes)
    kept = [m.clone() for m in maps]
    with torch.inference_mode():
        first = tiny_generator.synthesis(maps)
        tiny_generator.synthesis.features(maps, 4)
        second = tiny_generator.synthesis(maps)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in tiny_generator.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))


def test_const_noise_is_repeatable_and_random_noise_is_not(tiny_generator, codes):
    synthesis = tiny_generator.synthesis
    assert torch.equal(synthesis(codes), synthesis(codes, "const"))
    assert not torch.equal(synthesis(codes, "random"), synthesis(codes, "random"))
    torch.manual_seed(0)
    first = synthesis(codes, "random")
    torch.manual_seed(0)
    assert torch.equal(synthesis(codes, "random"), first)


def test_random_noise_is_as_strong_as_the_constant():
    layer = NoisyLeakyReLU(2, 64)
    layer.noise.normal_(std=0.3)
    with torch.no_grad():
        noise = layer(torch.full((50, 2, 64, 64), 10.0), "random") - 10
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(noise[:, 0], noise[:, 1]), "one noise image for all channels"
    assert not torch.equal(noise[0], noise[1]), "another one for each sample"


def test_no_noise_is_the_image_of_zero_constants(tiny_generator, codes):
    without = tiny_generator.synthesis(codes, "none")
    assert not torch.equal(without, tiny_generator.synthesis(codes))
    for name, value in tiny_generator.state_dict().items():
        if name.endswith(".noise"):
            value.zero_()
    assert_same_image(without, tiny_generator.synthesis(codes))


def test_an_unknown_noise_mode_is_refused_in_words():
    with pytest.raises(ValueError, match="'loud': expected 'const', 'random' or 'none'"):
        inspect.unwrap(NoisyLeakyReLU.forward)(NoisyLeakyReLU(1, 1), torch.zeros(1, 1, 1, 1), "loud")


@pytest.mark.parametrize(("resolution", "channels"), [(4, 32), (8, 32), (16, 32), (32, 16), (64, 16), (128, 8)])
def test_features_come_at_every_resolution(tiny_generator, codes, resolution, channels):
    for latent in (codes, mixed_maps(codes)):
        features = tiny_generator.synthesis.features(latent, resolution)
        assert features.shape == (2, channels, resolution, resolution)


def test_the_last_features_are_those_that_the_image_is_made_of(tiny_generator, codes):
    features = tiny_generator.synthesis.features(codes, 128)
    image = tiny_generator.synthesis.to_image(features, as_stylemaps(codes)[-1])
    assert torch.equal(image, tiny_generator.synthesis(codes))


def test_features_of_a_resolution_do_not_see_the_later_styles(tiny_generator, codes):
    other = codes.clone()
    other[:, 5:] += 1
    assert torch.equal(tiny_generator.synthesis.features(codes, 16), tiny_generator.synthesis.features(other, 16))
    other[:, 4] += 1
    assert not torch.equal(tiny_generator.synthesis.features(codes, 16), tiny_generator.synthesis.features(other, 16))


@pytest.mark.parametrize("resolution", [-4, 0, 1, 2, 3, 5, 12, 100, 129, 256, 512, 2**20])
def test_features_of_another_resolution_are_refused_in_words(tiny_generator, codes, resolution):
    with pytest.raises(ValueError, match=f"no features of {resolution} px: expected a power of 2 from 4 to 128"):
        tiny_generator.synthesis.features(codes, resolution)


@pytest.mark.parametrize(
    ("latent", "words"),
    [
        (torch.zeros(1, 11, 32), "takes 12 styles, the latent has 11"),
        (torch.zeros(1, 12, 31), r"expected a map of shape \(1, 32, h, w\)"),
        ([torch.zeros(1, 32, 1, 1)] * 13, "takes 12 styles, the latent has 13"),
    ],
)
def test_a_latent_of_another_generator_is_refused_in_words(tiny_generator, latent, words):
    with pytest.raises(LatentMismatch, match=words):
        tiny_generator.synthesis(latent)
    with pytest.raises(LatentMismatch, match=words):
        tiny_generator.synthesis.features(latent, 4)


def test_a_state_dict_fills_a_second_generator_that_draws_the_same(tiny_generator, codes):
    second = MobileStyleGAN((32, 32, 16, 16, 8), const_channels=32, z_dim=32, w_dim=32, mapping_layers=2)
    second.load_state_dict(tiny_generator.state_dict())
    with torch.no_grad():
        assert torch.equal(second.synthesis(codes), tiny_generator.synthesis(codes))


def test_identities_fit_by_hash_and_without_one_by_name():
    ours = Identity("faces", "a" * 64)
    assert ours.fits(Identity("renamed", "a" * 64))
    assert not ours.fits(Identity("faces", "b" * 64))
    assert ours.fits(Identity("faces"))
    assert not ours.fits(Identity("cats"))
    assert str(ours) == "faces (aaaaaaaaaaaa)"
    assert str(Identity("faces")) == "faces"


@pytest.mark.weights
def test_the_default_generator_keeps_the_contract(default_generator):
    assert (default_generator.img_resolution, default_generator.num_ws, default_generator.w_dim) == (1024, 16, 512)
    codes = default_generator.mapping(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), 0.7)
    with torch.inference_mode():
        image = default_generator.synthesis(codes)
        sizes = [2] * 4 + [4] * 4 + [1] * 8
        maps = tuple(m.repeat(1, 1, size, size) for size, m in zip(sizes, as_stylemaps(codes), strict=True))
        assert_same_image(default_generator.synthesis(as_stylemaps(codes)), image)
        # Its 512 channels and 18 layers add up more rounding: 8e-5 was seen.
        assert_same_image(default_generator.synthesis(maps), image, tolerance=1e-3)
    assert image.abs().max() < 3
    assert image.std() > 0.2


def test_bfloat16_stays_close_to_float32(tiny_generator):
    latent = torch.randn(2, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(0))
    expected = tiny_generator.synthesis(latent)
    image = tiny_generator.compute_in(torch.bfloat16).synthesis(latent)
    assert image.dtype == torch.float32
    assert 0 < (image - expected).square().mean() < 1e-3 * expected.square().mean()
    assert torch.equal(tiny_generator.compute_in(torch.float32).synthesis(latent), expected)
