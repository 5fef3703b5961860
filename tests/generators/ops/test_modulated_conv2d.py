"""Does a style steer a convolution as StyleGAN2's equations say, in every implementation, with gradients?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.errors import ImplUnavailable
from generators.ops import conv2d_resample, modulated_conv2d, setup_filter, upfirdn2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", "auto", "triton")
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
RESAMPLINGS = [(1, 1), (2, 1), (1, 2)]
SIZES = [2, 6]
"""At 2 px there are fewer features to scale than weights, at 6 px fewer weights."""


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def draw(size, style_size=(), dtype=torch.float32, channels=(3, 4), k=3):
    """Return features, weights and styles."""
    random = torch.Generator().manual_seed(0)
    shapes = ((2, channels[0], size, size), (channels[1], channels[0], k, k), (2, channels[0], *style_size))
    return [torch.randn(shape, generator=random, dtype=dtype).to(DEVICE) for shape in shapes]


def by_equations(x, weight, s, demodulate, up, down, f):
    """Scale the weights of one sample after the other by Eqs. 1 and 3, and convolve as the published files do."""
    images = []
    for sample, style in zip(x.split(1), s, strict=True):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up == 2:
            # Zeros between the pixels, a true convolution that keeps all it can, then the filter.
            stuffed = upfirdn2d(sample, None, up=2, impl="reference")
            full = F.conv2d(stuffed, w.flip([2, 3]), padding=2)[:, :, :-1, :-1]
            images.append(upfirdn2d(full, f, padding=1, gain=4.0, impl="reference"))
        elif down == 2:
            images.append(F.conv2d(upfirdn2d(sample, f, padding=2, impl="reference"), w, stride=2))
        else:
            images.append(F.conv2d(sample, w, padding=1))
    return torch.cat(images)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("up", "down"), RESAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_modulated_conv2d_follows_the_equations(impl, demodulate, up, down, size):
    x, weight, s = draw(size)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE) if up * down > 1 else None
    y = modulated_conv2d(x, weight, s, demodulate, up, down, 1, f, impl)
    assert y.shape == (2, 4, size * up // down, size * up // down)
    expected = by_equations(x, weight, s, demodulate, up, down, f)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("up", "down"), RESAMPLINGS)
@pytest.mark.parametrize("style_size", [(1, 1), (6, 6), (3, 12)])
def test_a_constant_map_of_any_size_is_a_vector(impl, demodulate, up, down, style_size):
    x, weight, s = draw(6)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE) if up * down > 1 else None
    vector = modulated_conv2d(x, weight, s, demodulate, up, down, 1, f, impl)
    spatial = modulated_conv2d(x, weight, s[:, :, None, None].repeat(1, 1, *style_size), demodulate, up, down, 1, f, impl)
    torch.testing.assert_close(spatial, vector, rtol=1e-5, atol=1e-5 * vector.abs().max().item())


@pytest.mark.parametrize("impl", IMPLS)
def test_a_map_follows_the_spatial_equation(impl):
    x, weight, s = draw(6, (6, 6))
    y = modulated_conv2d(x, weight, s, padding=1, impl=impl)
    magnitude = (F.conv2d(s.square(), weight.square(), padding=1) + 1e-8).sqrt()
    expected = F.conv2d(s * x, weight, padding=1) / magnitude
    # The equation leaves the border open: here styles go on beyond it, instead of being 0 there.
    torch.testing.assert_close(y[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("up", [1, 2])
@settings(max_examples=20)
@given(row=st.integers(0, 7), column=st.integers(0, 7), seed=st.integers(0, 2**32 - 1))
def test_a_style_changes_nothing_far_away(impl, up, row, column, seed):
    random = torch.Generator().manual_seed(seed)
    x, weight, s = draw(8, (8, 8))
    other = s.clone()
    other[:, :, row, column] += torch.randn(2, 3, generator=random).to(DEVICE)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE) if up == 2 else None
    images = [modulated_conv2d(x, weight, style, True, up, 1, 1, f, impl) for style in (s, other)]
    changed = (images[0] != images[1]).any(1).any(0).nonzero().cpu()
    reach = 1 if up == 1 else 5
    if len(changed):
        centre = torch.tensor([row, column]) * up + (up - 1) / 2
        assert (changed - centre).abs().max() <= reach


@pytest.mark.parametrize(
    ("impl", "up", "down"),
    # The interpreter is slow, and the kernel that resamples has a test of its own.
    [(impl, up, down) for impl in IMPLS for up, down in RESAMPLINGS if impl != "triton" or up * down == 1],
)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("size", "style_size"), [(2, ()), (4, ()), (2, (2, 3))])
def test_modulated_conv2d_has_first_and_second_gradients(impl, demodulate, up, down, size, style_size):
    inputs = [t.requires_grad_() for t in draw(size, style_size, torch.float64, channels=(2, 2))]
    f = setup_filter([1, 2, 1]).to(DEVICE) if up * down > 1 else None

    def convolve(x, weight, s):
        return modulated_conv2d(x, weight, s, demodulate, up, down, 1, f, impl)

    assert torch.autograd.gradcheck(convolve, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(convolve, inputs, fast_mode=True)


@pytest.mark.parametrize("impl", ["auto", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("up", "down"), RESAMPLINGS)
@pytest.mark.parametrize(("size", "style_size"), [(2, ()), (6, ()), (6, (3, 2))])
def test_modulated_conv2d_matches_the_reference_in_every_precision(impl, dtype, up, down, size, style_size):
    x, weight, s = draw(size, style_size)
    x = x.to(dtype)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE) if up * down > 1 else None
    outcomes = []
    for chosen, precision in (("reference", torch.float32), (impl, dtype)):
        leaves = [t.detach().clone().requires_grad_() for t in (x.to(precision), weight, s)]
        y = modulated_conv2d(*leaves, True, up, down, 1, f, chosen)
        assert y.dtype == precision
        first = torch.autograd.grad(y.float().square().mean(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(grad.float().square().sum() for grad in first), leaves)
        outcomes.append([t.float() for t in (y, *first, *second)])
    for expected, actual in zip(*outcomes, strict=True):
        # Demodulation makes some gradients nearly cancel.
        scale = max(1e-2, expected.abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * scale)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", SIZES)
def test_float16_survives_weights_and_styles_of_any_magnitude(impl, size):
    x, weight, s = draw(size)
    expected = modulated_conv2d(x, weight, s, padding=1, impl="reference")
    actual = modulated_conv2d(x.half(), weight * 1e4, s * 1e4, padding=1, impl=impl).float()
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())


@pytest.mark.parametrize("impl", ["auto", "triton"])
@pytest.mark.parametrize("needed", ["x", "weight", "s", "x s", "weight s"])
@pytest.mark.parametrize("k", [1, 3])
def test_gradients_do_not_depend_on_which_are_asked_for(impl, needed, k):
    # They decide whether weights or features are scaled.
    outcomes = []
    for chosen in ("reference", impl):
        tensors = dict(zip(("x", "weight", "s"), draw(6, k=k), strict=True))
        leaves = [tensors[name].requires_grad_() for name in needed.split()]
        y = modulated_conv2d(tensors["x"], tensors["weight"], tensors["s"], padding=k // 2, impl=chosen)
        outcomes.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    for expected, actual in zip(*outcomes, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 2])
def test_inputs_are_left_alone_in_any_layout(impl, layout, batch):
    x, weight, s = (tensor[:batch] if tensor.shape[0] == 2 else tensor for tensor in draw(6))
    x = x.contiguous(memory_format=layout)
    before = [tensor.clone() for tensor in (x, weight, s)]
    y = modulated_conv2d(x, weight, s, padding=1, impl=impl)
    torch.testing.assert_close(y, modulated_conv2d(*before, padding=1, impl="reference"))
    assert all(torch.equal(*pair) for pair in zip(before, (x, weight, s), strict=True))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", SIZES)
def test_a_sample_does_not_depend_on_its_batch(impl, size):
    x, weight, s = draw(size)
    together = modulated_conv2d(x, weight, s, padding=1, impl=impl)
    alone = torch.cat([modulated_conv2d(x[i : i + 1], weight, s[i : i + 1], padding=1, impl=impl) for i in range(2)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("k", [1, 3])
def test_rgb_is_drawn_without_demodulation(impl, k):
    x, weight, s = draw(6, k=k)
    y = modulated_conv2d(x, weight, s, demodulate=False, padding=k // 2, impl=impl)
    torch.testing.assert_close(y, F.conv2d(x * s[:, :, None, None], weight, padding=k // 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("up", "down"), RESAMPLINGS)
def test_conv2d_resample_gives_exact_sizes(impl, k, up, down):
    x, weight, _ = draw(8, k=k)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE)
    y = conv2d_resample(x, weight, f if up * down > 1 else None, up, down, k // 2, impl=impl)
    assert y.shape == (2, 4, 8 * up // down, 8 * up // down)


def test_a_1x1_convolution_commutes_with_resampling():
    x, weight, _ = draw(8, k=1)
    f = setup_filter([1, 3, 3, 1]).to(DEVICE)
    for up, down, pads in ((2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1))):
        expected = F.conv2d(upfirdn2d(x, f, up, down, pads, gain=float(up**2)), weight)
        torch.testing.assert_close(conv2d_resample(x, weight, f, up, down), expected, rtol=1e-4, atol=1e-5)


def test_mistakes_are_named(monkeypatch):
    x, weight, s = draw(4)
    with pytest.raises(ValueError, match="up=2 and down=2"):
        conv2d_resample(x, weight, None, 2, 2)
    if DEVICE == "cpu":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(ImplUnavailable, match="modulated_conv2d: impl='triton'"):
            modulated_conv2d(x, weight, s, impl="triton")
