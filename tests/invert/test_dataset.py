from __future__ import annotations

import errno
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generators.errors import ToolkitError
from invert.dataset import Reader, find_faces, read_faces
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


def test_a_table_may_name_faces_with_their_suffix_and_folder_as_celebas_does(folder):
    (folder / "attributes.csv").write_text("image_id,split\na.png,train\nb,val\nc.jpg,train\n")
    assert read_faces(folder, "train")[1] == ["a"]
    inner = folder / "deep"
    for name in ("x/a", "y/a"):
        (inner / name).parent.mkdir(parents=True)
        (inner / f"{name}.png").write_bytes(jpeg(1))
    (inner / "attributes.csv").write_text("image_id,split\nx/a.png,train\ny/a.png,val\n")
    assert [face.name for face in find_faces([inner], "val")] == ["y/a.png"]


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


def test_what_lies_beside_the_pictures_that_are_read_is_named(folder, caplog):
    find_faces([folder])
    assert not caplog.messages
    for name in ("empty", "more/deep", ".hidden"):
        (folder / name).mkdir(parents=True)
    for parent in ("more/deep", ".hidden"):
        (folder / parent / "d.png").write_bytes(jpeg(4))
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("e.png", jpeg(5))
    assert [face.stem for face in find_faces([folder])] == ["a", "b", "c"]
    for stem in "abc":
        (folder / f"{stem}.png").unlink()
    assert [face.stem for face in find_faces([folder])] == ["e"]
    (folder / "packed.zip").rename(folder / "one.zip")
    zipfile.ZipFile(folder / "two.zip", "w").close()
    assert [face.stem for face in find_faces([folder])] == ["d"]
    parts = [message.removeprefix(f"{folder}: reads only ").split("; left out, ") for message in caplog.messages]
    assert parts == [
        ["the pictures at its top", "to be named as sources of their own: more, packed.zip"],
        ["packed.zip", "to be named as sources of their own: more"],
        ["the pictures in its subfolders", "to be named as sources of their own: one.zip, two.zip"],
    ]


def test_links_to_folders_are_followed_and_every_folder_is_read_once(folder, tmp_path_factory, caplog):
    faces = tmp_path_factory.mktemp("faces")
    (faces / "deep/real").mkdir(parents=True)
    (faces / "deep/real/d.png").write_bytes(jpeg(4))
    for link, target in (("far", folder), ("deep/up", faces), ("deep/twin", faces / "deep/real")):
        (faces / link).symlink_to(target)
    assert [face.name for face in find_faces([faces])] == ["deep/real/d.png", "far/a.png", "far/b.png", "far/c.png"]
    assert not caplog.messages
    (folder / "self").symlink_to(folder)
    (folder / "other").symlink_to(faces / "deep/real")
    find_faces([folder])
    assert caplog.messages == [
        f"{folder}: reads only the pictures at its top; left out, to be named as sources of their own: other"
    ]


def test_folders_that_cannot_be_read_are_named(folder, monkeypatch, caplog):
    (folder / "shut").mkdir()
    forbid(monkeypatch, folder / "shut")
    assert len(find_faces([folder])) == 3
    (folder / "open").mkdir()
    for stem in "abc":
        (folder / f"{stem}.png").rename(folder / f"open/{stem}.png")
    assert len(find_faces([folder])) == 3
    assert caplog.messages == [f"{folder / 'shut'}: cannot be read: Permission denied"] * 2
    with pytest.raises(PhotoError, match="shut: cannot be read: Permission denied"):
        find_faces([folder / "shut"])


def test_pictures_of_kinds_that_cannot_be_read_are_told_with_their_number(folder, caplog):
    for name in ("1.HEIC", "2.heic", "3.ppm", ".4.heic", "5.txt"):
        (folder / name).touch()
    assert len(find_faces([folder])) == 3
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("a.png", jpeg(1))
        archive.writestr("b.avif", b"")
    assert len(find_faces([folder / "packed.zip"])) == 1
    assert caplog.messages == [
        f"{folder}: holds pictures (2 .heic, 1 .ppm) of kinds that cannot be read here: save them as JPEG or PNG",
        f"{folder / 'packed.zip'}: holds pictures (1 .avif) of kinds that cannot be read here: save them as JPEG or PNG",
    ]


def test_a_folder_of_several_zips_names_them(tmp_path):
    for name in "ba":
        zipfile.ZipFile(tmp_path / f"{name}.zip", "w").close()
    with pytest.raises(PhotoError, match=r"one zip file of images, found several: a\.zip, b\.zip; name those to read"):
        find_faces([tmp_path])


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(jpeg(1)[:60])
    with pytest.raises(PhotoError, match=r"bad\.png"):
        read_faces(tmp_path)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"not a zip")
    with pytest.raises(PhotoError, match="expected a folder or a zip file"):
        read_faces(tmp_path)


@pytest.fixture
def celeba_hq(tmp_path):
    """Four faces laid out as CelebAMask-HQ does, beside a mask."""
    top = tmp_path / "data" / "CelebAMask-HQ"
    (top / "CelebA-HQ-img").mkdir(parents=True)
    (top / "CelebAMask-HQ-mask-anno" / "0").mkdir(parents=True)
    (top / "CelebAMask-HQ-mask-anno" / "0" / "00000_hair.png").write_bytes(jpeg(0))
    for number in range(4):
        (top / "CelebA-HQ-img" / f"{number}.jpg").write_bytes(jpeg(number))
    rows = [
        "idx  orig_idx  orig_file",
        "0  0 000001.jpg",
        "1 162770 162771.jpg",
        "2 182637 182638.jpg",
        "3 202598 202599.jpg",
    ]
    (top / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(rows))
    return top


def test_the_mapping_of_celeba_hq_tells_its_official_splits(celeba_hq):
    splits = {split: [face.stem for face in find_faces([celeba_hq], split)] for split in ("train", "val", "test", None)}
    assert splits == {"train": ["0"], "val": ["1"], "test": ["2", "3"], None: ["0", "1", "2", "3"]}
    assert [face.stem for face in find_faces([celeba_hq / "CelebA-HQ-img"], "test")] == ["2", "3"]
    with pytest.raises(ToolkitError, match="it has train, val, test"):
        find_faces([celeba_hq], "dev")


def test_celeba_hq_is_found_from_above_and_from_inside(celeba_hq, monkeypatch, caplog):
    data = celeba_hq.parent
    for source in (data, data.parent):
        assert [face.name for face in find_faces([source], "test")] == ["2.jpg", "3.jpg"]
        assert len(find_faces([source])) == 4
    for folder in (celeba_hq, celeba_hq / "CelebA-HQ-img"):
        monkeypatch.chdir(folder)
        assert [face.name for face in find_faces([Path()], "test")] == ["2.jpg", "3.jpg"]
    assert not caplog.messages
    (data / "ffhq").mkdir()
    (data / "ffhq" / "a.png").write_bytes(jpeg(1))
    for source in (data, data.parent):
        caplog.clear()
        assert len(find_faces([source])) == 4
        read = (celeba_hq / "CelebA-HQ-img").relative_to(source)
        assert caplog.messages == [f"{source}: reads only {read}; left out, to be named as sources of their own: ffhq"]
    shutil.copytree(celeba_hq, data / "copy")
    (data / "link").symlink_to(celeba_hq)
    with pytest.raises(PhotoError, match=r"several folders of CelebA-HQ: CelebAMask-HQ/[^,]*, copy/[^,]*; name those"):
        find_faces([data])


@pytest.mark.parametrize("top", ["CelebAMask-HQ/", ""])
def test_celeba_hq_is_read_as_it_is_distributed_in_a_zip(tmp_path, top):
    rows = "idx orig_idx orig_file\n0 0 000001.jpg\n1 182637 182638.jpg\n"
    with zipfile.ZipFile(tmp_path / "CelebAMask-HQ.zip", "w") as archive:
        for name in ("CelebA-HQ-img/0.jpg", "CelebA-HQ-img/1.jpg", "CelebAMask-HQ-mask-anno/0/00000_hair.png"):
            archive.writestr(top + name, jpeg(1))
        archive.writestr(f"{top}CelebA-HQ-to-CelebA-mapping.txt", rows)
    for source in (tmp_path, tmp_path / "CelebAMask-HQ.zip"):
        splits = {split: [face.stem for face in find_faces([source], split)] for split in ("train", "test", None)}
        assert splits == {"train": ["0"], "test": ["1"], None: ["0", "1"]}


def test_a_zip_tells_its_splits_as_the_folder_does_that_was_packed(tmp_path):
    files = {"faces/a.png": jpeg(1), "faces/b.png": jpeg(2), "faces/attributes.csv": "image_id,split\na,train\nb,val\n"}
    folders = {"faces/train/a.png": jpeg(1), "faces/val/female/b.png": jpeg(2)}
    for name, members in (("table.zip", files), ("folders.zip", folders)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        assert [face.stem for face in find_faces([tmp_path / name], "val")] == ["b"]
        assert [face.stem for face in find_faces([tmp_path / name])] == ["a", "b"]
    with pytest.raises(ToolkitError, match=r"table\.zip/faces/attributes\.csv has no split 'test'; it has train, val"):
        find_faces([tmp_path / "table.zip"], "test")


def test_celeba_hq_without_its_mapping_says_what_is_missing(tmp_path):
    (tmp_path / "CelebA-HQ-img").mkdir()
    (tmp_path / "CelebA-HQ-img" / "0.jpg").write_bytes(jpeg(0))
    with pytest.raises(ToolkitError, match=r"CelebA-HQ-to-CelebA-mapping\.txt"):
        find_faces([tmp_path], "test")


def test_a_split_may_be_a_subfolder_of_classes(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "female").mkdir(parents=True)
        (tmp_path / split / "female" / f"{split}.png").write_bytes(jpeg(1))
    assert [face.name for face in find_faces([tmp_path], "val")] == ["female/val.png"]
    assert [face.name for face in find_faces([tmp_path])] == ["train/female/train.png", "val/female/val.png"]


def test_a_source_that_is_called_like_a_split_obeys_its_table(folder, monkeypatch):
    source = folder / "train"
    source.mkdir()
    for name in ("a.png", "b.png", "attributes.csv"):
        (folder / name).rename(source / name)
    for given in (source, Path()):
        monkeypatch.chdir(source)
        assert [face.name for face in find_faces([given], "train")] == ["a.png"]
    (source / "attributes.csv").unlink()
    for given in (source, Path()):
        assert [face.name for face in find_faces([given], "train")] == ["a.png", "b.png"]


def test_a_list_names_images_beside_itself_and_keeps_what_is_missing(folder):
    (folder / "faces.txt").write_text("# chosen\nc.png\n\nmissing.png\na.png\n")
    faces = find_faces([folder / "faces.txt"])
    assert [face.name for face in faces] == ["c.png", "missing.png", "a.png"]
    with Reader() as reader, pytest.raises(PhotoError, match=r"missing\.png: no such file"):
        reader.read(faces[1])


def test_a_line_that_no_file_can_be_called_is_a_picture_that_cannot_be_read(folder):
    (folder / "faces.txt").write_text(f"# {'word ' * 60}\n{'x' * 300}.png\na.png\n")
    long, short = find_faces([folder / "faces.txt"])
    assert short.name == "a.png"
    with Reader() as reader, pytest.raises(PhotoError, match=r"x\.png: cannot be read: File name too long"):
        reader.read(long)


def forbid(monkeypatch, folder, entering_only=False):
    """Take permissions from a folder, in a way that holds for root, too."""
    status, scan = Path.stat, os.scandir

    def refused(path):
        return Path(path).is_relative_to(folder) and Path(path) != folder

    def guarded_stat(path, **kwargs):
        if refused(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return status(path, **kwargs)

    def guarded_scan(path="."):
        if refused(path) or (Path(path) == folder and not entering_only):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(Path, "stat", guarded_stat)
    monkeypatch.setattr(os, "scandir", guarded_scan)


def test_files_of_a_folder_that_may_not_be_entered_have_a_reason(folder, monkeypatch):
    (folder / "faces.txt").write_text("shut/a.png\nb.png\n")
    (folder / "shut").mkdir()
    (folder / "a.png").rename(folder / "shut/a.png")
    forbid(monkeypatch, folder / "shut", entering_only=True)
    for faces in (find_faces([folder / "faces.txt"])[:1], find_faces([folder / "shut"])):
        assert [face.stem for face in faces] == ["a"]
        with Reader() as reader, pytest.raises(PhotoError, match=r"a\.png: cannot be read: Permission denied"):
            reader.read(faces[0])


def test_a_file_that_went_away_while_it_was_opened_has_a_reason(folder, monkeypatch):
    def stale(path):
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    (face,) = find_faces([folder], limit=1)
    monkeypatch.setattr("invert.dataset.read_bytes", stale)
    with Reader() as reader, pytest.raises(PhotoError, match=r"a\.png: cannot be read: Stale file handle"):
        reader.read(face)


def test_a_picture_whose_name_begins_like_a_comment_is_taken(folder):
    (folder / "#1.png").write_bytes(jpeg(1))
    (folder / "faces.txt").write_text("# 2.png\n#1.png\na.png\n")
    assert [face.name for face in find_faces([folder / "faces.txt"])] == ["#1.png", "a.png"]


def test_lists_and_tables_may_begin_with_a_byte_order_mark(folder):
    (folder / "faces.txt").write_text("c.png\na.png\n", encoding="utf-8-sig")
    assert [face.name for face in find_faces([folder / "faces.txt"])] == ["c.png", "a.png"]
    table = (folder / "attributes.csv").read_text()
    (folder / "attributes.csv").write_text(table, encoding="utf-8-sig")
    assert [face.name for face in find_faces([folder], "val")] == ["b.png"]


def test_several_sources_follow_each_other_under_their_own_names(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "a.png").write_bytes(jpeg(1))
    names = [face.name for face in find_faces([folder, other, other / "a.png"])]
    assert names == [*(f"{folder.name}/{stem}.png" for stem in "abc"), f"{other.name}/a.png", str(other / "a.png")]


def test_sources_of_one_name_are_told_apart_by_their_parents(tmp_path):
    for parent in "ab":
        (tmp_path / parent / "faces").mkdir(parents=True)
        (tmp_path / parent / "faces" / "1.png").write_bytes(jpeg(1))
    names = [face.name for face in find_faces([tmp_path / "a" / "faces", tmp_path / "b" / "faces"])]
    assert names == ["a/faces/1.png", "b/faces/1.png"]


def test_a_source_given_twice_is_read_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "link").symlink_to(folder)
    names = [face.name for face in find_faces([folder, Path(), Path("link"), Path("a.png"), Path("a.png")])]
    assert names == [*(f"{folder.name}/{stem}.png" for stem in "abc"), "a.png"]


def test_a_signature_changes_with_the_file(folder):
    before = find_faces([folder])
    (folder / "a.png").write_bytes(jpeg(99))
    after = find_faces([folder])
    assert [x.signature == y.signature for x, y in zip(before, after, strict=True)] == [False, True, True]


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "a.png").write_bytes(jpeg(1))
    os.mkfifo(tmp_path / "pipe.png")
    face = find_faces([tmp_path])[1]
    with Reader() as reader, pytest.raises(PhotoError, match="not a file"):
        reader.read(face)


def test_what_is_neither_a_file_nor_a_folder_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "faces.txt")
    for source in (tmp_path / "faces.txt", Path("/dev/zero")):
        with pytest.raises(PhotoError, match="neither a file nor a folder; expected a folder or a zip file"):
            find_faces([source])
    with pytest.raises(PhotoError, match=r"faces\.zip: no such file; expected a folder or a zip file"):
        find_faces([tmp_path / "faces.zip"])


def test_an_oblong_picture_is_no_aligned_face(tmp_path):
    Image.new("RGB", (60, 80)).save(tmp_path / "oblong.png")
    with pytest.raises(PhotoError, match="60 x 80 px is no aligned face"):
        read_faces(tmp_path)


@pytest.mark.parametrize("packing", ["ZIP_STORED", "ZIP_DEFLATED", "ZIP_BZIP2", "ZIP_LZMA"])
def test_a_damaged_member_of_a_zip_leaves_the_others(tmp_path, packing):
    file = tmp_path / "faces.zip"
    with zipfile.ZipFile(file, "w", getattr(zipfile, packing)) as archive:
        for name in "ab":
            archive.writestr(f"{name}.png", jpeg(1))
        start = archive.getinfo("a.png").header_offset + len("a.png") + 30
    data = bytearray(file.read_bytes())
    data[start + 9 : start + 60] = b"\xff" * 51
    file.write_bytes(data)
    damaged, whole = find_faces([file])
    with Reader() as reader:
        with pytest.raises(PhotoError, match=r"a\.png: cannot be read out of faces\.zip: "):
            reader.read(damaged)
        assert reader.read(whole) == jpeg(1)


def test_of_two_members_of_one_name_the_first_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("a.png", jpeg(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", jpeg(2))
    first, second = find_faces([tmp_path / "faces.zip"])
    with Reader() as reader:
        with pytest.raises(PhotoError, match=r"a\.png: faces\.zip holds a later file of this name; rename one"):
            reader.read(first)
        assert reader.read(second) == jpeg(2)


def test_a_mac_zips_hidden_twins_are_no_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("a.png", jpeg(1))
        archive.writestr("__MACOSX/._a.png", b"resource fork")
    assert [face.name for face in find_faces([tmp_path / "faces.zip"])] == ["a.png"]
