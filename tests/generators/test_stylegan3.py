"""Does StyleGAN3 draw what its own code draws, and move images without aliasing?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from generators.base import Generator
from generators.errors import LatentMismatch
from generators.stylegan3 import StyleGAN3, low_pass, plan_bands

TINY = {
    "T": {"channel_base": 256, "channel_max": 16},
    "R": {"channel_base": 512, "channel_max": 16, "kernel_size": 1, "radial": True},
}
SMALL = {"img_resolution": 32, "z_dim": 16, "w_dim": 16, "num_layers": 6, "num_critical": 2, "margin_size": 4}


@pytest.fixture(scope="module", params=["T", "R"])
def generator(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StyleGAN3(**SMALL, **TINY[request.param]).eval().requires_grad_(False)
        network.synthesis.input.affine.weight.normal_()  # Zero at first: the first style moves nothing then.
    return network


@pytest.fixture
def z():
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.shared
@pytest.mark.parametrize("config", TINY)
def test_images_match_the_golden_file(config, shared_folder):
    golden = np.load(shared_folder / f"reference/golden/nvidia_sg3_{config}_tiny32.npz")
    generator = StyleGAN3(**SMALL, **TINY[config]).eval().requires_grad_(False)
    designed = {name: value.clone() for name, value in generator.state_dict().items() if name.endswith("_filter")}
    generator.load_state_dict({k.removeprefix("G."): torch.tensor(golden[k]) for k in golden.files if k.startswith("G.")})
    for name, value in designed.items():
        torch.testing.assert_close(value, generator.state_dict()[name], rtol=1e-5, atol=1e-7, msg=name)

    def check(actual, name):
        expected = torch.tensor(golden[name])
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item(), msg=name)

    w_plus = generator.mapping(torch.tensor(golden["z"]))
    check(w_plus, "w")
    for mode in ("const", "random", "none"):
        check(generator.synthesis(w_plus, noise_mode=mode), "img")
    generator.transform = torch.tensor(golden["transform2"])
    check(generator.synthesis(w_plus), "img_transform2")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("T_1024", {}),
        ("T_256", {"img_resolution": 256, "channel_base": 16384}),
        ("R_1024", {"channel_base": 65536, "channel_max": 1024, "kernel_size": 1, "radial": True}),
    ],
)
def test_tensors_have_the_names_and_shapes_of_the_files(name, arguments, shared_folder):
    with torch.device("meta"):
        generator = StyleGAN3(**arguments)
    lines = (shared_folder / f"reference/shapes/nvidia_sg3_G_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    assert {key: str(list(value.shape)) for key, value in generator.state_dict().items()} == {row[0]: row[2] for row in rows}
    assert {key for key, _ in generator.named_parameters()} == {row[0] for row in rows if row[1] == "P"}


def test_it_is_a_generator(generator, z):
    assert isinstance(generator, Generator)
    assert generator.num_ws == 8
    assert generator.w_avg.shape == (16,)
    w_plus = generator.mapping(z)
    assert w_plus.shape == (3, 8, 16)
    image = generator.synthesis(w_plus)
    assert image.shape == (3, 3, 32, 32)
    assert torch.equal(image, generator(z))


def test_its_state_dict_goes_into_another(generator, z):
    other = StyleGAN3(**SMALL, **TINY["R" if generator.synthesis.layer_names[3].endswith("_16") else "T"]).eval()
    other.load_state_dict(generator.state_dict())
    torch.testing.assert_close(other(z), generator(z))


def test_a_sample_hardly_depends_on_its_batch(generator, z):
    alone = torch.cat([generator(z[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(generator(z), alone, rtol=1e-4, atol=1e-5)


def test_truncation_pulls_to_w_avg(generator, z):
    w_plus = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=3)
    full = generator.mapping(z)
    torch.testing.assert_close(w_plus[:, :3], generator.w_avg.lerp(full[:, :3], 0.5))
    assert torch.equal(w_plus[:, 3:], full[:, 3:])


def test_one_pixel_maps_are_a_w_plus_and_larger_ones_are_refused(generator, z):
    w_plus = generator.mapping(z)
    maps = [w[:, :, None, None] for w in w_plus.unbind(1)]
    assert torch.equal(generator.synthesis(maps), generator.synthesis(w_plus))
    maps[4] = maps[4].repeat(1, 1, 2, 2)
    with pytest.raises(LatentMismatch, match="StyleGAN3 takes a w_plus, not a stylemap"):
        generator.synthesis(maps)
    with pytest.raises(LatentMismatch, match="takes 8 styles, the latent has 7"):
        generator.synthesis(w_plus[:, :7])


def test_unknown_noise_modes_and_sizes_are_refused(generator, z):
    w_plus = generator.mapping(z)
    with pytest.raises(ValueError, match="noise_mode 'constant'"):
        generator.synthesis(w_plus, noise_mode="constant")
    with pytest.raises(ValueError, match=r"no features of 33 px: expected one of \[24, 32, 40\]"):
        generator.synthesis.features(w_plus, 33)


def test_features_are_those_of_the_last_layer_of_a_size(generator, z):
    w_plus = generator.mapping(z)
    assert generator.synthesis.features(w_plus, 24).shape[2:] == (24, 24)
    features = generator.synthesis.features(w_plus, 32)
    rgb = generator.synthesis.get_submodule(generator.synthesis.layer_names[-1])
    torch.testing.assert_close(rgb(features, w_plus[:, -1]) * 0.25, generator.synthesis(w_plus))


def test_a_transform_moves_the_image(generator, z):
    w_plus = generator.mapping(z)
    still = generator.synthesis(w_plus)
    moved = torch.eye(3)
    moved[0, 2] = 4 / 32
    try:
        generator.transform = moved
        image = generator.synthesis(w_plus)
    finally:
        generator.transform = torch.eye(3)
    # A matrix from output to input: what is drawn at x was at x + 4 before.
    inner, shifted = image[:, :, 8:-8, 8:-8], still[:, :, 8:-8, 12:-4]
    assert (inner - shifted).abs().mean() < 0.1 * (inner - still[:, :, 8:-8, 8:-8]).abs().mean()


def test_gradients_reach_the_latent(generator, z):
    w_plus = generator.mapping(z).requires_grad_()
    (grad,) = torch.autograd.grad(generator.synthesis(w_plus).square().sum(), w_plus, create_graph=True)
    (double,) = torch.autograd.grad(grad.square().sum(), w_plus)
    assert grad.abs().amax((0, 2)).min() > 0
    assert double.isfinite().all()


@pytest.mark.parametrize("radial", [False, True])
def test_a_low_pass_filter_passes_low_frequencies_only(radial):
    f = low_pass(24, cutoff=4.0, width=6.0, sampling_rate=32, radial=radial)
    response = torch.fft.fft2(f.double(), (320, 320)).abs()[0] if radial else torch.fft.fft(f.double(), 320).abs()
    frequencies = torch.arange(320) * 0.1
    assert response[0].item() == pytest.approx(1, abs=1e-6)
    assert response[frequencies < 1.0].min() > 0.9
    assert response[(frequencies > 7.5) & (frequencies < 16)].max() < 0.02
    assert response[40].item() == pytest.approx(0.5, abs=0.1)
    if radial:
        assert torch.allclose(f, f.T)
        # On the circle of a frequency the response is the same, along the axes and diagonally.
        diagonal = torch.fft.fft2(f.double(), (320, 320)).abs()[28, 28]
        assert diagonal.item() == pytest.approx(response[round(28 * math.sqrt(2))].item(), abs=0.02)


def test_a_filter_of_one_tap_is_none():
    assert low_pass(1, 1.0, 1.0, 4) is None


def test_layers_of_the_published_networks_are_planned():
    bands = plan_bands(512, 32768, 512, 14, 2, 2.0, 2**2.1, 2**0.3, 10)
    assert [band.size for band in bands] == [36, 36, 52, 52, 84, 84, 148, 148, 276, 276, 532, 532, 532, 512, 512]
    assert [band.channels for band in bands][6:] == [512, 483, 323, 215, 144, 96, 64, 64, 3]


def test_filters_bending_rate_and_scale_are_arguments(generator, z):
    filters = {"filter_size": 4, "lrelu_upsampling": 4}
    other = StyleGAN3(**SMALL, **TINY["T"], **filters, output_scale=0.5).eval().requires_grad_(False)
    layer = other.synthesis.get_submodule(other.synthesis.layer_names[0])
    assert (layer.up, layer.down, len(layer.up_filter), len(layer.down_filter)) == (4, 4, 16, 16)
    image = other(z)
    other.synthesis.output_scale = 1.0
    torch.testing.assert_close(other(z), 2 * image)


def test_bfloat16_stays_close_to_float32():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN3(64, 16, w_dim=16, channel_base=512, channel_max=16, num_layers=6).eval().requires_grad_(False)
        w_plus = torch.randn(2, generator.num_ws, 16)
    expected = generator.synthesis(w_plus)
    image = generator.compute_in(torch.bfloat16).synthesis(w_plus)
    assert image.dtype == torch.float32
    assert 0 < (image - expected).square().mean() < 1e-4 * 2**2
    assert torch.equal(generator.compute_in(torch.float32).synthesis(w_plus), expected)
