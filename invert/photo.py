"""How does a photo come in, and how does a result go out? Reading what people really have, writing whole files or none.

A photo is ``uint8``, height x width x 3, RGB, upright; an image is a float tensor 3 x height x width in [-1, 1].
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from invert.errors import ImageError, OutputError, PhotoError
from pretrained import cache

log = logging.getLogger(__name__)

Pixels = TypeVar("Pixels", bound=np.ndarray)  # type: ignore[type-arg]

STDIN = Path("-")
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FOREIGN_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".ppm", ".pgm", ".tga", ".psd", ".dng", ".nef"})
"""Of pictures that are not read, most of which take a decoder that is not among what is installed: people are told so."""
FOREIGN_ADVICE = "cannot be read here: save them as JPEG or PNG"
# A 108-megapixel phone photo passes; decoded it takes 324 MB, and the largest photo allowed 384 MB.
MAX_PHOTO_PIXELS = 128_000_000
MAX_FILE_BYTES = 512 * 1024**2
NOTE_KEY = "stylegan-invert"
"""Of the text in a PNG, and first word of the comment in a JPEG, that say how a picture was made."""
MAX_COMMENT_BYTES = 65_533
"""Of a JPEG: its length has 16 bits, and counts itself."""

_WRITERS = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {"compress_level": 4}),
    ".webp": ("WEBP", {"quality": 95}),
}


@runtime_checkable
class Readable(Protocol):
    """An open binary file, as far as it is needed here."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes."""
        ...


def find_photos(paths: Iterable[Path | str]) -> list[Path]:
    """Expand what a user typed into single photos, in the order given and each once.

    A folder gives its photos (not its subfolders') sorted by name, without hidden files and files that aren't photos by
    their suffix. ``-`` stands for standard input. Nothing is judged here: a missing file, or a folder that holds no photo
    or may not be read, stays in the list, so that ``read_photo`` reports it while the rest go on.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        found.update(dict.fromkeys(_photos_in(path) or [path]))
    return list(found)


def _photos_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if _looks_like_photo(p)) if folder.is_dir() else []
    except OSError:
        return []  # read_photo says why.


def what_is_left_out(folder: Path) -> str:
    """Say what ``find_photos`` does not take of a folder: files by suffix, and subfolders; empty where it takes all.

    Hidden files are not counted, and nothing is said of what is no folder or may not be read.
    """
    try:
        seen = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    except OSError:
        return ""  # read_photo says why.
    others = [path for path in seen if not _looks_like_photo(path)]
    suffixes = Counter(sorted(path.suffix.lower() or "without a suffix" for path in others if not path.is_dir()))
    told = []
    if suffixes:
        count = suffixes.total()
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in suffixes.most_common())
        told.append(f"{count} file{'s' * (count > 1)} ({kinds})")
    if folders := sum(path.is_dir() for path in others):
        told.append(f"{folders} subfolder{'s' * (folders > 1)}")
    foreign = ", ".join(sorted(suffixes.keys() & FOREIGN_SUFFIXES))
    hint = f"; {foreign} pictures {FOREIGN_ADVICE}" if foreign else ""
    return f"{folder}: left out {' and '.join(told)}{hint}" if told else ""


def _looks_like_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def demo_photo() -> Path:
    """Find a photo for those who have none at hand: NASA's public-domain ``astronaut`` inside scikit-image.

    Raises:
        PhotoError: scikit-image is not installed, or came without it.
    """
    package = importlib.util.find_spec("skimage")  # Not imported: that takes a second, the path is enough.
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "data" / "astronaut.png"
        if path.is_file():
            return path
    raise PhotoError("the demo photo is scikit-image's astronaut.png, which is not installed here: pip install scikit-image")


def photo_stem(path: Path | str) -> str:
    """Give the name that a photo's results carry: the file's stem, or ``stdin``."""
    return "stdin" if Path(path) == STDIN else Path(path).stem


def read_photo(source: Path | str | Readable) -> UInt8[np.ndarray, "height width 3"]:
    """Read a photo as people see it: upright, in sRGB, without transparency.

    EXIF rotation is applied. Transparent parts are laid on white, as a viewer shows them. An embedded colour profile other
    than sRGB is converted. 16 bits are scaled by their depth, never by their content. Of an animation the first
    frame counts.

    Args:
        source: a path, ``-`` for standard input, or an open binary file.

    Raises:
        PhotoError: it is missing, may not be read, is not an image, is damaged or larger than ``MAX_PHOTO_PIXELS``.
    """
    return decode_photo(read_bytes(source), _name_of(source))


def read_bytes(source: Path | str | Readable) -> bytes:
    """Read a photo's file as it is, for whoever needs its hash too; ``decode_photo`` goes on from here.

    Raises:
        PhotoError: it is missing, may not be read, is empty or larger than ``MAX_FILE_BYTES``.
    """
    name = _name_of(source)
    try:
        if not isinstance(source, Path | str):
            data = source.read(MAX_FILE_BYTES + 1)
        elif Path(source) == STDIN:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise PhotoError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise PhotoError(f"{name}: {_why_no_photo_in(Path(name))}") from error
    except OSError as error:
        if Path(name).is_dir():  # Windows calls opening a folder a missing permission.
            raise PhotoError(f"{name}: {_why_no_photo_in(Path(name))}") from error
        raise PhotoError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not data:
        raise PhotoError(f"{name}: the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise PhotoError(f"{name}: the file is larger than {MAX_FILE_BYTES // 1024**2} MB; save the photo smaller")
    return data


def _name_of(source: Path | str | Readable) -> str:
    if isinstance(source, Path | str):
        return "standard input" if Path(source) == STDIN else str(source)
    return str(getattr(source, "name", "the given stream"))


def _why_no_photo_in(folder: Path) -> str:
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        return f"the folder cannot be read: {error.strerror or error}"
    if _photos_in(folder):
        return "is a folder; find_photos lists the photos in it"
    return f"the folder holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))}); subfolders are not searched"


def decode_photo(data: bytes, name: str = "the photo") -> UInt8[np.ndarray, "height width 3"]:
    """Decode a photo file's bytes as ``read_photo`` does; ``name`` is what errors call it."""
    return decode_image(data, name, lambda image, name: np.array(_to_rgb(upright(image, name), name)))


def decode_image(data: bytes, name: str, convert: Callable[[Image.Image, str], Pixels]) -> Pixels:
    """Decode an image file's bytes; ``convert`` makes an array of the image as it was saved, under the same guard.

    Raises:
        PhotoError: it is not an image, is damaged or larger than ``MAX_PHOTO_PIXELS``.
    """
    try:
        with warnings.catch_warnings(record=True) as oddities:
            warnings.simplefilter("always")
            # Pillow warns from 89 megapixels on; the limit here is our own, checked before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                _refuse_bomb(image, name)
                image.load()
                pixels = convert(image, name)
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: not an image that can be read; it looks like {_looks_like(data)}") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name}: too large: {error} (the limit here is {MAX_PHOTO_PIXELS:,} pixels)") from error
    except Exception as error:  # Decoders meet hostile bytes with whatever they like: struct.error, SyntaxError, KeyError...
        raise PhotoError(f"{name}: the image is damaged or cut short: {error or type(error).__name__}") from error
    for oddity in oddities:
        log.warning("%s: %s", name, oddity.message)
    return pixels


def _refuse_bomb(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PHOTO_PIXELS:
        raise PhotoError(
            f"{name}: {image.width} x {image.height} are {image.width * image.height:,} pixels, "
            f"more than the limit of {MAX_PHOTO_PIXELS:,}; save the photo smaller"
        )


def upright(image: Image.Image, name: str) -> Image.Image:
    """Turn an image as its EXIF data says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # A broken EXIF block is no reason to refuse the picture.
        log.warning("%s: its EXIF data is broken and was ignored, so it may lie on its side: %s", name, error)
        return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert any of Pillow's modes to RGB; the depth comes from the mode, never from the largest value."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM", None)):
        # Pillow before 11 gives 16-bit gray PNGs as 32-bit integers. 65535 / 257 = 255.
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray(((np.clip(levels, 0, 65535) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise PhotoError(f"{name}: its pixels are 32-bit numbers without a known white; save it with 8 or 16 bits")
    image = _to_srgb(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Apply an embedded profile such as a phone's Display P3: without it, colours would be paler in every result."""
    embedded = image.info.get("icc_profile")
    if not embedded or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        mode = "RGB" if image.mode == "CMYK" else image.mode
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.warning("%s: its colour profile is broken and was ignored: %s", name, error)
        return image
    return converted or image


# What people hand over by mistake, by the first bytes (offset, bytes): name.
_SIGNATURES = [
    (4, b"ftypheic", "a HEIC photo; save it as JPEG"),
    (4, b"ftypheix", "a HEIC photo; save it as JPEG"),
    (4, b"ftypmif1", "a HEIC photo; save it as JPEG"),
    (4, b"ftypavif", "an AVIF photo; save it as JPEG"),
    (4, b"ftyp", "a video; save a frame of it as JPEG"),
    (0, b"\x1aE\xdf\xa3", "a video; save a frame of it as JPEG"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\xff\xd8", "a damaged JPEG"),
    (0, b"\x89PNG", "a damaged PNG"),
    (8, b"WEBP", "a damaged WebP"),
    (8, b'{"', "safetensors: a saved latent, or weights"),
    (0, b"\x93NUMPY", "a NumPy array"),
]


def _looks_like(data: bytes) -> str:
    for offset, signature, name in _SIGNATURES:
        if data[offset:].startswith(signature):
            return name
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page (was a web page saved instead of the picture?)"
    if b"<svg" in start:
        return "an SVG drawing; export it as PNG"
    try:
        text = data[:1024].decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode() if error.start >= 1020 else ""  # The cut may split a character.
    if text and all(character.isprintable() or character.isspace() for character in text):
        return f"text, beginning with {text.strip()[:40]!r}"
    return f"unknown data of {len(data):,} bytes"


def to_tensor(photo: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """Convert a photo to an image in [-1, 1] (0 -> -1, 255 -> 1), float32 on the CPU; ``to_uint8`` undoes it exactly."""
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).to(torch.float32).div(127.5).sub(1)


def to_uint8(image: Float[Tensor, "*batch 3 height width"]) -> UInt8[np.ndarray, "*batch height width 3"]:
    """Convert images in [-1, 1] to photos: clamped, rounded to the nearest level; a batch stays a batch.

    Raises:
        ImageError: see ``check_finite``.
    """
    levels = check_finite(image.detach().float()).add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def check_finite(image: Float[Tensor, "*batch 3 height width"], advice: str = "") -> Float[Tensor, "*batch 3 height width"]:
    """Refuse images that no pixels can show, and return the others as they are.

    Args:
        image: drawn or read.
        advice: what to do about it, where whoever calls knows.

    Raises:
        ImageError: a value is NaN or infinite, as where a generator draws a code far outside of W.
    """
    if not bool(torch.isfinite(image).all()):
        count = int((~torch.isfinite(image)).sum())
        raise ImageError(f"an image holds {count} values that are NaN or infinite{advice and f': {advice}'}")
    return image


def write_image(path: Path | str, photo: UInt8[np.ndarray, "height width 3"], note: str = "") -> None:
    """Write a photo whole or not at all, in the format of the suffix: JPEG (quality 95, full colour), PNG or WebP.

    Args:
        path: where to.
        photo: the picture.
        note: kept inside a PNG (as text, under ``NOTE_KEY``) or a JPEG (as comment, if it is short enough); not in a WebP.

    Raises:
        OutputError: the suffix is none of these, or the place cannot be written.
        ImageError: it is no photo, but an image for networks or a batch.
    """
    path = Path(path)
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        got = f"{photo.dtype} {tuple(photo.shape)}" if hasattr(photo, "shape") else type(photo).__name__
        raise ImageError(
            f"{path}: expected uint8 (height, width, 3), got {got}: to_uint8(image) converts an image (3, height, width)"
            " in [-1, 1], image[0] of a batch"
        )
    if path.suffix.lower() not in _WRITERS:
        raise OutputError(f"{path}: cannot write an image of this kind; use {', '.join(sorted(_WRITERS))}")
    kind, options = _WRITERS[path.suffix.lower()]
    with whole_file(path) as part:
        Image.fromarray(photo).save(part, kind, **(options | _note(kind, note)))  # type: ignore[arg-type]


def _note(kind: str, note: str) -> dict[str, object]:
    if note and kind == "PNG":
        text = PngInfo()
        text.add_itxt(NOTE_KEY, note, zip=True)
        return {"pnginfo": text}
    comment = f"{NOTE_KEY} {note}".encode()
    return {"comment": comment} if note and kind == "JPEG" and len(comment) <= MAX_COMMENT_BYTES else {}


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Write a file whole or not at all: give a path beside it, move that into place only if the block succeeds.

    The path given is hidden and has the same suffix, so that any writer takes it. Folders that are missing are made. On any
    failure, Ctrl-C included, what was there before stays, and no part is left behind.

    Raises:
        OutputError: the folder cannot be made or written, the disk is full, or ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written: a folder of this name is in the way")
    try:
        with cache.whole_file(path) as part:
            yield part
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another folder") from error
