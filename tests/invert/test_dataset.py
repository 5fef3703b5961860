from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from generators.errors import ToolkitError
from invert.dataset import read_faces
from invert.errors import PhotoError


def jpeg(value, side=256):
    data = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name, value in (("b", 20), ("a", 10), ("c", 30)):
        (tmp_path / f"{name}.png").write_bytes(jpeg(value))
    (tmp_path / "attributes.csv").write_text("image_id,split\na,train\nb,val\nc,train\n")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    images, names = read_faces(folder)
    assert names == ["a", "b", "c"]
    assert images[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_a_split_keeps_its_faces_alone(folder):
    assert read_faces(folder, "train")[1] == ["a", "c"]
    assert read_faces(folder, "train", limit=1)[1] == ["a"]


def test_a_zip_file_beside_its_table_is_found(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("zipped")
    with zipfile.ZipFile(other / "faces.zip", "w") as archive:
        for path in folder.glob("*.png"):
            archive.write(path, f"faces/{path.name}")
    (other / "attributes.csv").write_text((folder / "attributes.csv").read_text())
    assert read_faces(other, "val")[1] == ["b"]
    assert read_faces(other / "faces.zip")[1] == ["a", "b", "c"]


def test_images_of_another_size_are_resized(tmp_path):
    (tmp_path / "small.png").write_bytes(jpeg(7, side=40))
    assert read_faces(tmp_path)[0].shape == (1, 3, 256, 256)


def test_an_unknown_split_names_those_that_there_are(folder):
    with pytest.raises(ToolkitError, match="it has train, val"):
        read_faces(folder, "test")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(PhotoError, match="expected images or one zip file"):
        read_faces(tmp_path)


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(jpeg(1)[:60])
    with pytest.raises(PhotoError, match=r"bad\.png"):
        read_faces(tmp_path)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"not a zip")
    with pytest.raises(PhotoError, match="expected a folder or a zip file"):
        read_faces(tmp_path)
