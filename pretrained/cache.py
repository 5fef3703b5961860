"""Where are fetched weights kept? One folder, and a way to write files into it whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder of fetched weights: ``STYLEGAN_INVERT_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("STYLEGAN_INVERT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("stylegan-invert"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; on success it becomes ``path``, on failure it vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
