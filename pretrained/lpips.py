"""Where does LPIPS come from? The ``lpips`` package has the heads; its backbone must be found or fetched.

Looked for in this order: a file in the cache, the reference data that ``STYLEGAN_INVERT_SHARED`` points to,
torchvision's own download.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pretrained.cache import cache_folder, sha256
from pretrained.errors import BrokenFile, DownloadFailed
from pretrained.onnx import read_onnx_tensors

if TYPE_CHECKING:
    import lpips

logger = logging.getLogger(__name__)

BACKBONE_FILE = "lpips-squeeze.onnx"
TIMEOUT_SEC = 15.0
SHARED_FILE = Path("data/lpips_squeeze/lpips_sq.onnx")


def load_lpips_squeeze() -> nn.Module:
    """Load LPIPS v0.1 with its SqueezeNet backbone, frozen.

    Raises:
        DownloadFailed: the backbone is nowhere, and torchvision's download did not work.
        BrokenFile: a local file of the backbone holds something else.
    """
    file = next((path for path in _onnx_files() if path.is_file()), None)
    model = _build(pnet_rand=True)
    if file is not None:
        _fill_from_onnx(model, read_onnx_tensors(file.read_bytes()), file)
    else:
        _fill_from_torchvision(model)
    return model.eval().requires_grad_(False)


def squeezenet_imagenet() -> dict[str, Tensor]:
    """Return the ImageNet weights of SqueezeNet 1.1 under torchvision's names (``features.N...``), to start a training from.

    Raises:
        DownloadFailed: they are nowhere, and torchvision's download did not work.
    """
    # LPIPS cuts the same network into slices that keep torchvision's indices.
    state = load_lpips_squeeze().state_dict()
    return {"features." + name.split(".", 2)[2]: value for name, value in state.items() if name.startswith("net.slice")}


def lpips_backbone_file() -> Path | None:
    """Return the file that the backbone would be read from, if it is on this machine."""
    return next((path for path in [*_onnx_files(), _downloaded()] if path.is_file()), None)


def _downloaded() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"


def _onnx_files() -> list[Path]:
    shared = os.environ.get("STYLEGAN_INVERT_SHARED")
    return [cache_folder() / BACKBONE_FILE] + ([Path(shared) / SHARED_FILE] if shared else [])


def _build(pnet_rand: bool) -> lpips.LPIPS:
    import lpips  # Imported here: it pulls in torchvision.

    with warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision by the old names of its arguments.
        warnings.simplefilter("ignore", UserWarning)
        return lpips.LPIPS(net="squeeze", pnet_rand=pnet_rand, verbose=False)


def _fill_from_onnx(model: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    state = {name: tensors.get(f"core.{name}", value) for name, value in model.state_dict().items()}
    # ``lin0`` and ``lins.0`` are two names of one head; the buffers of the scaling layer are constants.
    absent = [name for name in state if f"core.{name}" not in tensors and name.startswith(("net.", "lins."))]
    if absent:
        raise BrokenFile(f"{file} is not LPIPS with SqueezeNet: it lacks {', '.join(absent[:3])}; delete it")
    misshapen = [name for name, value in model.state_dict().items() if value.shape != state[name].shape]
    if misshapen:
        raise BrokenFile(f"{file} is not LPIPS with SqueezeNet: other shapes of {', '.join(misshapen[:3])}; delete it")
    model.load_state_dict(state)


def _fill_from_torchvision(model: nn.Module) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    weights = SqueezeNet1_1_Weights.IMAGENET1K_V1
    file = _downloaded()
    # torchvision checks what it downloads, but not what lies there already; the name ends in the hash.
    if file.is_file() and not sha256(file).startswith(file.stem.rpartition("-")[2]):
        logger.warning("%s is damaged: it is fetched again", file)
        file.unlink()
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT_SEC)  # torchvision sets none: behind a silent firewall it would wait for minutes.
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DownloadFailed(
            f"the backbone of LPIPS could not be fetched from {weights.url} ({error}); put that file into"
            f" {file.parent} by hand"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    names = {name.split(".", 2)[2]: name for name in model.state_dict() if name.startswith("net.slice")}
    slices = {names[key]: value for name, value in state.items() if (key := name.removeprefix("features.")) in names}
    model.load_state_dict(model.state_dict() | slices)
