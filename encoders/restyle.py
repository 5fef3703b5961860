"""The encoders of ReStyle, which look several times: at the face, and at what the generator drew of it so far.

Tensor names are those of the published files, as in ``encoders.psp``.

Reference: Alaluf et al. 2021, arXiv:2104.02699.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoders.base import Encoder
from encoders.e4e import forget_deltas, from_deltas
from encoders.psp import ImageBatch, IRSEEncoder, Map2Style, PublishedEncoder
from encoders.resize import resize
from generators.base import Generator
from generators.errors import LatentMismatch
from generators.latent import WPlus


class ResNetEncoder(PublishedEncoder):
    """Base of those for other things than faces: ResNet-34 without its first pooling, so that 256 px come out at 16.

    Reference: He et al. 2016, arXiv:1512.03385.
    """

    backbone_name = "resnet-34"
    units = (3, 4, 6, 3)
    """Residual units of the backbone's groups."""

    def __init__(self, num_ws: int, w_dim: int, in_channels: int, bars: int) -> None:
        from torchvision.models.resnet import BasicBlock, ResNet  # Imported here: it takes a second.

        super().__init__(num_ws, w_dim, in_channels, bars)
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.PReLU(64)
        groups = ResNet(BasicBlock, list(self.units))
        self.body = nn.Sequential(*groups.layer1, *groups.layer2, *groups.layer3, *groups.layer4)

    def stem(self, image: ImageBatch) -> Float[Tensor, "batch 64 height width"]:
        """Return what the first layer makes of an image without its bars."""
        return self.relu(self.bn1(self.conv1(self.without_bars(image))))


class ReStyleEncoder(PublishedEncoder):
    """ReStyle over pSp: all heads read the last features, so that a look is cheap."""

    def __init__(
        self,
        num_ws: int = 18,  # Layers of the generator.
        w_dim: int = 512,  # Width of a style.
        in_channels: int = 6,  # A face, and what was drawn of it so far.
        bars: int = 0,  # Rows above and below that it does not look at: 32 for cars, which are wider than high.
    ) -> None:
        super().__init__(num_ws, w_dim, in_channels, bars)
        self.styles = nn.ModuleList(Map2Style(16, w_dim) for _ in range(num_ws))

    def head_outputs(self, image: ImageBatch, count: int) -> list[Float[Tensor, "batch w_dim"]]:
        """Return what the first ``count`` heads read off the last features."""
        features = self.features(image)
        return [head(features) for head in list(self.styles)[:count]]

    def forward(self, image: ImageBatch) -> WPlus:
        """Return the change of the code so far, plus ``w_avg``."""
        return torch.stack(self.head_outputs(image, self.num_ws), dim=1) + self.w_avg


class ProgressiveReStyleEncoder(ReStyleEncoder):
    """ReStyle over e4e: w_0 from the first head, deltas from the others; ``stage`` turns them on one by one."""

    deltas = True

    def styles_to_deltas(self) -> None:
        """Turn the weights of ReStyle over pSp into weights for this: every layer begins as the first layer's style."""
        forget_deltas(self.styles)

    def forward(self, image: ImageBatch) -> WPlus:
        """Return the change of the code so far, plus ``w_avg``."""
        return from_deltas(self.head_outputs(image, self.active_layers), self.num_ws) + self.w_avg


class BackboneEncoder(ReStyleEncoder, IRSEEncoder):
    """ReStyle over pSp, for faces."""


class ProgressiveBackboneEncoder(ProgressiveReStyleEncoder, IRSEEncoder):
    """ReStyle over e4e, for faces."""


class ResNetBackboneEncoder(ReStyleEncoder, ResNetEncoder):
    """ReStyle over pSp, for other things: cars, churches, wild animals."""


class ResNetProgressiveBackboneEncoder(ProgressiveReStyleEncoder, ResNetEncoder):
    """ReStyle over e4e, for other things: cars, churches, horses, wild animals."""


def restyle(
    encoder: Encoder, generator: Generator, image: Float[Tensor, "batch 3 256 256"], steps: int | None = None
) -> Iterator[tuple[WPlus, Float[Tensor, "batch 3 height width"]]]:
    """Encode faces in several steps (Alaluf et al. 2021, section 3, eqs. 1 to 3).

    Args:
        encoder: with 6 input channels, and for a w_plus.
        generator: that the codes are for.
        image: aligned faces in [-1, 1].
        steps: looks at each face; None: as many as the encoder is meant to have.

    Yields:
        After each look the codes so far, and what the generator draws from them.

    Raises:
        LatentMismatch: the encoder looks at single images, or gives stylemaps.
    """
    if encoder.in_channels != 6 or encoder.space != "w_plus":
        raise LatentMismatch(
            f"ReStyle needs an encoder with 6 input channels that gives a w_plus, not one with {encoder.in_channels} that"
            f" gives a {encoder.space}"
        )
    batch = image.shape[0]
    latent = encoder.w_avg.expand(1, encoder.num_ws, encoder.w_dim)
    drawn = generator.synthesis(latent).expand(batch, -1, -1, -1)  # All start from the mean face.
    for _ in range(steps or encoder.looks):
        latent = latent + change(encoder, image, resize(drawn, encoder.input_resolution), encoder.w_avg)
        drawn = generator.synthesis(latent)
        yield latent, drawn


def change(
    encoder: nn.Module,
    image: Float[Tensor, "batch 3 side side"],
    drawn: Float[Tensor, "batch 3 side side"],
    w_avg: Float[Tensor, "*layers w_dim"],
) -> WPlus:
    """Take one look: return what an encoder finds in faces that is not in what was drawn of them so far."""
    return encoder(torch.cat([image, drawn], dim=1)) - w_avg
