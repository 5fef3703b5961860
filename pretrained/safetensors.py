"""How are tensors written and read? As safetensors with a JSON card inside; nothing in such a file can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pretrained.errors import BrokenFile

CARD = "card"
"""Key of the JSON text in the file's metadata."""


COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
"""How files begin that hold another one."""


def save(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and a card."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, {CARD: json.dumps(card)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and the card (empty where there is none).

    Raises:
        BrokenFile: the file is missing, truncated or of another kind; the message says what it looks like.
    """
    if not path.is_file():
        raise BrokenFile(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: what safetensors returns is the file itself, which somebody may write to while it is in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            card = json.loads((file.metadata() or {}).get(CARD, "{}"))
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise BrokenFile(f"{path}: expected a safetensors file, but {looks_like(path)} ({error})") from error
    if not isinstance(card, dict):
        raise BrokenFile(f"{path}: its card is no JSON object")
    return tensors, card


PICTURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"RIFF": "WebP"}
"""First bytes of pictures, by which they are told from weights: PNG's second byte could begin a pickle."""


def looks_like(path: Path) -> str:
    """Say what a file that cannot be read seems to be, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return "it cannot be read"
    if not head:
        return "it is empty"
    if head.lstrip()[:1] == b"<":
        return "it is a web page: a download that needed a confirmation?"
    if head[:4] == b"PK\x03\x04":
        return "it looks like a PyTorch or zip file"
    if picture := next((name for magic, name in PICTURES.items() if head.startswith(magic)), None):
        return f"it is a {picture} picture: name a file of weights"
    if compression := next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None):
        return f"it is compressed with {compression}: unpack it first"
    if head[:1] == b"\x80":
        return "it looks like a pickle"
    return "it is truncated or damaged"
