"""Which faces are there to measure, each content once? And how do their pictures arrive in time?"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from invert.dataset import FaceFile, Reader, decode_face
from invert.errors import NoFaceFound, PhotoError
from invert.evaluation.manifest import Manifest
from invert.evaluation.team import Team
from invert.faces import MIN_FACE_PX, align, detect
from invert.photo import decode_photo, to_uint8

RESOLUTION = 256
"""Side at which papers measure, and encoders see."""
FFHQ_PX = 1024
"""Side of FFHQ's faces."""
REMEMBER_EVERY = 512
"""Files whose hashes are kept in one go: what is lost to a kill is read again in a second."""
SAMPLED = 5
"""Pictures that are looked at to tell whether a set is aligned."""
ALIGNED_WITHIN = 0.15
"""Largest distance, in sides, of the picture's corners from those of the FFHQ crop around its face."""

Kind = Literal["aligned", "photos"]
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Faces:
    """The files of a run."""

    files: dict[str, FaceFile]
    """The first file of every content, by the content's SHA-256, in the order of the list."""
    duplicates: list[tuple[FaceFile, FaceFile]] = field(default_factory=list)
    """Files with the content of an earlier one, and that one."""
    unreadable: list[tuple[FaceFile, str]] = field(default_factory=list)
    """Files that cannot even be hashed, and why."""

    @property
    def count(self) -> int:
        """How many files there are in all."""
        return len(self.files) + len(self.duplicates) + len(self.unreadable)


def hash_faces(faces: Sequence[FaceFile], team: Team, manifest: Manifest | None) -> Faces:
    """Find out which contents there are; files that have not changed since they were last read are not read again.

    Args:
        faces: the same list in every worker.
        team: each worker reads its share.
        manifest: the leader's, that remembers hashes.
    """
    known = team.once(lambda: manifest.known_hashes(faces) if manifest is not None else [""] * len(faces))
    unknown = [number for number, content in enumerate(known) if not content]
    mine = unknown[team.rank :: team.size]
    found: dict[int, tuple[str, str]] = {}
    # One thread would wait for the disk; more help where it is far away.
    for start in range(0, len(mine), REMEMBER_EVERY):
        part = mine[start : start + REMEMBER_EVERY]
        hashes = _hash([faces[number] for number in part])
        found |= dict(zip(part, hashes, strict=True))
        if manifest is not None:
            manifest.remember_hashes([faces[number] for number in part], [content for content, _ in hashes])
    everyones = {number: pair for share in team.gather(found) for number, pair in share.items()}
    if manifest is not None and team.size > 1:
        others = sorted(everyones.keys() - found.keys())
        manifest.remember_hashes([faces[number] for number in others], [everyones[number][0] for number in others])
    return _sort_out(faces, [(content, "") if content else everyones[i] for i, content in enumerate(known)])


def _sort_out(faces: Sequence[FaceFile], hashes: Sequence[tuple[str, str]]) -> Faces:
    found = Faces({})
    for face, (content, reason) in zip(faces, hashes, strict=True):
        if not content:
            found.unreadable.append((face, reason))
        elif content in found.files:
            found.duplicates.append((face, found.files[content]))
        else:
            found.files[content] = face
    return found


def _hash(faces: Sequence[FaceFile]) -> list[tuple[str, str]]:
    """Return each file's SHA-256, or the reason why there is none; several names of one file are read once."""
    inodes: dict[tuple[int, int], tuple[str, str]] = {}
    hashes = []
    with Reader() as reader:
        for face in faces:
            result = inodes.get(face.inode) if face.inode is not None else None
            if result is None:
                try:
                    result = (hashlib.sha256(reader.read(face)).hexdigest(), "")
                except PhotoError as error:
                    result = ("", str(error).removeprefix(f"{face.name}: "))
                if face.inode is not None:
                    inodes[face.inode] = result
            hashes.append(result)
    return hashes


def read_face(
    reader: Reader, face: FaceFile, kind: Kind, content: str | None = None, resolution: int | None = RESOLUTION
) -> UInt8[np.ndarray, "3 height width"]:
    """Read one aligned face, or cut the largest one out of a photo.

    Args:
        reader: reads its file.
        face: where it lies.
        kind: what its picture is.
        content: SHA-256 that its file had when it was listed; None takes whatever is there now.
        resolution: side of the result; None leaves aligned faces as large as they are, and cuts others out as FFHQ's were.

    Raises:
        PhotoError: it cannot be read, is not aligned or too small, or its file is another than was listed.
        NoFaceFound: a photo without a face.
    """
    data = reader.read(face)
    if content is not None and hashlib.sha256(data).hexdigest() != content:
        raise PhotoError(f"{face.name}: changed since it was listed; the same command measures what is there now")
    if kind == "aligned":
        return decode_face(data, face.name, resolution, MIN_FACE_PX)
    photo = decode_photo(data, face.name)
    try:
        image = align(photo, detect(photo, advice="")[0], resolution or FFHQ_PX).image
    except NoFaceFound as error:
        raise NoFaceFound(f"{face.name}: {error}") from error
    return np.ascontiguousarray(to_uint8(image).transpose(2, 0, 1))


def read_square(reader: Reader, face: FaceFile) -> UInt8[np.ndarray, "3 side side"]:
    """Read the middle square of a picture of anything.

    Raises:
        PhotoError: it cannot be read.
    """
    photo = decode_photo(reader.read(face), face.name)
    side = min(photo.shape[:2])
    top, left = ((size - side) // 2 for size in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + side, left : left + side].transpose(2, 0, 1))


def kind_of(faces: Sequence[FaceFile]) -> Kind:
    """Tell whether pictures are aligned faces or photos, by looking at a few: the answer holds for all of a run.

    A picture is a photo if it is no square, or if the FFHQ crop around its largest face lies elsewhere than its edge.
    """
    chosen = [faces[round(place)] for place in np.linspace(0, len(faces) - 1, min(SAMPLED, len(faces)))]
    votes = []
    with Reader() as reader:
        for face in chosen:
            try:
                photo = decode_photo(reader.read(face), face.name)
            except PhotoError:
                continue
            votes.append(_is_photo(photo))
    return "photos" if 2 * sum(votes) > len(votes) else "aligned"


def _is_photo(photo: UInt8[np.ndarray, "height width 3"]) -> bool:
    height, width = photo.shape[:2]
    if abs(height - width) > 1:
        return True
    try:
        face = align(photo, detect(photo)[0], RESOLUTION)
    except NoFaceFound:
        return False
    corners = np.array([(0, 0, 1), (0, height, 1), (width, height, 1), (width, 0, 1)]) - (0.5, 0.5, 0)
    expected = np.array([(0, 0), (0, RESOLUTION), (RESOLUTION, RESOLUTION), (RESOLUTION, 0)]) - 0.5
    distance = np.linalg.norm((corners @ face.crop_from_photo.T)[:, :2] - expected, axis=1).mean() / RESOLUTION
    return bool(distance > ALIGNED_WITHIN)


def prefetch(function: Callable[[A], B], items: Iterable[A], ahead: int = 4) -> Iterator[tuple[A, Future[B]]]:
    """Call a function for item after item in a thread of its own, a few items ahead of who takes the results."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[A, Future[B]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > ahead:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
