"""How does a large file come from the web? In parts that survive an interruption, and never a web page in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from tqdm import tqdm

from pretrained.errors import BrokenFile, DownloadFailed

MIRROR = "STYLEGAN_INVERT_MIRROR"
"""Environment variable: the address of a folder that has the same files."""
TIMEOUT_SEC = 15.0
"""Of silence; a transfer may take as long as it takes."""
CHUNK = 1 << 20
ENOUGH, DONE, GONE = 206, 200, 416
"""HTTP's answers: the rest of a file, all of it, nothing beyond what is there already."""


def mirrored(url: str) -> str:
    """Return the address of a file on the user's mirror, or its own where there is none."""
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{Path(urlparse(url).path).name}" if mirror else url


def download(url: str, path: Path, notify: Callable[[str], None]) -> None:
    """Fetch a file; what came before an interruption is kept beside it, and a later call goes on from there.

    Args:
        url: http or https; a mirror may take its place.
        path: where the file appears once it is whole.
        notify: told where an interrupted download goes on.

    Raises:
        DownloadFailed: no network, no such file, or an interruption.
        BrokenFile: a web page came in its place.
        OSError: the disk is full, or the folder cannot be written.
    """
    url = mirrored(url)
    if urlparse(url).scheme not in ("http", "https"):
        raise DownloadFailed(f"{url}: expected an address that begins with https:// or http:// (see {MIRROR})")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.etag")
    here = part.stat().st_size if part.exists() and tag.exists() else 0
    try:
        with _open(url, here, tag) as response:
            _receive(response, part, tag, here, notify)
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno is not None and _is_local(error, path):
            raise
        raise DownloadFailed(
            f"{url} could not be fetched ({error}); run it again to go on, let {MIRROR} name a mirror, or put the file as"
            f" {path.name} into {path.parent} by hand"
        ) from error
    _refuse_pages(part, tag, url)
    part.replace(path)
    tag.unlink(missing_ok=True)


def _open(url: str, here: int, tag: Path) -> HTTPResponse:
    """Ask for a file, or for what is missing of it, provided that it is the same file still."""
    headers = {"User-Agent": "stylegan-invert", "Accept-Encoding": "identity"}
    if here:
        headers |= {"Range": f"bytes={here}-", "If-Range": tag.read_text(encoding="utf-8")}
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT_SEC)  # type: ignore[no-any-return]
    except HTTPError as error:
        if here and error.code == GONE:
            error.close()
            # Nothing is left to send, or the file is another: the whole of it tells.
            return _open(url, 0, tag)
        raise


def _receive(response: HTTPResponse, part: Path, tag: Path, here: int, notify: Callable[[str], None]) -> None:
    goes_on = here > 0 and response.status == ENOUGH and response.headers["Content-Range"].startswith(f"bytes {here}-")
    here = here if goes_on else 0
    identity = response.headers["ETag"] or response.headers["Last-Modified"]
    # A weak tag may stand for other bytes.
    if identity and not identity.startswith("W/"):
        tag.write_text(identity, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)
    expected = int(response.headers["Content-Length"] or 0)
    if goes_on:
        notify(f"going on at {here / 1e6:.0f} of {(here + expected) / 1e6:.0f} MB")
    if expected > (free := shutil.disk_usage(part.parent).free):
        raise DownloadFailed(f"{part.parent} has {free / 1e6:.0f} MB of space, and {expected / 1e6:.0f} MB are needed")
    with part.open("ab" if goes_on else "wb") as file:
        received = _copy(response, file, here, here + expected)
    if expected and received != expected:
        raise HTTPException(f"the connection ended after {here + received} of {here + expected} bytes")


def _copy(response: HTTPResponse, file: BinaryIO, here: int, total: int) -> int:
    received = 0
    # Without a terminal there is nobody to watch a bar.
    with tqdm(initial=here, total=total or None, unit="B", unit_scale=True, disable=None) as bar:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    return received


def _is_local(error: OSError, path: Path) -> bool:
    """Tell a full disk or a folder that may not be written from trouble with the network."""
    return (error.filename is not None and Path(str(error.filename)).parent == path.parent) or error.errno == 28


def _refuse_pages(part: Path, tag: Path, url: str) -> None:
    with part.open("rb") as file:
        head = file.read(512).lstrip()
    if head[:1] == b"<" or not head:
        part.unlink()
        tag.unlink(missing_ok=True)
        raise BrokenFile(
            f"{url} gave {'a web page' if head else 'nothing'} in place of weights: a login, a quota, or a moved file?"
        )
