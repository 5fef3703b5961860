"""What do pSp, e4e, ReStyle and ArcFace see with? The improved residual network, with squeeze-and-excitation or without.

Tensor names are those of the published files, so that these load as they are.

Reference: Deng et al. 2019, arXiv:1801.07698 (section 3.2.2, "improved residual unit"); Hu et al. 2018, arXiv:1709.01507.
"""

from __future__ import annotations

from itertools import accumulate

from jaxtyping import Float
from torch import Tensor, nn

IR_50 = (3, 4, 14, 3)
"""Residual units of the four groups, whose features have 64, 128, 256 and 512 channels and half the size each."""
IR_101 = (3, 13, 30, 3)
GROUP_CHANNELS = (64, 128, 256, 512)


class SqueezeExcitation(nn.Module):
    """Weigh the channels of a feature map by what they hold as a whole (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """Return the weighed features."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class ResidualUnit(nn.Module):
    """Norm, convolution, PReLU, strided convolution, norm; beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            *([SqueezeExcitation(out_channels)] if squeeze else []),
        )

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out_c out_h out_w"]:
        """Return features of 1/stride of the size."""
        return self.res_layer(x) + self.shortcut_layer(x)


def input_layer(in_channels: int = 3) -> nn.Sequential:
    """Return the first layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.PReLU(64),
    )


def body(units: tuple[int, int, int, int], squeeze: bool = True) -> nn.Sequential:
    """Return the residual units, one after the other; the first of each group halves the size.

    Args:
        units: of the four groups.
        squeeze: with squeeze-and-excitation.
    """
    layers: list[nn.Module] = []
    channels = GROUP_CHANNELS[0]
    for count, out_channels in zip(units, GROUP_CHANNELS, strict=True):
        for number in range(count):
            layers.append(ResidualUnit(channels, out_channels, 1 if number else 2, squeeze))
            channels = out_channels
    return nn.Sequential(*layers)


def pyramid_features(
    body: nn.Sequential, x: Float[Tensor, "batch 64 h w"], units: tuple[int, int, int, int]
) -> tuple[Float[Tensor, "batch 128 h4 w4"], Float[Tensor, "batch 256 h8 w8"], Float[Tensor, "batch 512 h16 w16"]]:
    """Return what the last three groups of a body make of the first layer's features: at strides 4, 8 and 16."""
    ends = [end - 1 for end in accumulate(units)]
    taps = []
    for number, unit in enumerate(body):
        x = unit(x)
        if number in ends[1:]:
            taps.append(x)
    return taps[0], taps[1], taps[2]
