"""Whatever people call a photo comes in right or with a clear error, and whatever goes out is whole or not there."""

import contextlib
import io
import math
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from invert import photo as photo_module
from invert.errors import ImageError, OutputError, PhotoError
from invert.photo import (
    STDIN,
    check_finite,
    decode_photo,
    demo_photo,
    find_photos,
    photo_stem,
    read_photo,
    to_tensor,
    to_uint8,
    what_is_left_out,
    whole_file,
    write_image,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_in_exactly(kind):
    np.testing.assert_array_equal(decode_photo(encoded(Image.fromarray(PIXELS), kind)), PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_in_nearly(kind):
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (64, 64, 3))
    read = decode_photo(encoded(Image.fromarray(smooth), kind, quality=95))
    assert np.abs(read.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_in_upright(orientation):
    upright = Image.fromarray(PIXELS)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose members that lay the picture down.
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_photo(encoded(stored, exif=exif)), PIXELS)


def test_broken_exif_does_not_lose_the_photo_and_is_logged(caplog):
    data = encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert decode_photo(data, "odd.jpg").shape == PIXELS.shape
    assert "odd.jpg" in caplog.text
    assert "EXIF" in caplog.text


def test_transparency_lies_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = 10, 20, 30, 255
    rgba[0, 1] = 0, 0, 0, 128
    read = decode_photo(encoded(Image.fromarray(rgba)))
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[0, 1].tolist() == [127, 127, 127]
    assert read[1, 1].tolist() == [255, 255, 255]


def test_gray_with_alpha_and_palette_with_transparency_lie_on_white():
    gray = Image.new("LA", (2, 1), (40, 255))
    gray.putpixel((1, 0), (40, 0))
    assert decode_photo(encoded(gray))[0].tolist() == [[40] * 3, [255] * 3]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([200, 10, 10, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    assert decode_photo(encoded(palette, transparency=1))[0].tolist() == [[200, 10, 10], [255] * 3]


def test_one_bit_and_gray_come_in_as_three_equal_channels():
    assert decode_photo(encoded(Image.new("1", (3, 2), 1))).tolist() == [[[255] * 3] * 3] * 2
    assert decode_photo(encoded(Image.new("L", (3, 2), 77))).tolist() == [[[77] * 3] * 3] * 2


def test_sixteen_bits_scale_by_their_depth_even_in_a_dark_photo():
    levels = np.array([[0, 257, 2570, 5140]], np.uint16)
    assert decode_photo(encoded(Image.fromarray(levels)))[0, :, 0].tolist() == [0, 1, 10, 20]
    assert decode_photo(encoded(Image.fromarray(np.full((1, 1), 65535, np.uint16))))[0, 0].tolist() == [255] * 3


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_sixteen_bit_colour_scales_by_its_depth():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">HHH", 0x0A0A, 0x1414, 0xFFFF)
    data = (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(row)) + png_chunk(b"IEND", b"")
    )
    assert decode_photo(data)[0, 0].tolist() == [10, 20, 255]


def test_float_pixels_are_refused_since_their_white_is_unknown():
    with pytest.raises(PhotoError, match="without a known white"):
        decode_photo(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_cmyk_comes_in_as_the_colours_seen():
    read = decode_photo(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(read.astype(int) - [255, 0, 0]).max() <= 4


def test_an_embedded_srgb_profile_changes_nothing_and_a_broken_one_is_ignored():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile"):
        np.testing.assert_array_equal(decode_photo(encoded(Image.fromarray(PIXELS), icc_profile=profile)), PIXELS)


def test_another_colour_profile_is_converted():
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Red's and blue's primaries exchanged, under another name: what the file calls red is shown blue.
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    swapped = swapped.replace(b"sRGB", b"swap")
    read = decode_photo(encoded(Image.new("RGB", (2, 2), (250, 20, 20)), icc_profile=bytes(swapped)))
    assert read[0, 0, 2] > 200
    assert read[0, 0, 0] < 60


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode_photo(data)[0, 0].tolist() == [255, 0, 0]


def test_read_photo_takes_paths_streams_and_standard_input(tmp_path, monkeypatch):
    data = encoded(Image.fromarray(PIXELS))
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), io.BytesIO(data), "-"):
        np.testing.assert_array_equal(read_photo(source), PIXELS)


def test_the_demo_photo_is_the_astronaut(monkeypatch):
    np.testing.assert_array_equal(read_photo(demo_photo()), skimage.data.astronaut())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PhotoError, match="pip install scikit-image"):
        demo_photo()


def test_a_photo_read_may_be_written_to():
    assert decode_photo(encoded(Image.fromarray(PIXELS))).flags.writeable


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"<!DOCTYPE html><html>quota exceeded", "HTML page"),
        (b"\n <html lang=en>", "HTML page"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b'\x58\x01\0\0\0\0\0\0{"w_plus":', "a saved latent"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC photo; save it as JPEG"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00", "video"),
        (b"<?xml version='1.0'?><svg xmlns=''>", "SVG"),
        (b"dear diary, today", "text, beginning with 'dear diary, today'"),
        (("ä" * 600).encode()[1:] + b"\xff", "unknown data"),
        (b"\x93\x00\x01\x02\xff", "unknown data of 5 bytes"),
        (b"\xff\xd8\xff", "damaged JPEG"),
    ],
)
def test_what_is_not_an_image_is_named(tmp_path, data, looks):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(PhotoError, match=looks) as caught:
        read_photo(tmp_path / "x.jpg")
    assert str(tmp_path / "x.jpg") in str(caught.value)


def test_a_missing_file_and_an_empty_one_are_named(tmp_path):
    with pytest.raises(PhotoError, match=r"nowhere\.jpg: no such file"):
        read_photo(tmp_path / "nowhere.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotoError, match="empty"):
        read_photo(tmp_path / "empty.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_photo_is_an_error_not_a_gray_half(kind, share):
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(PhotoError, match=r"cut short|damaged"):
        decode_photo(data[: int(len(data) * share)], "half.jpg")


@given(st.data())
def test_hostile_bytes_give_a_photo_or_a_photo_error_and_nothing_else(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]))
    whole = bytearray(encoded(Image.fromarray(PIXELS), kind))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8)):
        whole[place] = value
    with contextlib.suppress(PhotoError):
        assert decode_photo(bytes(whole)).dtype == np.uint8


def test_a_decompression_bomb_is_refused_before_it_unpacks(monkeypatch):
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(PhotoError, match=r"12000 x 12000 are 144,000,000 pixels, more than the limit of 128,000,000"):
        decode_photo(bomb, "bomb.png")
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(PhotoError, match=r"10000000000 pixels.*128,000,000"):
        decode_photo(bomb, "bomb.png")
    monkeypatch.setattr(photo_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(PhotoError, match="larger than"):
        read_photo(io.BytesIO(bytes(101)))


def test_find_photos_expands_folders_sorted_without_hidden_and_foreign_files(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.jpg").mkdir()
    expected = [tmp_path / name for name in ("a.png", "b.JPG", "c.webp")]
    assert find_photos([tmp_path]) == expected
    assert find_photos([tmp_path / "c.webp", "-", tmp_path]) == [expected[2], STDIN, *expected[:2]]
    assert photo_stem("-") == "stdin"
    assert photo_stem(expected[1]) == "b"


def test_what_a_folder_holds_besides_is_counted_by_suffix(tmp_path):
    for name in ("a.HEIC", "b.heic", "c.mov", "README", ".hidden.heic", "d.png", "e.avif"):
        (tmp_path / name).touch()
    for name in ("deeper", "deeper.jpg", ".hidden"):
        (tmp_path / name).mkdir()
    assert what_is_left_out(tmp_path).removeprefix(f"{tmp_path}: ") == (
        "left out 5 files (2 .heic, 1 .avif, 1 .mov, 1 without a suffix) and 2 subfolders;"
        " .avif, .heic pictures cannot be read here: save them as JPEG or PNG"
    )
    assert what_is_left_out(tmp_path / "deeper") == what_is_left_out(tmp_path / "d.png") == what_is_left_out(STDIN) == ""
    (tmp_path / "deeper/clip.mp4").touch()
    assert what_is_left_out(tmp_path / "deeper").endswith("left out 1 file (1 .mp4)")


def test_bad_paths_stay_in_the_list_and_are_reported_when_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    (tmp_path / "empty").mkdir()
    found = find_photos([tmp_path / "gone.jpg", tmp_path / "empty", tmp_path])
    assert found == [tmp_path / "gone.jpg", tmp_path / "empty", tmp_path / "a.png"]
    with pytest.raises(PhotoError, match="no photos"):
        read_photo(found[1])
    with pytest.raises(PhotoError, match="is a folder"):
        read_photo(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_files_and_folders_without_permission_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(PhotoError, match="Permission denied"):
        read_photo(tmp_path / "a.png")
    tmp_path.chmod(0)
    try:
        assert find_photos([tmp_path]) == [tmp_path]
        with pytest.raises(PhotoError, match="folder cannot be read"):
            read_photo(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses_is_named(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert find_photos([tmp_path]) == [tmp_path]
    with pytest.raises(PhotoError, match="folder cannot be read: Permission denied"):
        read_photo(tmp_path)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).map(lambda shape: (*shape, 3))))
def test_photos_survive_the_way_to_a_tensor_and_back(photo):
    image = to_tensor(photo)
    assert image.shape == (3, *photo.shape[:2])
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(to_uint8(image), photo)
    np.testing.assert_array_equal(to_uint8(torch.stack([image, image])), np.stack([photo, photo]))


def test_to_uint8_clamps_and_rounds():
    image = torch.tensor([-7.0, -1.0, 0.0, 0.999, 1.0, 7.0]).reshape(1, 1, -1).expand(3, 1, 6)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_image_that_no_pixels_can_show_is_refused(value):
    image = torch.zeros(2, 3, 4, 4)
    image[1, 0, 2, 2] = value
    with pytest.raises(ImageError, match=r"^an image holds 1 values that are NaN or infinite$"):
        to_uint8(image)
    with pytest.raises(ImageError, match=r"NaN or infinite: save it anew$"):
        check_finite(image, "save it anew")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_write_image_makes_folders_and_leaves_nothing_beside(tmp_path, suffix):
    path = tmp_path / "new" / "deep" / f"x{suffix}"
    smooth = np.full((16, 16, 3), 90, np.uint8)
    write_image(path, smooth)
    assert list(path.parent.iterdir()) == [path]
    assert np.abs(read_photo(path).astype(int) - smooth).max() <= 2


def test_write_image_refuses_an_unknown_suffix(tmp_path):
    with pytest.raises(OutputError, match=r"use \.jpeg, \.jpg, \.png, \.webp"):
        write_image(tmp_path / "x.heic", PIXELS)


@pytest.mark.parametrize(
    ("photo", "got"),
    [
        (torch.zeros(3, 8, 8), r"torch\.float32 \(3, 8, 8\)"),
        (np.zeros((8, 8, 3)), r"float64 \(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"uint8 \(1, 8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (Image.new("RGB", (8, 8)), "Image"),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_write_image_refuses_what_is_no_photo_and_says_how_to_make_one(tmp_path, photo, got):
    with pytest.raises(ImageError, match=rf"o\.png: expected uint8 \(height, width, 3\), got {got}: to_uint8\(image\)"):
        write_image(str(tmp_path / "o.png"), photo)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_no_part(tmp_path, error):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as part:  # noqa: PT012
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_file_replaces_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("old")
    with whole_file(path) as part:
        assert part.suffix == ".safetensors"
        assert part.parent == tmp_path
        part.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"x\.png: cannot be written: .*choose another folder"):
        write_image(tmp_path / "file" / "x.png", PIXELS)
    with pytest.raises(OutputError, match="folder of this name is in the way"):
        write_image(tmp_path / "folder.png", PIXELS)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write_image(tmp_path / "x.png", PIXELS)


def test_a_full_disk_is_an_output_error_and_leaves_no_part(tmp_path):
    with pytest.raises(OutputError, match="No space left"), whole_file(tmp_path / "x.mp4") as part:  # noqa: PT012
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
