"""The encoders of pSp: a feature pyramid with a head for each style, and two without one.

Tensor names are those of the published files (without their prefix ``encoder.``), so that these load as they are; only
``w_avg`` is none of them there (it lies beside them, as ``latent_avg``), and stays as it is where it is missing.

Reference: Richardson et al. 2021, arXiv:2008.00951, section 3.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders import irse
from encoders.base import Encoder
from generators.latent import WPlus

STEPS = 5
"""Looks at a face of an encoder that also sees what was drawn so far, as ReStyle has it (arXiv:2104.02699, section 4)."""
COARSE_HEADS, MIDDLE_HEADS = 3, 7
"""Styles from this number on read the next finer level of the pyramid."""
ImageBatch = Float[Tensor, "batch {self.in_channels} 256 256"]


class EqualLinear(nn.Module):
    """A linear layer whose weights are kept at unit variance (Karras et al. 2018, arXiv:1710.10196, section 4.1)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "batch i"]) -> Float[Tensor, "batch o"]:
        """Return the outputs."""
        return F.linear(x, self.weight * self.weight.shape[1] ** -0.5, self.bias)


class Map2Style(nn.Module):
    """Turn a feature map into one style by halving it down to a single pixel (Richardson et al. 2021, figure 2)."""

    def __init__(self, size: int, w_dim: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(int(math.log2(size))):
            layers += [nn.Conv2d(512 if number == 0 else w_dim, w_dim, 3, stride=2, padding=1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(w_dim, w_dim)

    def forward(self, x: Float[Tensor, "batch 512 height size"]) -> Float[Tensor, "batch w_dim"]:
        """Return the style."""
        return self.linear(self.convs(x).flatten(1))


class PublishedEncoder(Encoder):
    """Base of the published encoders: a backbone's features of 256 px, and the mean of W."""

    body: nn.Sequential

    def __init__(self, num_ws: int, w_dim: int, in_channels: int, bars: int) -> None:
        super().__init__()
        self.num_ws, self.w_dim, self.in_channels, self.bars = num_ws, w_dim, in_channels, bars
        self.looks = STEPS if in_channels == 6 else 1
        self.register_buffer("w_avg", torch.zeros(num_ws, w_dim))  # One row a layer, as files have it.
        self.register_load_state_dict_pre_hook(_keep_w_avg)

    def stem(self, image: ImageBatch) -> Float[Tensor, "batch 64 height width"]:
        """Return what the first layer makes of an image without its bars."""
        raise NotImplementedError

    def features(self, image: ImageBatch) -> Float[Tensor, "batch 512 height 16"]:
        """Return the last features of the backbone."""
        return self.body(self.stem(image))

    def without_bars(self, image: ImageBatch) -> Float[Tensor, "batch {self.in_channels} height 256"]:
        """Return the rows that the encoder looks at."""
        return image[:, :, self.bars : image.shape[2] - self.bars]


class IRSEEncoder(PublishedEncoder):
    """Base of those for faces, whose backbone is IR-SE50."""

    backbone_name = "ir-se50"
    units = irse.IR_50
    """Residual units of the backbone's groups."""

    def __init__(self, num_ws: int, w_dim: int, in_channels: int, bars: int) -> None:
        super().__init__(num_ws, w_dim, in_channels, bars)
        self.input_layer, self.body = irse.input_layer(in_channels), irse.body(self.units)

    def stem(self, image: ImageBatch) -> Float[Tensor, "batch 64 height width"]:
        """Return what the first layer makes of an image without its bars."""
        return self.input_layer(self.without_bars(image))


class PyramidEncoder(IRSEEncoder):
    """Base of pSp and e4e: three levels of a feature pyramid, and a head for each style."""

    def __init__(
        self,
        num_ws: int = 18,  # Layers of the generator.
        w_dim: int = 512,  # Width of a style.
        in_channels: int = 3,  # 1 for sketches, 19 for segmentation maps.
        bars: int = 0,  # Rows above and below that it does not look at: 32 for cars, which are wider than high.
    ) -> None:
        super().__init__(num_ws, w_dim, in_channels, bars)
        sizes = [16 if i < COARSE_HEADS else 32 if i < MIDDLE_HEADS else 64 for i in range(num_ws)]
        self.styles = nn.ModuleList(Map2Style(size, w_dim) for size in sizes)
        self.latlayer1, self.latlayer2 = nn.Conv2d(256, 512, 1), nn.Conv2d(128, 512, 1)

    def head_outputs(self, image: ImageBatch, count: int) -> list[Float[Tensor, "batch w_dim"]]:
        """Return what the first ``count`` heads read off their levels."""
        c1, c2, c3 = irse.pyramid_features(self.body, self.stem(image), self.units)
        p2 = _upsampled(c3, c2) + self.latlayer1(c2)
        p1 = _upsampled(p2, c1) + self.latlayer2(c1)
        levels = [c3 if i < COARSE_HEADS else p2 if i < MIDDLE_HEADS else p1 for i in range(count)]
        return [head(level) for head, level in zip(self.styles, levels, strict=False)]


class GradualStyleEncoder(PyramidEncoder):
    """pSp: every style has a head of its own."""

    def forward(self, image: ImageBatch) -> WPlus:
        """Encode faces in [-1, 1], aligned like FFHQ."""
        return torch.stack(self.head_outputs(image, self.num_ws), dim=1) + self.w_avg


class BackboneEncoderUsingLastLayerIntoW(IRSEEncoder):
    """One style for all layers, from the mean of the last features; e4e calls it SingleStyleCodeEncoder."""

    def __init__(self, num_ws: int = 18, w_dim: int = 512, in_channels: int = 3, bars: int = 0) -> None:
        super().__init__(num_ws, w_dim, in_channels, bars)
        self.linear = EqualLinear(512, w_dim)

    def forward(self, image: ImageBatch) -> WPlus:
        """Encode faces in [-1, 1], aligned like FFHQ."""
        return self.linear(self.features(image).mean((2, 3)))[:, None] + self.w_avg


class BackboneEncoderUsingLastLayerIntoWPlus(IRSEEncoder):
    """All styles from one vector."""

    def __init__(self, num_ws: int = 18, w_dim: int = 512, in_channels: int = 3, bars: int = 0) -> None:
        super().__init__(num_ws, w_dim, in_channels, bars)
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(512), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 7 * 7, 512)
        )
        self.linear = EqualLinear(512, num_ws * w_dim)

    def forward(self, image: ImageBatch) -> WPlus:
        """Encode faces in [-1, 1], aligned like FFHQ."""
        vector = self.output_layer_2(self.features(image))
        return self.linear(vector).unflatten(1, (self.num_ws, self.w_dim)) + self.w_avg


def _keep_w_avg(encoder: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Let state dicts of published files fill an encoder strictly: they know no ``w_avg``."""
    state.setdefault(f"{prefix}w_avg", encoder.get_buffer("w_avg"))


def _upsampled(x: Float[Tensor, "batch c h w"], finer: Float[Tensor, "batch _ h2 w2"]) -> Float[Tensor, "batch c h2 w2"]:
    return F.interpolate(x, finer.shape[2:], mode="bilinear", align_corners=True)
