"""Where are fetched weights kept? One folder, and a way to write files into it whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from torch import nn  # Commands that only look for files start without PyTorch.


def cache_folder() -> Path:
    """Return the folder of fetched weights: ``STYLEGAN_INVERT_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("STYLEGAN_INVERT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("stylegan-invert"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for weights in network.state_dict().values():
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: give a path beside it, move that into place only if the block succeeds.

    The path given is hidden and has the same suffix, so that any writer takes it. Folders that are missing are made. On any
    failure, Ctrl-C included, what was there before stays, and no part is left behind.

    Raises:
        OSError: the folder cannot be made or written, the disk is full, or ``path`` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.stem[:40]}-{secrets.token_hex(6)}{path.suffix}"
    part.touch(exist_ok=False)
    mode = part.stat().st_mode
    try:
        yield part
        part.chmod(mode)  # A writer that makes the file anew (safetensors does) would leave it to its owner alone.
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # Else a power cut can leave a whole name with half a file.
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
