"""Do augmentations change faces a little, repeatably, within range, and nothing else?"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from encoders.training.augment import compress, misalign, one_side, patch, random_flip, relight, soften


def patch_mirrored(images, generator):
    """Patch images with other ones."""
    return patch(images, images.flip(0, 3), generator, chance=0.5)


ALL = [random_flip, misalign, relight, soften, compress, patch_mirrored]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_faces(batch=16, side=32):
    """Return images without sharp edges, each another."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    weights = torch.rand(batch, 3, 3, 1, 1, generator=seeded(9)) * 0.6 - 0.3
    return weights[:, :, 0] * x + weights[:, :, 1] * y + weights[:, :, 2] * (x * y).sin()


@pytest.mark.parametrize("augment", ALL)
def test_the_same_seed_changes_the_same_way_and_another_does_not(augment):
    images = smooth_faces()
    assert torch.equal(augment(images, seeded(1)), augment(images, seeded(1)))
    assert not torch.equal(augment(images, seeded(1)), augment(images, seeded(2)))


@pytest.mark.parametrize("augment", ALL)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_shape_type_and_range_stay_and_the_input_too(augment, batch):
    images = smooth_faces(batch)
    before = images.clone()
    result = augment(images, seeded())
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert batch == 0 or result.abs().max() <= 1
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", ALL)
def test_the_result_stays_on_the_device_of_the_images(augment):
    assert augment(torch.zeros(2, 3, 16, 16, device="meta"), seeded()).device.type == "meta"


def test_a_patched_image_is_one_on_one_side_of_a_line_and_another_one_on_the_other():
    ones = torch.ones(40, 3, 32, 32)
    result = patch(ones, -ones[:3], seeded(), chance=0.5)
    changed = [image for image in result if image.min() < 0.99]
    assert 10 < len(changed) < 30
    for image in changed:
        rising = torch.stack([image[0].diff(dim=0).sign().flatten(), image[0].diff(dim=1).sign().flatten()])
        assert all(len(signs[signs != 0].unique()) <= 1 for signs in rising), "an edge that goes one way"


def test_nothing_is_patched_where_there_is_nothing_to_take():
    images = smooth_faces()
    assert torch.equal(patch(images, images[:0], seeded(), chance=1.0), images)


def test_a_side_has_half_of_the_square_on_average():
    masks = one_side(400, 16, seeded())
    assert masks.shape == (400, 1, 16, 16)
    assert masks.mean().item() == pytest.approx(0.5, abs=0.05)


def test_half_of_the_images_are_mirrored_exactly():
    images = smooth_faces(200, 8)
    result = random_flip(images, seeded())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(result, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(result, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("augment", [partial(misalign, shift=0.0, scale=0.0, roll_deg=0.0), partial(relight, amount=0.0)])
def test_an_amount_of_0_changes_nothing(augment):
    images = smooth_faces()
    torch.testing.assert_close(augment(images, seeded()), images, rtol=0, atol=1e-5)


def test_misalignment_moves_each_image_by_no_more_than_asked():
    side = 64
    spot = torch.zeros(50, 3, side, side)
    spot[:, :, 32, 32] = 1
    moved = misalign(spot, seeded(), shift=0.05, scale=0.0, roll_deg=0.0).mean(1)
    place = torch.arange(side, dtype=torch.float32)
    x = (moved.sum(1) * place).sum(1) / moved.sum((1, 2))
    y = (moved.sum(2) * place).sum(1) / moved.sum((1, 2))
    for offset in (x - 32, y - 32):
        assert offset.abs().max() <= 0.05 * side + 0.1
        assert offset.std() > 0.5, "every image moves in its own way"


def test_turning_keeps_the_middle_and_resizing_changes_distances():
    spots = torch.zeros(40, 3, 64, 64)
    spots[:, :, 31:33, 31:33] = 1
    turned = misalign(spots, seeded(), shift=0.0, scale=0.0, roll_deg=10.0)
    torch.testing.assert_close(turned[:, :, 31:33, 31:33], spots[:, :, 31:33, 31:33], rtol=0, atol=0.2)
    corners = misalign(smooth_faces(40, 64), seeded(), shift=0.0, scale=0.1, roll_deg=0.0) - smooth_faces(40, 64)
    assert corners[..., :4, :4].abs().mean() > 3 * corners[..., 30:34, 30:34].abs().mean()


def test_relighting_moves_colours_apart_but_not_pixels():
    images = torch.full((30, 3, 8, 8), 0.5)
    lit = relight(images, seeded())
    assert (lit.amax((2, 3)) - lit.amin((2, 3))).max() == 0
    assert lit[:, :, 0, 0].std(dim=0).min() > 0.01
    assert (lit - images).abs().max() <= 0.15 + 0.5 * (1.075 * 1.15 - 1) + 1e-6


def test_a_quarter_of_the_images_lose_detail_and_the_others_nothing():
    images = torch.rand(100, 3, 32, 32, generator=seeded(3)) * 2 - 1
    result = soften(images, seeded())
    untouched = torch.tensor([torch.equal(a, b) for a, b in zip(result, images, strict=True)])
    assert 60 < untouched.sum() < 90
    assert (result[~untouched].std((1, 2, 3)) < images[~untouched].std((1, 2, 3))).all()
    torch.testing.assert_close(result.mean((2, 3)), images.mean((2, 3)), rtol=0, atol=0.05)


def test_compression_loses_about_what_jpeg_of_that_quality_loses():
    data = pytest.importorskip("skimage.data")
    import io

    import numpy as np
    from PIL import Image

    photo = data.astronaut()[:256, 100:356]
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=75, subsampling=0)
    jpeg = np.array(Image.open(file)).astype(float)
    image = (torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1).repeat(40, 1, 1, 1)
    ours = (compress(image, seeded(), strongest=0.5) + 1) * 127.5
    errors = (ours.permute(0, 2, 3, 1).numpy() - photo).astype(float) ** 2
    worst = errors.mean((1, 2, 3)).max()
    assert 0.5 < worst / ((jpeg - photo) ** 2).mean() < 1.5
    assert 8 < (errors.mean((1, 2, 3)) < 1e-6).sum() < 32, "half of them are left as they are"


def test_images_whose_sides_are_no_multiples_of_8_are_not_compressed():
    images = smooth_faces(4, 20)
    assert compress(images, seeded()) is images
