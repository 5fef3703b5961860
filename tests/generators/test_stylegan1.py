"""Does StyleGAN1 draw what its description says? There is no official image here, so a second implementation checks it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from generators.base import Generator
from generators.errors import LatentMismatch
from generators.stylegan1 import TRUNCATION_CUTOFF, TRUNCATION_PSI, StyleGAN1


@pytest.fixture(scope="module", params=[128, 16], ids=["nearest", "fused"])
def generator(request):
    """All weights random; at 16 px the last up-sampling is fused, or none is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StyleGAN1(16, 8, 6, 3, channel_base=128, channel_max=12, fused_from=request.param).eval()
        network.requires_grad_(False)
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "apply_noise.weight", "w_avg", "const")):
                value.normal_()
    return network


@pytest.fixture
def z():
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


def mapped(state, z, layers=3):
    x = z / (z.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(layers):
        weight, bias = state[f"mapping.dense{i}.weight"], state[f"mapping.dense{i}.bias"]
        x = x @ (weight * 0.01 * (2 / weight.shape[1]) ** 0.5).T + bias * 0.01
        x = torch.where(x > 0, x, 0.2 * x)
    return x


def drawn(state, w_plus, fused_from, lod=0.0, use_noise=True, levels=3):
    """Draw as TensorFlow's graph did: all resolutions, from the coarsest on, each blended with the one before."""
    image = x = None
    for level in range(levels):
        for which in (0, 1):
            n = 2 * level + which
            p = f"synthesis.layer{n}."
            if n == 0:
                x = state[p + "const"].repeat(len(w_plus), 1, 1, 1)
            else:
                weight = state[p + "weight"]
                weight = weight * (2 / weight[0].numel()) ** 0.5
                if which == 0:
                    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                    # A fused layer convolves, any other one correlates.
                    weight = weight.flip([2, 3]) if 4 * 2**level >= fused_from else weight
                x = F.conv2d(F.pad(x, [1, 1, 1, 1]), weight)
                if which == 0:
                    p1 = F.pad(x, [1, 1, 0, 0])
                    x = p1[..., :-2] / 4 + p1[..., 1:-1] / 2 + p1[..., 2:] / 4
                    p1 = F.pad(x, [0, 0, 1, 1])
                    x = p1[..., :-2, :] / 4 + p1[..., 1:-1, :] / 2 + p1[..., 2:, :] / 4
            if use_noise:
                x = x + state[p + "apply_noise.noise"] * state[p + "apply_noise.weight"].reshape(1, -1, 1, 1)
            x = x + state[p + "bias"].reshape(1, -1, 1, 1)
            x = torch.where(x > 0, x, 0.2 * x)
            x = F.instance_norm(x, eps=1e-8)
            weight = state[p + "style.weight"]
            style = w_plus[:, n] @ (weight / weight.shape[1] ** 0.5).T + state[p + "style.bias"]
            style = style.reshape(len(w_plus), 2, -1, 1, 1)
            x = x * (style[:, 0] + 1) + style[:, 1]
        weight = state[f"synthesis.output{level}.weight"]
        colours = F.conv2d(x, weight / weight.shape[1] ** 0.5, state[f"synthesis.output{level}.bias"])
        if image is None:
            image = colours
        else:
            image = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
            t = min(max(lod - (levels - 1 - level), 0), 1)
            image = colours + (image - colours) * t
    return image


def test_w_is_what_the_description_says(generator, z):
    expected = mapped(generator.state_dict(), z)
    torch.testing.assert_close(generator.mapping.w(z), expected)
    torch.testing.assert_close(generator.mapping(z), expected[:, None].expand(-1, 6, -1))


@pytest.mark.parametrize("lod", [0.0, 0.25, 1.0, 1.5, 2.0, 7.0])
def test_images_are_what_the_description_says(generator, z, lod):
    w_plus = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(2))
    fused_from = 16 if generator.synthesis.layer4.is_fused else 128
    other = copy.deepcopy(generator)
    other.synthesis.lod.fill_(lod)
    expected = drawn(other.state_dict(), w_plus, fused_from, lod)
    torch.testing.assert_close(other.synthesis(w_plus), expected, rtol=1e-4, atol=1e-4)
    silent = drawn(other.state_dict(), w_plus, fused_from, lod, use_noise=False)
    torch.testing.assert_close(other.synthesis(w_plus, noise_mode="none"), silent, rtol=1e-4, atol=1e-4)


def test_it_is_a_generator(generator, z):
    assert isinstance(generator, Generator)
    assert (generator.num_ws, generator.w_dim, generator.z_dim, generator.img_resolution) == (6, 6, 8, 16)
    assert generator(z).shape == (3, 3, 16, 16)
    torch.testing.assert_close(generator(z), generator.synthesis(generator.mapping(z)))


def test_noise_modes(generator, z):
    w_plus = generator.mapping(z)
    assert torch.equal(generator.synthesis(w_plus), generator.synthesis(w_plus))
    assert not torch.equal(generator.synthesis(w_plus, "random"), generator.synthesis(w_plus, "random"))
    with pytest.raises(ValueError, match="noise_mode 'constant'"):
        generator.synthesis(w_plus, noise_mode="constant")


def test_truncation_pulls_the_first_layers_to_w_avg(generator, z):
    full, truncated = generator.mapping(z), generator.mapping(z, TRUNCATION_PSI, 4)
    torch.testing.assert_close(truncated[:, :4], generator.w_avg + 0.7 * (full[:, :4] - generator.w_avg))
    assert torch.equal(truncated[:, 4:], full[:, 4:])
    everywhere = generator.mapping(z, TRUNCATION_PSI, TRUNCATION_CUTOFF)
    torch.testing.assert_close(everywhere, generator.mapping(z, 0.7))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (16, 16), (3, 5)])
def test_constant_stylemaps_are_a_w_plus(generator, z, size):
    w_plus = generator.mapping(z)
    maps = [w[:, :, None, None].repeat(1, 1, *size) for w in w_plus.unbind(1)]
    torch.testing.assert_close(generator.synthesis(maps), generator.synthesis(w_plus), rtol=1e-4, atol=1e-4)


def test_a_stylemap_changes_its_own_side(generator, z):
    w_plus = generator.mapping(z)
    maps = [w[:, :, None, None].repeat(1, 1, 16, 16) for w in w_plus.unbind(1)]
    still = generator.synthesis(maps)
    maps[5] = maps[5].clone()
    maps[5][..., :4] += 1
    changed = (generator.synthesis(maps) - still).abs().amax((0, 1, 2))
    assert changed[:4].min() > 1e-3
    assert changed[4:].max() == 0


def test_latents_that_do_not_fit_are_refused(generator, z):
    with pytest.raises(LatentMismatch, match="takes 6 styles, the latent has 5"):
        generator.synthesis(generator.mapping(z)[:, :5])


def test_features_are_those_of_a_resolution(generator, z):
    w_plus = generator.mapping(z)
    for level, resolution in enumerate((4, 8, 16)):
        assert generator.synthesis.features(w_plus, resolution).shape[2:] == (resolution, resolution), level
    for resolution in (0, 2, 6, 32):
        with pytest.raises(ValueError, match=f"no features of {resolution} px"):
            generator.synthesis.features(w_plus, resolution)


def test_a_sample_does_not_depend_on_its_batch(generator, z):
    alone = torch.cat([generator(z[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(generator(z), alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_latent(generator, z):
    w_plus = generator.mapping(z).requires_grad_()
    (grad,) = torch.autograd.grad(generator.synthesis(w_plus).square().sum(), w_plus, create_graph=True)
    (double,) = torch.autograd.grad(grad.square().sum(), w_plus)
    assert grad.abs().amax((0, 2)).min() > 0
    assert double.isfinite().all()


def test_its_state_dict_goes_into_another(generator, z):
    fused_from = 16 if generator.synthesis.layer4.is_fused else 128
    other = StyleGAN1(16, 8, 6, 3, channel_base=128, channel_max=12, fused_from=fused_from).eval()
    other.load_state_dict(generator.state_dict())
    assert torch.equal(other(z), generator(z))


def test_sizes_of_the_published_network():
    with torch.device("meta"):
        network = StyleGAN1()
    assert network.num_ws == 18
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["synthesis.layer0.const"] == (1, 512, 4, 4)
    assert shapes["synthesis.layer17.weight"] == (16, 16, 3, 3)
    assert shapes["synthesis.layer16.style.weight"] == (32, 512)
    assert shapes["synthesis.output8.weight"] == (3, 16, 1, 1)
    fused = [n for n in range(0, 18, 2) if network.synthesis.get_submodule(f"layer{n}").is_fused]
    assert fused == [10, 12, 14, 16]
    # The figure of Karras et al. 2019, section 2: 26.2 million parameters.
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(26.2e6, rel=2e-3)


def test_resolutions_that_are_no_power_of_2_are_refused():
    with pytest.raises(ValueError, match="img_resolution=24"):
        StyleGAN1(24)


def test_bfloat16_stays_close_to_float32():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN1(64, 16, 16, mapping_layers=2, channel_base=512, channel_max=16).eval().requires_grad_(False)
        w_plus = torch.randn(2, generator.num_ws, 16)
    expected = generator.synthesis(w_plus)
    image = generator.compute_in(torch.bfloat16).synthesis(w_plus)
    assert image.dtype == torch.float32
    assert 0 < (image - expected).square().mean() < 1e-4 * 2**2
    assert torch.equal(generator.compute_in(torch.float32).synthesis(w_plus), expected)
