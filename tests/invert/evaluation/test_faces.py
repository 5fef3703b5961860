from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from invert.dataset import Reader, find_faces
from invert.errors import NoFaceFound, PhotoError
from invert.evaluation.faces import hash_faces, kind_of, prefetch, read_face
from invert.evaluation.manifest import Manifest
from invert.evaluation.team import Team
from invert.photo import demo_photo


def test_files_that_have_not_changed_are_not_read_again(faces_folder, tmp_path, monkeypatch):
    faces = find_faces([faces_folder])
    with Manifest(tmp_path / "m.sqlite") as manifest:
        first = hash_faces(faces, Team(), manifest)
        monkeypatch.setattr(Reader, "read", lambda self, face: pytest.fail("was read again"))
        assert hash_faces(faces, Team(), manifest).files.keys() == first.files.keys()
    assert len(first.files) == 6


def test_hard_links_are_read_once(faces_folder, monkeypatch):
    for number in range(50):
        (faces_folder / f"link-{number:02}.png").hardlink_to(faces_folder / "0.png")
    reads = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, face: reads.append(face) or read(self, face))
    found = hash_faces(find_faces([faces_folder]), Team(), None)
    assert len(reads) == len(found.files) == 6
    assert len(found.duplicates) == 50
    assert found.count == 56


def test_photos_are_told_from_aligned_faces(tmp_path):
    from invert.faces import align, detect
    from invert.photo import read_photo, to_uint8

    photo = read_photo(demo_photo())
    aligned = to_uint8(align(photo, detect(photo)[0], 256).image)
    for name, pixels in (("photo", photo), ("aligned", aligned)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    kinds = {name: kind_of(find_faces([tmp_path / name])) for name in ("photo", "aligned")}
    assert kinds == {"photo": "photos", "aligned": "aligned"}
    with Reader() as reader:
        cut = read_face(reader, find_faces([tmp_path / "photo"])[0], "photos")
    assert np.abs(cut.transpose(1, 2, 0).astype(int) - aligned).mean() < 1


def test_a_picture_too_small_for_a_face_is_refused(tmp_path):
    for side in (1, 39, 40):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side:02}.png")
    *small, large = find_faces([tmp_path])
    with Reader() as reader:
        for face, side in zip(small, (1, 39), strict=True):
            with pytest.raises(PhotoError, match=f"{side} x {side} px are too few for a face, at least 40 px"):
                read_face(reader, face, "aligned")
        assert read_face(reader, large, "aligned").shape == (3, 256, 256)


def test_a_photo_without_a_face_is_named_without_options_of_other_commands(tmp_path):
    Image.new("RGB", (60, 80)).save(tmp_path / "wall.png")
    with Reader() as reader, pytest.raises(NoFaceFound, match=r"^wall\.png: no face found; .* at least 40 px high$"):
        read_face(reader, find_faces([tmp_path])[0], "photos")


def test_items_are_fetched_ahead_and_in_order():
    fetched = []

    def fetch(item):
        fetched.append(item)
        return -item

    results = []
    for item, future in prefetch(fetch, range(20), ahead=3):
        time.sleep(0.001)
        assert len(fetched) <= item + 5
        results.append(future.result())
    assert results == [-item for item in range(20)]
