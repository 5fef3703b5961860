"""How are many faces read? From folders, zip files and lists; a table, a subfolder or CelebA-HQ itself tells the split."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from generators.errors import ToolkitError
from invert.errors import PhotoError
from invert.photo import FOREIGN_ADVICE, FOREIGN_SUFFIXES, PHOTO_SUFFIXES, decode_photo, read_bytes

log = logging.getLogger(__name__)

TABLE = "attributes.csv"
LISTS = frozenset({".txt", ".lst"})
MAX_MEMBER_BYTES = 512 * 2**20
"""Largest image that is read out of a zip file: a header can promise less than it unpacks to."""
NAMED = 3
"""Folders and zip files that are named where some are left out."""
CELEBA_HQ = "CelebA-HQ-img"
CELEBA_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
CELEBA_SPLITS = {"train": range(162770), "val": range(162770, 182637), "test": range(182637, 202599)}
"""Numbers in CelebA, from 0 on, of its official partition; 2,824 faces of CelebA-HQ come from its test part."""


@dataclass(frozen=True)
class FaceFile:
    """Where one face's picture lies; nothing of it is read yet."""

    name: str
    """What to call it: its path below the source. May hold anything that a file name may."""
    path: Path
    """The file, or the zip file that holds it."""
    member: str | None = None
    """Its name inside the zip file."""
    signature: str = ""
    """Changes when the content may have: size and times, in zip files the checksum, too; empty if there is no file."""
    inode: tuple[int, int] | None = None
    """Device and number: files that share them are one file under several names."""
    problem: str = ""
    """Why it cannot be read, where the list tells that already."""

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return PurePosixPath(self.name).stem


@dataclass
class _Unread:
    """What was come across on the way through folders or a zip file, and cannot be read."""

    folders: list[OSError] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    """Of pictures of other kinds."""

    def takes(self, name: PurePath) -> bool:
        """Tell whether a file is a picture that can be read, and remember those that cannot."""
        suffix = name.suffix.lower()
        if suffix in FOREIGN_SUFFIXES and not name.name.startswith("."):
            self.suffixes[suffix] += 1
        return suffix in PHOTO_SUFFIXES and not name.name.startswith(".")

    def tell(self, source: Path) -> None:
        """Say what it was."""
        for error in self.folders[:NAMED]:
            log.warning("%s: cannot be read: %s", error.filename, error.strerror)
        if len(self.folders) > NAMED:
            log.warning("%s: %d more folders in it cannot be read", source, len(self.folders) - NAMED)
        if self.suffixes:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
            log.warning("%s: holds pictures (%s) of kinds that %s", source, kinds, FOREIGN_ADVICE)


class Reader:
    """Reads faces' bytes, and keeps the zip files that it has opened open until it is closed; for one thread."""

    def __init__(self) -> None:
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for archive in self._archives.values():
            archive.close()

    def read(self, face: FaceFile) -> bytes:
        """Return the file as it is.

        Raises:
            PhotoError: it is missing, no file, hidden by another, may not be read, or is too large.
        """
        if face.problem:
            raise PhotoError(f"{face.name}: {face.problem}")
        if face.member is None:
            return _read_file(face)
        try:
            if face.path not in self._archives:
                self._archives[face.path] = zipfile.ZipFile(face.path)
            with self._archives[face.path].open(face.member) as member:
                data = member.read(MAX_MEMBER_BYTES + 1)
        except Exception as error:  # Damaged members raise whatever their packing's library does: LZMAError, struct.error...
            raise PhotoError(f"{face.name}: cannot be read out of {face.path.name}: {error}") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise PhotoError(f"{face.name}: unpacks to more than {MAX_MEMBER_BYTES // 2**20} MB")
        return data


def _read_file(face: FaceFile) -> bytes:
    try:
        if not stat.S_ISREG(face.path.stat().st_mode):  # A pipe of that name would be waited for without end.
            raise PhotoError(f"{face.name}: not a file")
        return read_bytes(face.path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PhotoError(f"{face.name}: no such file") from error
    except OSError as error:
        raise PhotoError(f"{face.name}: cannot be read: {error.strerror or error}") from error


def find_faces(sources: Sequence[Path], split: str | None = None, limit: int | None = None) -> list[FaceFile]:
    """List pictures without reading them, source by source in the order of their names.

    Args:
        sources: folders (in CelebA-HQ's layout, or of images, else of one zip file, else of subfolders of images), zip
            files, images, and text files that name one image a line; each counts once. What a folder holds besides is told.
        split: keep the faces of this split, as told by the table ``attributes.csv`` beside them (columns ``image_id`` and
            ``split``; the former with or without suffix and folders) or among them in their zip file, by CelebA-HQ's
            mapping, or by the subfolder of this name.
        limit: keep only this many.

    Raises:
        PhotoError: nothing to read there.
        ToolkitError: a split was asked for and nothing tells it, or it is empty.
    """
    found: list[FaceFile] = []
    labels = _labels(sources)
    for source, label in labels.items():
        faces = _faces_of(source, split)
        if len(labels) > 1 and source.suffix.lower() not in PHOTO_SUFFIXES:
            faces = [replace(face, name=f"{label}/{face.name}") for face in faces]
        found += faces
    return found[:limit]


def is_celeba_hq(source: Path) -> bool:
    """Tell whether a folder is laid out as CelebAMask-HQ publishes CelebA-HQ."""
    return source.absolute().name == CELEBA_HQ or _is_folder(source / CELEBA_HQ) or _is_file(source / CELEBA_MAPPING)


def read_faces(
    source: Path, split: str | None = None, resolution: int = 256, limit: int | None = None
) -> tuple[UInt8[Tensor, "n 3 resolution resolution"], list[str]]:
    """Read aligned faces into memory; see ``find_faces`` for what a source can be.

    Args:
        source: see ``find_faces``.
        split: see ``find_faces``.
        resolution: side that images are resized to.
        limit: read only this many, in the order of their names.

    Returns:
        The images, and their names without folder and suffix.

    Raises:
        PhotoError: nothing to read there, or an image that cannot be read.
        ToolkitError: a split was asked for and nothing tells it, or it is empty.
    """
    faces = find_faces([source], split, limit)
    with Reader() as reader:
        images = [decode_face(reader.read(face), f"{source}/{face.name}", resolution) for face in faces]
    return torch.from_numpy(np.stack(images)), [face.stem for face in faces]


def decode_face(data: bytes, name: str, resolution: int | None, min_px: int = 1) -> UInt8[np.ndarray, "3 height width"]:
    """Decode an aligned face and resize it (Lanczos); None leaves it as large as it is.

    Raises:
        PhotoError: not a readable image, not a square, or one of fewer than ``min_px`` pixels a side.
    """
    photo = decode_photo(data, name)
    height, width = photo.shape[:2]
    if abs(height - width) > 1:
        raise PhotoError(f"{name}: {width} x {height} px is no aligned face, which is a square")
    if min(height, width) < min_px:
        raise PhotoError(
            f"{name}: {width} x {height} px are too few for a face, at least {min_px} px a side are needed;"
            " use a larger version of the picture"
        )
    if resolution is not None and (width, height) != (resolution, resolution):
        photo = np.asarray(Image.fromarray(photo).resize((resolution, resolution), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(photo.transpose(2, 0, 1))


def _labels(sources: Sequence[Path]) -> dict[Path, str]:
    """Call each source, once, by its own name, and by as many of its parents' as it takes to tell them all apart."""
    once = {source.resolve(): source for source in reversed(sources)}
    parts = {source: source.absolute().parts for source in sources if once[source.resolve()] == source}
    count = 1
    while len({part[-count:] for part in parts.values()}) < len(parts):
        count += 1
    return {source: "/".join(part[-count:]) for source, part in parts.items()}


def _faces_of(source: Path, split: str | None) -> list[FaceFile]:
    faces, root = _listed(source, split)
    if not faces:
        zips = [path.name for path in _zips_in(root)]
        found = f"found several: {', '.join(zips)}; name those to read" if len(zips) > 1 else "found neither"
        raise PhotoError(f"{source}: expected images or one zip file of images, {found}")
    if split is None or (root.name == split and root != source):
        return faces
    in_split = _membership(root, source, split)
    if in_split is None:
        if source.absolute().name == split:  # The subfolder of a split, named by itself.
            return faces
        missing = f"{(root if _is_folder(root) else root.parent) / TABLE}"
        if is_celeba_hq(root) or is_celeba_hq(source):
            missing = f"{CELEBA_MAPPING} (it comes with CelebAMask-HQ) beside {CELEBA_HQ}"
        raise ToolkitError(f"the split {split!r} was asked for, but there is no {missing}")
    kept = [face for face in faces if in_split(face)]
    if not kept:
        raise PhotoError(f"{source}: no images of the split {split!r} to read")
    return kept


def _listed(source: Path, split: str | None) -> tuple[list[FaceFile], Path]:
    """List a source's faces, and the file or folder that they really lie in."""
    if source.suffix.lower() in LISTS and _is_file(source):
        return _from_list(source), source
    if source.suffix.lower() in PHOTO_SUFFIXES and not _is_folder(source):
        return [_face(source, str(source))], source
    if not _is_folder(source):
        return _in_archive(source, split)
    if _is_folder(source / CELEBA_HQ):
        source = source / CELEBA_HQ
    elif split is not None and _is_folder(source / split) and not _is_file(source / TABLE):
        source = source / split
    unread = _Unread()
    faces, zips = list(_images_in(source, False, unread)), _zips_in(source)
    if unread.folders:
        raise PhotoError(f"{source}: cannot be read: {unread.folders[0].strerror}")
    if faces:
        _tell_left_out(source, "the pictures at its top", [*_folders_in(source, unread), *zips])
    elif len(zips) == 1:
        _tell_left_out(source, zips[0].name, _folders_in(source, unread))
        unread.tell(source)
        return _in_archive(zips[0], split)
    elif celeba := _celeba_hq_below(source):
        above = [folder for folder in celeba.parent.parents if folder.is_relative_to(source)]
        beside = [path for folder in above for path in _folders_in(folder, unread) if not celeba.is_relative_to(path)]
        _tell_left_out(source, celeba.relative_to(source).as_posix(), [*beside, *zips])
        source, faces = celeba, list(_images_in(celeba, False, unread))
    else:
        unread = _Unread()
        faces = list(_images_in(source, True, unread))
        if faces:
            _tell_left_out(source, "the pictures in its subfolders", zips)
    unread.tell(source)
    return faces, source


def _celeba_hq_below(folder: Path) -> Path | None:
    """Find CelebA-HQ's pictures where its folder lies one or two levels down: with masks in it that would pass for faces."""
    if _is_file(folder / TABLE):
        return None
    found: dict[Path, Path] = {}
    for path in [path for levels in ("*", "*/*") for path in sorted(folder.glob(f"{levels}/{CELEBA_HQ}"))]:
        if _is_folder(path):
            found.setdefault(path.resolve(), path)
    if len(found) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found.values())
        raise PhotoError(f"{folder}: found several folders of CelebA-HQ: {names}; name those to read")
    return next(iter(found.values()), None)


def _is_file(path: Path) -> bool:
    """Tell whether there is such a file; ``Path.is_file`` raises where a name is too long or a folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _tell_left_out(folder: Path, read: str, others: Sequence[Path]) -> None:
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        names = ", ".join(path.name for path in others[:NAMED])
        log.warning("%s: reads only %s; left out, to be named as sources of their own: %s%s", folder, read, names, more)


def _folders_in(folder: Path, unread: _Unread) -> list[Path]:
    """List the subfolders that hold pictures, at whatever depth."""
    names = next(os.walk(folder), ("", [], []))[1]
    visited: set[tuple[int, int]] = set()
    _is_new(folder, visited)
    found = []
    for path in (folder / name for name in sorted(names) if not name.startswith(".")):
        inside = _Unread()
        if _is_new(path, visited) and next(_images_in(path, True, inside), None) is not None:
            found.append(path)
        unread.folders += inside.folders
    return found


def _zips_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.zip") if _is_file(path) and not path.name.startswith("."))


def _images_in(folder: Path, recursive: bool, unread: _Unread) -> Iterator[FaceFile]:
    """List the pictures of a folder; links are followed, and each subfolder is entered once, however many lead there."""
    visited: set[tuple[int, int]] = set()
    _is_new(folder, visited)
    for parent, folders, names in os.walk(folder, onerror=unread.folders.append, followlinks=True):
        inner = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        folders[:] = [name for name in inner if _is_new(Path(parent, name), visited)]
        for name in sorted(names):
            path = Path(parent, name)
            if unread.takes(path):
                yield _face(path, path.relative_to(folder).as_posix())


def _is_new(folder: Path, visited: set[tuple[int, int]]) -> bool:
    """Tell whether a folder was not visited under this or another name, and count it as visited."""
    try:
        status = folder.stat()
    except OSError:
        return True  # Whoever enters it is told why that cannot be.
    known = len(visited)
    visited.add((status.st_dev, status.st_ino))
    return len(visited) > known


def _face(path: Path, name: str) -> FaceFile:
    try:
        status = path.stat()
    except OSError:
        return FaceFile(name, path)
    if not stat.S_ISREG(status.st_mode):
        return FaceFile(name, path)
    # The time of the last change of its inode shows a rewrite that kept size and date.
    signature = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
    return FaceFile(name, path, None, signature, (status.st_dev, status.st_ino) if status.st_ino else None)


def _in_archive(archive: Path, split: str | None) -> tuple[list[FaceFile], Path]:
    """List a zip file's faces as those of the folder that was packed."""
    faces = list(_members(archive))
    for folder in (CELEBA_HQ, split):
        below = [face for face in faces if folder in PurePosixPath(face.name).parts[:-1]]
        if below and folder is not None and (folder == CELEBA_HQ or _find_table((archive, archive.parent), TABLE) is None):
            return below, archive / folder
    return faces, archive


def _members(archive: Path) -> Iterator[FaceFile]:
    infos, unread = _infos(archive), _Unread()
    when = _face(archive, "").signature
    last = {info.filename: info for info in infos}
    for info in infos:
        if not info.is_dir() and unread.takes(PurePosixPath(info.filename)):
            # Unpacking would write it over, too.
            problem = "" if last[info.filename] is info else f"{archive.name} holds a later file of this name; rename one"
            signature = "" if problem else f"{when}:{info.CRC:08x}:{info.file_size}"
            yield FaceFile(info.filename, archive, info.filename, signature, problem=problem)
    unread.tell(archive)


def _infos(archive: Path) -> list[zipfile.ZipInfo]:
    try:
        if not archive.is_file():  # A device or a pipe of that name would be read without end.
            what = "neither a file nor a folder" if archive.exists() else "no such file"
            raise PhotoError(f"{archive}: {what}; expected a folder or a zip file of images")
        with zipfile.ZipFile(archive) as opened:
            return sorted(opened.infolist(), key=lambda info: info.filename)
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise PhotoError(f"{archive}: expected a folder or a zip file of images ({error})") from error


def _from_list(file: Path) -> list[FaceFile]:
    try:
        lines = os.fsdecode(read_bytes(file).removeprefix(codecs.BOM_UTF8)).splitlines()
    except PhotoError as error:
        raise PhotoError(f"{error}; expected one image a line") from error
    names = [line.strip() for line in lines if line.strip()]
    if any("\0" in name for name in names):
        raise PhotoError(f"{file}: not a text file; expected one image a line")
    # A picture may be called #1.jpg.
    return [_face(file.parent / name, name) for name in names if name[0] != "#" or _is_file(file.parent / name)]


def _membership(root: Path, source: Path, split: str) -> Callable[[FaceFile], bool] | None:
    """Return what tells whether a face is in a split; None: nothing does."""
    root, source = root.absolute(), source.absolute()
    places = dict.fromkeys((root, root.parent, source, source.parent))
    table = _find_table(places, TABLE) if root.name != CELEBA_HQ else None
    if table is not None:
        names = _names_of_split(table, split)
        return lambda face: not names.isdisjoint((face.stem, PurePosixPath(face.name).name, face.name))
    mapping = _find_table(places, CELEBA_MAPPING)
    if mapping is not None:
        numbers = _celeba_numbers(mapping, split)
        return lambda face: face.stem.isdecimal() and int(face.stem) in numbers
    return None


def _find_table(places: Iterable[Path], name: str) -> FaceFile | None:
    """Find a table in the first folder that has it, or zip file, there at whatever depth."""
    for place in places:
        if _is_file(place / name):
            return FaceFile(str(place / name), place / name)
        if _is_file(place) and zipfile.is_zipfile(place):
            members = [info.filename for info in _infos(place) if PurePosixPath(info.filename).name == name]
            if members:
                member = min(members, key=lambda member: member.count("/"))
                return FaceFile(f"{place}/{member}", place, member)
    return None


def _text_of(table: FaceFile) -> str:
    with Reader() as reader:
        return reader.read(table).decode("utf-8-sig", errors="replace")


def _names_of_split(table: FaceFile, split: str) -> set[str]:
    lines = io.StringIO(_text_of(table), newline="")
    rows = [(row.get("image_id") or "", row.get("split") or "") for row in csv.DictReader(lines)]
    names = {name for name, its_split in rows if its_split == split}
    if not names:
        raise ToolkitError(
            f"{table.name} has no split {split!r}; it has {', '.join(sorted({s for _, s in rows})) or 'none'}"
        )
    return names


def _celeba_numbers(mapping: FaceFile, split: str) -> set[int]:
    """Return the numbers of CelebA-HQ's faces that come from a split of CelebA; the mapping has idx, orig_idx, file."""
    if split not in CELEBA_SPLITS:
        raise ToolkitError(f"CelebA-HQ has no split {split!r}; it has {', '.join(CELEBA_SPLITS)}")
    rows: Iterable[list[str]] = (line.split() for line in _text_of(mapping).splitlines())
    pairs = [(int(row[0]), int(row[1])) for row in rows if len(row) >= 2 and row[0].isdecimal() and row[1].isdecimal()]
    if not pairs:
        raise ToolkitError(f"{mapping.name}: expected lines of a number in CelebA-HQ and one in CelebA, found none")
    return {number for number, original in pairs if original in CELEBA_SPLITS[split]}
