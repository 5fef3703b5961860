"""What does an encoder see? Backbones that give features at three strides: a compact one for CPUs, and pSp's and e4e's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders import irse
from generators.ops import fast_layout

Features = tuple[Float[Tensor, "batch 128 h4 w4"], Float[Tensor, "batch 256 h8 w8"], Float[Tensor, "batch 512 h16 w16"]]
"""Of an image, or of several in one, at strides 4, 8 and 16."""


class Backbone(nn.Module):
    """Base of all: what is alike from outside, so that one can take another's place."""

    out_channels = (128, 256, 512)
    """Channels of the features at strides 4, 8 and 16."""

    FIRST: str
    """Name of the weights that see the images themselves."""

    @staticmethod
    def widen(first: Float[Tensor, "64 fewer 3 3"], in_channels: int) -> Float[Tensor, "64 {in_channels} 3 3"]:
        """Let the first weights of a network for one image serve one for several: the others are overlooked at first."""
        return F.pad(first, (0, 0, 0, 0, 0, in_channels - first.shape[1]))


class Fire(nn.Module):
    """Squeeze to a few channels, expand by 1x1 and 3x3 convolutions side by side."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch two_expand h w"]:
        """Return both expansions side by side."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeBackbone(Backbone):
    """SqueezeNet 1.1 without its classifier: 0.4 billion multiplications for a 256 px face.

    Tensor names are torchvision's (``features.N...``), so that ImageNet weights can start a training. Unlike torchvision's,
    the first convolution is padded, which makes 256 px come out at 64, 32 and 16.

    Reference: Iandola et al. 2016, arXiv:1602.07360.
    """

    FIRST = "features.0.weight"

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        in_channels: int = 3,  # 3 for an image; 6 for two of them, one after the other.
    ) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.features = nn.ModuleList(
            [
                nn.Conv2d(in_channels, 64, 3, stride=2, padding=1),
                nn.ReLU(),
                pool,
                Fire(64, 16, 64),
                Fire(128, 16, 64),
                pool,
                Fire(128, 32, 128),
                Fire(256, 32, 128),
                pool,
                Fire(256, 48, 192),
                Fire(384, 48, 192),
                Fire(384, 64, 256),
                Fire(512, 64, 256),
            ]
        )
        # ImageNet's mean and spread, for images in [-1, 1] instead of [0, 1].
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift", shift.repeat(in_channels // 3)[:, None, None], persistent=False)
        self.register_buffer("scale", scale.repeat(in_channels // 3)[:, None, None], persistent=False)

    def forward(self, image: Float[Tensor, "batch in_channels height width"]) -> Features:
        """Return features at strides 4, 8 and 16 of an image, or of several in one, in [-1, 1]."""
        # In one order, whatever the image's: views of photos have strides of which convolutions round otherwise.
        x = fast_layout(((image - self.shift) / self.scale).contiguous())
        taps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in (4, 7, 12):
                taps.append(x)
        return taps[0], taps[1], taps[2]


class IRSEBackbone(Backbone):
    """IR-SE50 as pSp and e4e have it, without their heads: 33 billion multiplications for a 256 px face.

    Tensor names are those of ArcFace's ``model_ir_se50.pth``, which can start a training.
    """

    FIRST = "input_layer.0.weight"

    units = irse.IR_50
    """Residual units of its groups."""

    def __init__(
        self,
        in_channels: int = 3,  # 3 for an image; 6 for two of them, one after the other.
    ) -> None:
        super().__init__()
        self.input_layer, self.body = irse.input_layer(in_channels), irse.body(self.units)

    def forward(self, image: Float[Tensor, "batch in_channels height width"]) -> Features:
        """Return features at strides 4, 8 and 16 of an image, or of several in one, in [-1, 1]."""
        return irse.pyramid_features(self.body, self.input_layer(image), self.units)


BACKBONES: dict[str, type[Backbone]] = {"compact": SqueezeBackbone, "ir-se50": IRSEBackbone}
"""By the name that ``--backbone`` takes."""
