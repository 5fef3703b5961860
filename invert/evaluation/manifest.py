"""What has been measured already? One SQLite file that a killed run leaves whole: every row is there, or is not.

A result belongs to the SHA-256 of a picture's file and to the key of a method with all its settings, so that a file may be
renamed or copied, and figures of other weights, steps or versions are never mixed with these.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from generators.errors import ToolkitError
from invert.dataset import FaceFile
from invert.errors import OutputError

SCHEMA_VERSION = 1
APPLICATION_ID = int.from_bytes(b"SGIE", "big")
BUSY_SEC = 10.0
"""How long another run may hold the file: enough for one that is just being ended."""
_SCHEMA = """
CREATE TABLE hashes (file BLOB PRIMARY KEY, signature TEXT NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE methods (key TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results (
    content TEXT NOT NULL, method TEXT NOT NULL, figures TEXT NOT NULL, seconds REAL, peak_bytes INTEGER,
    reason TEXT NOT NULL, note TEXT NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (content, method)
) WITHOUT ROWID;
CREATE TABLE pictures (
    content TEXT NOT NULL, method TEXT NOT NULL, label TEXT NOT NULL, jpeg BLOB NOT NULL,
    PRIMARY KEY (content, method, label)
);
CREATE TABLE decisions (question TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;
"""
# Figures that a later run adds to a row join those that it has; a failure takes none of them, nor their cost.
_ADD_RESULT = """
INSERT INTO results {source} ON CONFLICT (content, method) DO UPDATE SET
    figures = json_patch(figures, excluded.figures),
    seconds = iif(excluded.reason = '', excluded.seconds, seconds),
    peak_bytes = iif(excluded.reason = '', excluded.peak_bytes, peak_bytes),
    reason = excluded.reason, note = excluded.note, worker = excluded.worker
"""


_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the files that make up a database."""


class ManifestError(ToolkitError):
    """A manifest that cannot be gone on with: of another version, no manifest, or in another run's hands."""


class ManifestBusy(ManifestError):
    """A manifest that a process has open, which is alive: no lock outlives its process."""


@dataclass(frozen=True)
class Result:
    """What one method did with one face."""

    content: str
    """SHA-256 of the picture's file."""
    method: str
    """Key of the method."""
    figures: dict[str, float] = field(default_factory=dict)
    """By the keys of the metrics; NaN where a metric has no value for this face. If the method failed, what an earlier run
    measured is all there is."""
    seconds: float = 0.0
    """Of the inversion alone."""
    peak_bytes: int = 0
    """Most memory that the inversion held; 0 where that cannot be told."""
    reason: str = ""
    """Why it failed, when it was last tried."""
    note: str = ""
    """Why some figure is NaN."""
    worker: str = ""
    """Which process measured it."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """JPEGs by their labels."""

    def has(self, figures: Set[str]) -> bool:
        """Tell whether it was measured with all these figures, in one run or several."""
        return figures <= self.figures.keys() and bool(self.figures or not self.reason)

    def why_not(self, figures: Set[str]) -> str:
        """Say why these figures, or some of their values, are not there; nothing if all are well."""
        return self.note if self.has(figures) else self.reason


class Manifest:
    """An open manifest; no other process can open it meanwhile.

    Args:
        path: the file; made if it is not there.

    Raises:
        ManifestBusy: another run has it open.
        ManifestError: it is of another version, or something else.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors_in_words():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions are opened by hand: one for all rows that belong together.
            self._db = sqlite3.connect(path, timeout=BUSY_SEC, isolation_level=None)
            try:
                self._check()  # Before anything is changed: a stranger's database stays as it is.
                # Held until the file is closed: no two runs share a manifest, and a network drive will do.
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode = WAL")
                # A killed process loses nothing by this; a power cut may cost the last rows, which are then done again.
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._create_if_new()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def known_hashes(self, faces: Sequence[FaceFile]) -> list[str]:
        """Return each file's SHA-256 if it was read before and has not changed since; else an empty string."""
        with self._errors_in_words():
            known = {file: (signature, content) for file, signature, content in self._db.execute("SELECT * FROM hashes")}
        found = (known.get(_file_key(face), ("", "")) for face in faces)
        return [
            content if signature and signature == face.signature else ""
            for face, (signature, content) in zip(faces, found, strict=True)
        ]

    def remember_hashes(self, faces: Iterable[FaceFile], contents: Iterable[str]) -> None:
        """Keep files' SHA-256, to be valid while their signatures last."""
        rows = [(_file_key(face), face.signature, content) for face, content in zip(faces, contents, strict=True) if content]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", rows)

    def decision(self, question: str) -> str | None:
        """Return what was decided, if it was."""
        with self._errors_in_words():
            row = self._db.execute("SELECT answer FROM decisions WHERE question = ?", (question,)).fetchone()
        return None if row is None else str(row[0])

    def decide(self, question: str, answer: str) -> None:
        """Keep what was decided."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO decisions VALUES (?, ?)", (question, answer))

    def add_method(self, key: str, settings: str) -> None:
        """Keep what a key stands for."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO methods VALUES (?, ?)", (key, settings))

    def add(self, results: Sequence[Result]) -> None:
        """Keep results and their pictures: all of them or, whatever happens, none."""
        rows = [
            (r.content, r.method, _encode(r.figures), r.seconds, r.peak_bytes, _clean(r.reason), _clean(r.note), r.worker)
            for r in results
        ]
        pictures = [(r.content, r.method, label, jpeg) for r in results for label, jpeg in r.pictures.items()]
        with self._transaction():
            self._db.executemany(_ADD_RESULT.format(source="VALUES (?, ?, ?, ?, ?, ?, ?, ?)"), rows)
            self._db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", pictures)

    def results(self, method: str) -> Iterator[Result]:
        """Go through a method's results, without pictures."""
        query = "SELECT content, method, figures, seconds, peak_bytes, reason, note, worker FROM results WHERE method = ?"
        with self._errors_in_words():
            for content, key, figures, *rest in self._db.execute(query, (method,)):
                yield Result(content, key, {name: float(value) for name, value in json.loads(figures).items()}, *rest)

    def picture(self, content: str, method: str, label: str) -> bytes | None:
        """Return a picture, if there is one."""
        query = "SELECT jpeg FROM pictures WHERE content = ? AND method = ? AND label = ?"
        with self._errors_in_words():
            row = self._db.execute(query, (content, method, label)).fetchone()
        return None if row is None else bytes(row[0])

    def labels(self, content: str, method: str) -> set[str]:
        """Name the pictures that there are of a face by a method."""
        query = "SELECT label FROM pictures WHERE content = ? AND method = ?"
        with self._errors_in_words():
            return {label for (label,) in self._db.execute(query, (content, method))}

    def merge(self, part: Path) -> int:
        """Take over what another worker wrote, and delete its file; return the number of rows.

        Raises:
            ManifestBusy: its worker is still at work.
            ManifestError: it is of another version, or something else.
        """
        Manifest(part).close()  # Checks it, and finishes what a killed worker left half done.
        with self._errors_in_words():
            self._db.execute("ATTACH ? AS part", (str(part),))
            try:
                with self._transaction():
                    (count,) = self._db.execute("SELECT count(*) FROM part.results").fetchone()
                    self._db.execute(_ADD_RESULT.format(source="SELECT * FROM part.results WHERE true"))
                    self._db.execute("INSERT OR REPLACE INTO pictures SELECT * FROM part.pictures")
            finally:
                self._db.execute("DETACH part")
        for suffix in _SQLITE_SUFFIXES:
            part.with_name(part.name + suffix).unlink(missing_ok=True)
        return int(count)

    def _is_new(self) -> bool:
        return bool(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))

    def _create_if_new(self) -> None:
        if self._is_new():
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check(self) -> None:
        (application,), (version,) = (
            self._db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if self._is_new():
            return
        if application != APPLICATION_ID:
            raise ManifestError(f"{self.path}: a database, but no manifest of stylegan-invert: choose another --manifest")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{self.path}: a manifest of version {version}, this toolkit reads version {SCHEMA_VERSION}: go on with the"
                " toolkit that wrote it, or start anew with another --manifest"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors_in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # A full disk may have ended it already.
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ManifestBusy(
                    f"{self.path}: another run is working on this manifest: wait for it, or choose another --manifest"
                ) from error
            raise OutputError(
                f"{self.path}: cannot be written: {error}; what was measured so far is safe, and the same command goes on"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ManifestError(
                f"{self.path}: no manifest of stylegan-invert ({error}): choose another --manifest"
            ) from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _file_key(face: FaceFile) -> bytes:
    return os.fsencode(face.path.absolute()) + (b"\0" + os.fsencode(face.member) if face.member is not None else b"")


def _encode(figures: dict[str, float]) -> str:
    """Write figures as JSON, whose numbers are all finite: others as words, which ``float`` reads."""
    return json.dumps({key: value if math.isfinite(value) else str(value) for key, value in figures.items()})


def _clean(text: str) -> str:
    """Escape what is no Unicode: names of files in messages may hold any byte."""
    return text.encode(errors="backslashreplace").decode()


def last_written(manifest: Path) -> str:
    """Tell when a manifest was last written, and how large it was: the same as long as nobody does; never empty."""
    times = []
    for suffix in _SQLITE_SUFFIXES:
        try:
            status = manifest.with_name(manifest.name + suffix).stat()
        except OSError:
            times.append("none")
        else:
            times.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(times)


def part_of(manifest: Path, worker: int) -> Path:
    """Name the file that another worker of a run writes into."""
    return manifest.with_name(f"{manifest.stem}.worker-{worker}{manifest.suffix}")


def parts_of(manifest: Path) -> list[Path]:
    """List such files that are there."""
    name = re.compile(rf"{re.escape(manifest.stem)}\.worker-\d+{re.escape(manifest.suffix)}")
    return sorted(path for path in manifest.parent.iterdir() if name.fullmatch(path.name))
