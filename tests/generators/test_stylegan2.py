"""Does StyleGAN2 compute what the published code computes, under the published names, from vectors and from maps alike?"""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.errors import LatentMismatch, UnknownName
from generators.latent import as_stylemaps
from generators.stylegan2 import StyleGAN2, StyleGAN2Discriminator

GOLDEN = 1e-4  # Relative and, times the largest value, absolute: what the published code is matched to.
SPATIAL = 1e-5  # Relative to the largest value: DESIGN.md's contract of spatial styles.


def tiny(seed=0, **arguments):
    """A 16 px generator with noise, biases and a mean of W that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
        generator = StyleGAN2(16, **(sizes | arguments))
        for name, value in generator.state_dict().items():
            if name.endswith(("noise_strength", "bias", "w_avg")):
                value.add_(torch.randn_like(value) * 0.3)
    return generator.eval().requires_grad_(False)


def some_codes(generator, batch=2):
    random = torch.Generator().manual_seed(1)
    return torch.randn(batch, generator.num_ws, generator.w_dim, generator=random)


def assert_close(value, expected, tolerance=SPATIAL):
    assert (value - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture
def golden(shared_folder):
    def read(name, network):
        with np.load(shared_folder / "reference" / "golden" / name) as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file}
        prefix = name.split("_")[2] + "."
        network.load_state_dict({key[2:]: value for key, value in arrays.items() if key.startswith(prefix)})
        return network.eval().requires_grad_(False), arrays

    return read


@pytest.mark.shared
def test_the_generator_matches_the_published_code(golden):
    generator, expected = golden("nvidia_sg2_G_tiny16.npz", tiny())
    z, wplus = expected["z"], expected["wplus"]
    results = {
        "w": generator.mapping(z),
        "w_trunc_psi0.7_cut2": generator.mapping(z, 0.7, 2),
        "img_const": generator.synthesis(wplus),
        "img_none": generator.synthesis(wplus, "none"),
    }
    for name, value in results.items():
        atol = GOLDEN * expected[name].abs().max().item()
        torch.testing.assert_close(
            value, expected[name], rtol=GOLDEN, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.shared
@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_the_discriminator_matches_the_published_code(golden, batch):
    discriminator, expected = golden("nvidia_sg2_D_tiny16.npz", StyleGAN2Discriminator(16, 0, 128, 16))
    logits = expected[f"logits{batch}"]
    atol = GOLDEN * logits.abs().max().item()
    torch.testing.assert_close(discriminator(expected[f"x{batch}"]), logits, rtol=GOLDEN, atol=atol)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "build"),
    [
        ("nvidia_sg2ada_G_1024_configf.tsv", StyleGAN2),
        (
            "nvidia_sg2ada_G_32_cond10_auto.tsv",
            lambda: StyleGAN2(32, c_dim=10, mapping_layers=2, channel_base=16384),
        ),
        ("nvidia_sg2ada_D_1024_configf.tsv", StyleGAN2Discriminator),
        ("nvidia_sg2ada_D_32_cond10.tsv", lambda: StyleGAN2Discriminator(32, 10, 16384)),
    ],
)
def test_names_kinds_and_shapes_are_the_published_ones(shared_folder, file, build):
    lines = (shared_folder / "reference" / "shapes" / file).read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    with torch.device("meta"):
        network = build()
    parameters = dict(network.named_parameters())
    found = {name: ("P" if name in parameters else "B", list(v.shape)) for name, v in network.state_dict().items()}
    assert found == {name: (kind, ast.literal_eval(shape)) for name, kind, shape in rows}


@given(st.integers(0, 5), st.sampled_from(["skip", "orig", "resnet"]))
@settings(max_examples=6)
def test_a_vector_a_1x1_map_and_a_constant_map_draw_the_same(seed, architecture):
    generator = tiny(seed, architecture=architecture)
    codes = some_codes(generator)
    expected = generator.synthesis(codes)
    maps = as_stylemaps(codes)
    assert_close(generator.synthesis(maps), expected)
    for size in ((4, 4), (3, 5), (32, 32)):
        assert_close(generator.synthesis([m.expand(-1, -1, *size).contiguous() for m in maps]), expected)


def test_a_map_that_varies_changes_one_place_and_leaves_the_other():
    generator = tiny()
    maps = [m.repeat(1, 1, 16, 16) for m in as_stylemaps(some_codes(generator))]
    expected = generator.synthesis(maps, "none")
    maps[-1][..., :8] += 1
    image = generator.synthesis(maps, "none")
    assert torch.equal(image[..., 8:], expected[..., 8:])
    assert not torch.allclose(image[..., :8], expected[..., :8])


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_images_do_not_depend_on_their_batch(architecture):
    generator = tiny(architecture=architecture)
    codes = some_codes(generator, 3)
    alone = torch.cat([generator.synthesis(code[None]) for code in codes])
    assert_close(generator.synthesis(codes), alone)
    assert alone.shape == (3, 3, 16, 16)


def test_noise_is_the_files_a_fresh_one_or_none():
    generator = tiny()
    codes = some_codes(generator)
    torch.manual_seed(3)
    images = {mode: generator.synthesis(codes, mode) for mode in ("const", "random", "none")}
    assert torch.equal(images["const"], generator.synthesis(codes))
    assert not torch.equal(images["random"], generator.synthesis(codes, "random"))
    assert not torch.equal(images["const"], images["none"])
    with pytest.raises(ValueError, match="noise_mode 'constant': expected 'const', 'random' or 'none'"):
        generator.synthesis(codes, "constant")


def test_features_are_those_on_the_way_to_the_image():
    generator = tiny()
    codes = some_codes(generator)
    assert [generator.synthesis.features(codes, r).shape[1:] for r in (4, 8, 16)] == [(16, 4, 4), (16, 8, 8), (8, 16, 16)]
    with pytest.raises(ValueError, match=r"no features of 32 px: expected one of \[4, 8, 16\]"):
        generator.synthesis.features(codes, 32)


def test_a_clamp_bounds_every_layer():
    generator = tiny(conv_clamp=0.1)
    codes = some_codes(generator)
    assert generator.synthesis.features(codes, 16).abs().max() <= 0.1
    assert not torch.allclose(generator.synthesis(codes), tiny().synthesis(codes))


def test_half_precision_is_for_gpus_alone():
    codes = some_codes(tiny())
    assert torch.equal(tiny(num_fp16_res=2).synthesis(codes), tiny().synthesis(codes))


def test_a_conditional_network_needs_its_label_and_heeds_it():
    generator = tiny(c_dim=3)
    z, c = torch.randn(2, 16), torch.eye(3)[:2]
    assert not torch.equal(generator.mapping(z, c=c)[0], generator.mapping(z, c=c.flip(0))[0])
    assert torch.equal(generator(z, 0.5, c=c), generator.synthesis(generator.mapping(z, 0.5, c=c)))
    with pytest.raises(ValueError, match="label of width 3"):
        generator(z)
    with pytest.raises(ValueError, match="label of width 0"):
        tiny()(z, c=c)


def test_a_conditional_discriminator_holds_the_image_against_its_label():
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(16, 3, 128, 16, mapping_layers=2)
    image, c = torch.randn(2, 3, 16, 16), torch.eye(3)[:2]
    assert discriminator(image, c).shape == (2, 1)
    assert not torch.equal(discriminator(image, c), discriminator(image, c.flip(0)))
    with pytest.raises(ValueError, match="a label of width 3"):
        discriminator(image)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("num_channels", [0, 1, 2])
def test_a_discriminator_of_every_architecture_sees_its_image(architecture, num_channels):
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(16, 0, 128, 16, architecture=architecture, mbstd_num_channels=num_channels)
    names = {name.split(".")[1] for name in discriminator.state_dict() if name.startswith("b8.")}
    assert ("skip" in names, "fromrgb" in names) == (architecture == "resnet", architecture == "skip")
    image = torch.randn(4, 3, 16, 16)
    alone = torch.cat([discriminator(one[None]) for one in image])
    together = discriminator(image)
    assert together.unique().numel() == 4
    assert torch.allclose(together, alone, atol=1e-5) == (num_channels == 0), "a batch is told by its spread alone"


def test_a_group_without_a_size_is_the_whole_batch():
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(16, 0, 128, 16, mbstd_group_size=None)
    image = torch.randn(5, 3, 16, 16)
    assert discriminator(image).shape == (5, 1)
    discriminator.b4.mbstd_group_size = 5
    expected = discriminator(image)
    discriminator.b4.mbstd_group_size = None
    assert torch.equal(discriminator(image), expected)


def test_a_mapping_network_may_be_wider_inside_and_train_at_another_rate():
    generator = tiny(c_dim=3, mapping_layers=3, mapping_features=7, embed_features=5, mapping_lr_multiplier=1.0)
    shapes = [tuple(layer.weight.shape) for name, layer in generator.mapping.named_children()]
    assert shapes == [(5, 3), (7, 21), (7, 7), (16, 7)]
    assert generator.mapping(torch.randn(2, 16), c=torch.eye(3)[:2]).shape == (2, 6, 16)
    assert not list(tiny(mapping_layers=0).mapping.parameters())


def test_what_does_not_fit_is_named():
    generator = tiny()
    with pytest.raises(LatentMismatch, match="takes 6 styles, the latent has 5"):
        generator.synthesis(some_codes(generator)[:, :5])
    with pytest.raises(ValueError, match="img_resolution=24: expected a power of 2"):
        StyleGAN2(24)
    with pytest.raises(UnknownName, match="did you mean skip"):
        StyleGAN2(16, architecture="skp")
    discriminator = StyleGAN2Discriminator(16, 0, 128, 16)
    with pytest.raises(ValueError, match="a batch of 6: expected fewer than 4 images, or a multiple of 4"):
        discriminator(torch.zeros(6, 3, 16, 16))
    with pytest.raises(ValueError, match="expected images of 16 px"):
        discriminator(torch.zeros(1, 3, 8, 8))


def test_gradients_reach_the_codes_and_every_weight():
    generator = tiny().requires_grad_(True)
    codes = some_codes(generator).requires_grad_(True)
    generator.synthesis(codes).square().mean().backward()
    assert codes.grad.abs().sum(2).min() > 0
    without = [name for name, p in generator.synthesis.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.fixture(scope="module")
def middling():
    """A 128 px generator: large enough to have features that may be computed in half precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN2(128, 16, w_dim=16, mapping_layers=2, channel_base=1024, channel_max=16)
        for resolution in generator.synthesis.resolutions:
            generator.synthesis.block(resolution).conv1.noise_strength.data.fill_(0.1)
    return generator.eval().requires_grad_(False)


def test_bfloat16_stays_close_to_float32_and_comes_back(middling):
    codes = some_codes(middling)
    expected = middling.synthesis(codes)
    try:
        assert middling.compute_in(torch.bfloat16) is middling
        image = middling.synthesis(codes)
        assert middling.synthesis.features(codes, 64).dtype == torch.bfloat16
        assert middling.synthesis.features(codes, 32).dtype == image.dtype == torch.float32
        error = (image - expected).square().mean()
        assert 0 < error < 1e-4 * 2**2  # 40 dB of the range from -1 to 1
        leaf = codes.clone().requires_grad_()
        middling.synthesis(leaf).square().mean().backward()
        assert leaf.grad.dtype == torch.float32
        assert leaf.grad.isfinite().all()
    finally:
        middling.compute_in(torch.float32)
    assert torch.equal(middling.synthesis(codes), expected)
    with pytest.raises(ValueError, match=r"torch\.int8: expected one of float32, bfloat16, float16"):
        middling.compute_in(torch.int8)


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_drawing_twice_or_with_gradients_gives_the_same_image(architecture):
    # Without gradients features are overwritten: neither constants nor codes may be.
    generator = tiny(architecture=architecture)
    codes = some_codes(generator)
    state = {name: value.clone() for name, value in generator.state_dict().items()}
    images = [generator.synthesis(codes) for _ in range(2)]
    assert torch.equal(*images)
    assert_close(generator.synthesis(codes.clone().requires_grad_()).detach(), images[0])
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())
    assert images[0].is_contiguous()


def test_gradients_are_the_same_for_fixed_and_for_trained_weights():
    # Fixed weights take a way of their own through modulated convolutions.
    generator, grads = tiny(), []
    for trained in (False, True):
        codes = some_codes(generator).requires_grad_()
        image = generator.requires_grad_(trained).synthesis(codes)
        (first,) = torch.autograd.grad(image.square().mean(), codes, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), codes)
        grads.append((first.detach(), second))
    for fixed, free in zip(*grads, strict=True):
        assert_close(fixed, free, GOLDEN)


def test_autocast_draws_nearly_the_same_with_gradients(middling):
    codes = some_codes(middling).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        image = middling.synthesis(codes).float()
    assert (image - middling.synthesis(codes)).square().mean() < 1e-3 * 2**2
    image.square().mean().backward()
    assert codes.grad.isfinite().all()
