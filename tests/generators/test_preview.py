"""Does the small head learn what the whole generator draws, and fit any of its resolutions?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.latent import as_stylemaps
from generators.preview import PreviewHead


@pytest.fixture
def codes(tiny_generator):
    return tiny_generator.mapping(torch.randn(3, tiny_generator.z_dim, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("resolution", [4, 8, 16, 32, 64, 128])
def test_a_head_is_built_for_every_resolution_and_doubles_it(tiny_generator, codes, resolution):
    head = PreviewHead.for_generator(tiny_generator, resolution)
    image = head(tiny_generator, codes)
    assert image.shape == (3, 3, 2 * resolution, 2 * resolution)
    maps = tuple(m.repeat(1, 1, 2, 2) for m in as_stylemaps(codes))
    torch.testing.assert_close(head(tiny_generator, maps), image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resolution", [0, 2, 48, 256, 1024])
def test_a_head_for_another_resolution_is_refused_in_words(tiny_generator, resolution):
    with pytest.raises(ValueError, match=f"no features of {resolution} px: expected a power of 2 from 4 to 128"):
        PreviewHead.for_generator(tiny_generator, resolution)


@pytest.mark.usefixtures("_seed")
def test_gradients_reach_the_styles_behind_the_features_too(tiny_generator, codes):
    codes = codes.clone().requires_grad_(True)
    PreviewHead.for_generator(tiny_generator, 16)(tiny_generator, codes).square().mean().backward()
    assert (codes.grad.abs().amax((0, 2)) > 0).all()


@pytest.fixture
def drawn(tiny_generator, codes):
    """Return what the whole generator draws, at 32 px."""
    with torch.no_grad():
        return F.interpolate(tiny_generator.synthesis(codes), (32, 32), mode="area")


@pytest.mark.usefixtures("_seed")
def test_a_solved_head_is_the_best_linear_one(tiny_generator, codes, drawn):
    head = PreviewHead.for_generator(tiny_generator, 16)
    head.solve(tiny_generator, zip(codes.split(1), drawn.split(1), strict=True))
    torch.nn.init.zeros_(head.affine.weight)
    error = F.mse_loss(head(tiny_generator, codes), drawn)
    assert error < 0.7 * drawn.var(), "better than one colour"
    error.backward()
    with torch.no_grad():
        for scale in (0.98, 1.02):  # Around the optimum there is nothing to gain.
            head.linear.weight *= scale
            assert F.mse_loss(head(tiny_generator, codes), drawn) > error
            head.linear.weight /= scale


@pytest.mark.usefixtures("_seed")
def test_a_solved_head_learns_what_is_not_linear(tiny_generator, codes, drawn):
    head = PreviewHead.for_generator(tiny_generator, 16)
    head.solve(tiny_generator, [(codes, drawn)])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    errors = []
    for _ in range(60):
        error = F.mse_loss(head(tiny_generator, codes), drawn)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
