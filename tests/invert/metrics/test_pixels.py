"""Do MSE, PSNR, SSIM and MS-SSIM agree with scikit-image, torchmetrics and numpy, image by image?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, structural_similarity_index_measure

from invert.errors import MetricError
from invert.evaluation.measures import figure_key
from invert.metrics.pixels import MS_SSIM, MSE, PSNR, SSIM, check_sizes, ms_ssim, mse, psnr, ssim

METRICS = [MSE, PSNR, SSIM, MS_SSIM]
# Wang et al. 2003: how much each scale counts.
WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


@pytest.fixture(scope="module")
def pair():
    """Three smooth images and noisy copies, each noisier than the one before."""
    random = torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(3, 3, 24, 24, generator=random), (192, 192), mode="bicubic")
    image = image.clamp(0, 1) * 2 - 1
    noise = torch.randn(image.shape, generator=random) * torch.tensor([0.05, 0.2, 0.5])[:, None, None, None]
    return (image + noise).clamp(-1, 1), image


def photo(image):
    return image.permute(1, 2, 0).double().numpy()


def skimage_ssim(a, b):
    """SSIM of two images in [0, 1] with mirrored borders, where scikit-image itself leaves the border out."""
    a, b = (np.pad((photo(x) + 1) / 2, ((5, 5), (5, 5), (0, 0)), mode="reflect") for x in (a, b))
    return structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )


def test_mse_and_psnr_match_scikit_image(pair):
    image, target = pair
    for i in range(3):
        a, b = photo(image[i]), photo(target[i])
        assert mse(image, target)[i].item() == pytest.approx(mean_squared_error(a, b), rel=1e-5)
        assert psnr(image, target)[i].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2), rel=1e-5)


def test_ssim_matches_scikit_image(pair):
    image, target = pair
    expected = [skimage_ssim(image[i], target[i]) for i in range(3)]
    assert ssim(image, target).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ssim, structural_similarity_index_measure), (ms_ssim, multiscale_structural_similarity_index_measure)],
)
def test_similarities_are_torchmetrics_of_images_from_0_to_1(ours, theirs, pair):
    image, target = pair
    levels = [((x + 1) * 127.5).double() for x in (image, target)]
    expected = [theirs(a[None], b[None], data_range=255.0).item() for a, b in zip(*levels, strict=True)]
    assert ours(image, target).tolist() == pytest.approx(expected, rel=1e-4)


def test_brightness_matters_as_in_images_from_0_to_1(pair):
    _, target = pair
    brighter = (target * 0.9 + 0.1)[:1]
    # In [-1, 1] it would be 0.69: there the ratio of luminances near 0, middle gray, is arbitrary.
    assert ms_ssim(brighter, target[:1]).item() > 0.99


def test_similarities_have_other_keys_than_those_of_images_from_minus_1_to_1_had():
    for metric in (SSIM, MS_SSIM):
        assert figure_key(metric.description) != figure_key(replace(metric.description, backbone="none"))


def numpy_terms(a, b):
    """Luminance times contrast-structure over the whole image, and contrast-structure alone over windows that lie inside."""
    terms = []
    for channel in range(3):
        x, y = a[channel], b[channel]
        blur = {"sigma": 1.5, "radius": 5, "mode": "mirror"}
        mx, my = gaussian_filter(x, **blur), gaussian_filter(y, **blur)
        vx = gaussian_filter(x * x, **blur) - mx * mx
        vy = gaussian_filter(y * y, **blur) - my * my
        vxy = gaussian_filter(x * y, **blur) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        structure = (2 * vxy + c2) / (vx + vy + c2)
        full = structure * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        terms.append((full.mean(), structure[5:-5, 5:-5].mean()))
    return np.array(terms).mean(0)


def numpy_ms_ssim(a, b):
    values = []
    for scale in range(5):
        full, structure = numpy_terms(a, b)
        values.append(max(0.0, full if scale == 4 else structure))
        a, b = (x.reshape(3, x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean((2, 4)) for x in (a, b))
    return float(np.prod(np.array(values) ** WEIGHTS))


def test_ms_ssim_matches_its_definition(pair):
    image, target = pair
    expected = [numpy_ms_ssim(*((x[i].double().numpy() + 1) / 2 for x in pair)) for i in range(3)]
    assert ms_ssim(image, target).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_equal_images_get_the_best_value(metric, pair):
    _, target = pair
    best = {"mse": 0.0, "psnr": float("inf")}.get(metric.key, 1.0)
    assert metric.per_image(target, target).tolist() == pytest.approx([best] * 3)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_more_noise_is_worse_in_the_stated_direction_and_range(metric, pair):
    values = metric.per_image(*pair).tolist()
    assert sorted(values, reverse=metric.description.higher_is_better) == values
    assert all(metric.description.low <= value <= metric.description.high for value in values)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_an_image_gets_the_same_value_in_any_batch(metric, pair):
    image, target = pair
    alone = torch.cat([metric.per_image(image[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.equal(metric.per_image(image, target), alone)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_larger_images_are_pooled_first(metric, pair):
    image, target = (torch.nn.functional.interpolate(x, (256, 256)) for x in pair)
    large = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(metric.per_image(large, target), metric.per_image(image, target), rtol=1e-5)


@pytest.mark.parametrize("function", [mse, psnr, ssim, ms_ssim])
def test_gradients_reach_the_image(function, pair):
    image = pair[0].clone().requires_grad_()
    function(image, pair[1]).sum().backward()
    assert image.grad.abs().sum() > 0


@given(st.floats(0.01, 2.0))
def test_a_constant_error_has_a_closed_form(error):
    black = torch.full((1, 3, 16, 16), -1.0)
    values = mse(black + error, black), psnr(black + error, black)
    assert values[0].item() == pytest.approx(error**2, rel=1e-4)
    assert values[1].item() == pytest.approx(20 * np.log10(2 / error), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("function", "side", "least"), [(ssim, 10, 11), (ms_ssim, 175, 176)])
def test_images_that_are_too_small_for_the_windows_are_refused(function, side, least):
    image = torch.zeros(1, 3, side, 200)
    with pytest.raises(MetricError, match=f"200x{side} px: expected at least {least}"):
        function(image, image)
    image = torch.zeros(1, 3, least, 200)
    assert function(image, image).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8), "expected equal ones"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8), "2 images, but 1 targets"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "target: expected floats .*uint8"),
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), r"image: expected floats of shape \(batch, 3"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_words(image, target, message):
    # Asked directly: in the tests jaxtyping would speak first.
    with pytest.raises(MetricError, match=message):
        check_sizes(image, target)
