"""Faces are found where they are, in any size of photo, and their landmarks lie on eyes and mouth."""

import functools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage import data

from invert.errors import PredictorError
from invert.landmarks import Face, find_faces, find_predictor, with_68_landmarks

needs_predictor = pytest.mark.skipif(
    find_predictor() is None, reason="dlib's 68-point model: pip install face_recognition_models"
)
# Read off the picture by eye, in pixels.
ASTRONAUT_EYES_AND_MOUTH = np.array([(204, 101), (246, 104), (223, 141)])


@functools.cache
def astronaut():
    photo = data.astronaut()
    photo.setflags(write=False)
    return photo


@functools.cache
def astronaut_face():
    (face,) = find_faces(astronaut())
    return face


def points(face):
    return np.stack([face.left_eye, face.right_eye, face.mouth])


def test_find_faces_puts_five_landmarks_on_the_astronaut():
    face = astronaut_face()
    assert face.score > 0.99
    assert face.landmarks.shape == (5, 2)
    assert np.hypot(*(points(face) - ASTRONAUT_EYES_AND_MOUTH).T).max() < 3
    assert 80 < face.size_px < 140


def test_find_faces_mirrors_with_the_photo():
    (mirrored,) = find_faces(np.ascontiguousarray(astronaut()[:, ::-1]))
    back = mirrored.landmarks[[1, 0, 2, 4, 3]]
    back[:, 0] = 511 - back[:, 0]
    # 43 px lie between the eyes; the two runs start from boxes that differ by several pixels.
    assert np.abs(back - astronaut_face().landmarks).max() < 1.0


def test_find_faces_works_in_the_pixels_of_a_large_photo():
    large = cv2.resize(astronaut(), None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    (face,) = find_faces(large)
    assert np.abs((face.landmarks + 0.5) / 5 - 0.5 - astronaut_face().landmarks).max() < 1.0


def test_find_faces_gives_the_largest_first():
    small = cv2.resize(astronaut()[:220, 100:320], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    photo = np.full((560, 760, 3), 128, np.uint8)
    photo[30 : 30 + small.shape[0], 20 : 20 + small.shape[1]] = small
    photo[48:, 248:] = astronaut()
    faces = find_faces(photo)
    assert len(faces) == 2
    assert faces[0].size_px > faces[1].size_px
    assert faces[0].left_eye[0] > 248 > faces[1].left_eye[0]


@pytest.mark.parametrize("shape", [(1, 1), (19, 400), (20, 20), (20, 9000), (300, 200)])
def test_find_faces_gives_nothing_where_there_is_nothing(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for photo in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert find_faces(photo) == []


def test_find_faces_leaves_the_photo_alone_and_takes_a_view_of_it():
    before = astronaut().copy()
    assert len(find_faces(astronaut()[:, 20:480])) == 1
    np.testing.assert_array_equal(astronaut(), before)


def test_a_face_cut_by_the_edge_keeps_its_landmarks_in_place():
    (face,) = find_faces(astronaut()[75:])
    assert np.abs(points(face) + np.array([0, 75]) - points(astronaut_face())).max() < 3


def test_face_from_landmarks_takes_5_or_68():
    given = np.arange(136, dtype=np.float32).reshape(68, 2)
    face = Face.from_landmarks(given)
    assert face.box == (0.0, 1.0, 134.0, 135.0)
    np.testing.assert_allclose(face.left_eye, given[36:42].mean(0))
    np.testing.assert_allclose(face.right_eye, given[42:48].mean(0))
    np.testing.assert_allclose(face.mouth, (given[48] + given[54]) / 2)
    with pytest.raises(ValueError, match="5 or 68 landmarks, not 6"):
        Face.from_landmarks(given[:6])


def test_find_predictor_looks_the_package_up_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "face_recognition_models"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("import pkg_resources_that_is_gone")
    model = package / "models" / "shape_predictor_68_face_landmarks.dat"
    model.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "face_recognition_models", raising=False)
    assert find_predictor() == model
    assert "face_recognition_models" not in sys.modules
    model.unlink()
    assert find_predictor() is None


def test_a_missing_or_broken_predictor_is_named(tmp_path):
    with pytest.raises(PredictorError, match=r"none\.dat: no such landmark model"):
        find_predictor(tmp_path / "none.dat")
    broken = tmp_path / "broken.dat"
    broken.write_bytes(b"not a model")
    assert find_predictor(broken) == broken
    with pytest.raises(PredictorError, match=r"broken\.dat: not a landmark model"):
        with_68_landmarks(astronaut(), astronaut_face(), broken)


@needs_predictor
def test_68_landmarks_lie_on_the_astronauts_eyes_and_mouth():
    face = with_68_landmarks(astronaut(), astronaut_face(), find_predictor())
    assert face.landmarks.shape == (68, 2)
    assert face.box == astronaut_face().box
    assert np.hypot(*(points(face) - ASTRONAUT_EYES_AND_MOUTH).T).max() < 3


@needs_predictor
def test_a_predictor_of_another_kind_is_refused():
    five = find_predictor().with_name("shape_predictor_5_face_landmarks.dat")
    with pytest.raises(PredictorError, match="has 5 landmarks, not 68"):
        with_68_landmarks(astronaut(), astronaut_face(), five)


def test_importing_landmarks_loads_no_detector():
    code = "import sys, invert.landmarks; print('facenet_pytorch' in sys.modules, 'dlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
