"""Can features be changed on the way to an image, at every resolution, in every generator that has places?"""

from __future__ import annotations

import pytest
import torch

from generators.mobilestylegan import MobileStyleGAN
from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3

SMALL = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1}


@pytest.fixture(params=["mobile", "skip", "resnet", "orig", "stylegan1"])
def generator(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "mobile":
            network = MobileStyleGAN((8, 8, 8), const_channels=8, **SMALL)
            for parameter in network.synthesis.parameters():
                parameter.data.copy_(torch.randn_like(parameter) * 0.3)
        elif request.param == "stylegan1":
            network = StyleGAN1(64, channel_base=64, channel_max=8, **SMALL)
        else:
            network = StyleGAN2(64, channel_base=64, channel_max=8, architecture=request.param, **SMALL)
    return network.eval().requires_grad_(False)


def two_codes(generator):
    return torch.randn(2, generator.num_ws, 8, generator=torch.Generator().manual_seed(0))


def test_features_that_are_left_alone_draw_the_same(generator):
    codes, seen = two_codes(generator), []
    image = generator.synthesis(codes, compose=lambda x: seen.append(x.shape[-1]) or x)
    assert torch.equal(image, generator.synthesis(codes))
    assert set(seen) >= {4, 8, 16, 32}, "told of every resolution"


def test_what_is_put_in_place_of_all_features_is_drawn_on_from(generator):
    codes = two_codes(generator)
    # Colour at 32 px shares its style with the layer above.
    lower = [layer for layer, size in enumerate(generator.style_resolutions) if size <= 32]
    codes[1, lower[-1] + 1] = codes[0, lower[-1] + 1]
    as_first = generator.synthesis(codes, compose=lambda x: x[:1].expand_as(x) if x.shape[-1] == 32 else x)
    mixed = codes.clone()
    mixed[1, lower] = codes[0, lower]
    torch.testing.assert_close(as_first, generator.synthesis(mixed), atol=1e-4, rtol=1e-4)


def test_every_style_has_a_resolution(generator):
    sizes = generator.style_resolutions
    assert len(sizes) == generator.num_ws
    assert sizes == tuple(sorted(sizes))
    assert (sizes[0], sizes[-1]) == (4, 64)


def test_stylegan3_refuses_in_words():
    network = StyleGAN3(32, num_layers=6, margin_size=4, channel_base=128, channel_max=8, **SMALL)
    with pytest.raises(ValueError, match="move under the pixels"):
        network.synthesis(torch.zeros(1, network.num_ws, 8), compose=lambda x: x)
    assert network.style_resolutions == ()
