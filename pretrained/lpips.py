"""Where does LPIPS come from? The ``lpips`` package has the heads; its backbone must be found or fetched.

Looked for in this order: a file in the cache, the reference data that ``STYLEGAN_INVERT_SHARED`` points to,
the address that torchvision names.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from generators.errors import UnknownName
from generators.ops import fast_layout
from pretrained.backbones import Backbone
from pretrained.cache import cache_folder
from pretrained.errors import BrokenFile
from pretrained.onnx import read_onnx_tensors

if TYPE_CHECKING:
    import lpips

BACKBONE_FILE = "lpips-squeeze.onnx"
SHARED_FILE = Path("data/lpips_squeeze/lpips_sq.onnx")
_TORCHVISION = "https://download.pytorch.org/models/"
BACKBONES = {
    "alex": Backbone("LPIPS's AlexNet", _TORCHVISION + "alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": Backbone("LPIPS's VGG16", _TORCHVISION + "vgg16-397923af.pth", "397923af"),
    "squeeze": Backbone("LPIPS's SqueezeNet", _TORCHVISION + "squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}
"""The networks that LPIPS was published with, by the names of the ``lpips`` package; torchvision's ImageNet weights."""


def load_lpips(net: str) -> nn.Module:
    """Load LPIPS v0.1 with one of its backbones, frozen: images in [-1, 1] in, distances (batch, 1, 1, 1) out.

    Args:
        net: ``alex``, ``vgg`` or ``squeeze``.

    Raises:
        UnknownName: there is no such backbone.
        DownloadFailed: the backbone is nowhere, and its download did not work.
        BrokenFile: a local file of the backbone holds something else.

    Reference: Zhang et al. 2018, arXiv:1801.03924.
    """
    if net not in BACKBONES:
        raise UnknownName("LPIPS backbone", net, BACKBONES)
    file = next((path for path in _onnx_files() if path.is_file()), None) if net == "squeeze" else None
    model = _build(net, pnet_rand=True)
    if file is not None:
        _fill_from_onnx(model, read_onnx_tensors(file.read_bytes()), file)
    else:
        _fill_from_torchvision(model, BACKBONES[net])
    # Twice as fast forward on a CPU, a sixth faster backward.
    model.register_forward_pre_hook(lambda _, images: tuple(map(fast_layout, images)))
    return model.eval().requires_grad_(False)


def load_lpips_squeeze() -> nn.Module:
    """Load LPIPS with SqueezeNet, the smallest; see ``load_lpips``."""
    return load_lpips("squeeze")


def squeezenet_imagenet() -> dict[str, Tensor]:
    """Return the ImageNet weights of SqueezeNet 1.1 under torchvision's names (``features.N...``), to start a training from.

    Raises:
        DownloadFailed: they are nowhere, and their download did not work.
    """
    # LPIPS cuts the same network into slices that keep torchvision's indices.
    state = load_lpips_squeeze().state_dict()
    return {"features." + name.split(".", 2)[2]: value for name, value in state.items() if name.startswith("net.slice")}


def lpips_backbone_file() -> Path | None:
    """Return the file that the backbone would be read from, if it is on this machine."""
    return next((path for path in _onnx_files() if path.is_file()), None) or BACKBONES["squeeze"].local_file()


def _onnx_files() -> list[Path]:
    shared = os.environ.get("STYLEGAN_INVERT_SHARED")
    return [cache_folder() / BACKBONE_FILE] + ([Path(shared) / SHARED_FILE] if shared else [])


def _build(net: str, pnet_rand: bool) -> lpips.LPIPS:
    import lpips  # Imported here: it pulls in torchvision.

    with warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision by the old names of its arguments.
        warnings.simplefilter("ignore", UserWarning)
        return lpips.LPIPS(net=net, pnet_rand=pnet_rand, verbose=False)


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


def _fill_from_torchvision(model: nn.Module, backbone: Backbone) -> None:
    published = backbone.state_dict()
    # LPIPS cuts the network into slices that keep torchvision's indices.
    own = {name: f"features.{name.split('.', 2)[2]}" for name in model.state_dict() if name.startswith("net.slice")}
    absent = [name for name, theirs in own.items() if theirs not in published]
    if absent:
        raise BrokenFile(f"{backbone.local_file()} is not {backbone.what}: it lacks {', '.join(absent[:3])}; delete it")
    model.load_state_dict(model.state_dict() | {name: published[theirs] for name, theirs in own.items()})
