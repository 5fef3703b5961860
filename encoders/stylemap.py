"""The StyleMap encoder: an image becomes a code that keeps, in its coarse layers, where things are.

Reference: Honda et al., "Image Editing and Evaluation by GAN Inversion using StyleMap", section 3. As in pSp (Richardson et
al. 2021, arXiv:2008.00951) a feature pyramid feeds three levels of layers; but the heads (Map2Map) stop their down-sampling
early, so that the coarse and middle levels end in small maps of styles instead of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.backbone import BACKBONES
from encoders.base import Encoder, add_deltas
from generators.errors import UnknownName
from generators.latent import COARSE, FINE, MIDDLE, Latent, StyleMap

Image256 = Float[Tensor, "batch {self.in_channels} 256 256"]


class DownBlock(nn.Module):
    """Halve a feature map, or keep its size: a strided convolution beside a pooled shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)  # Starts as a plain pooled projection, which trains from the first step on.

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out_c _ _"]:
        """Return the size divided by the stride."""
        y = self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))
        return y + self.shortcut(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)


class Map2Map(nn.Module):
    """Turn a level's features into style maps of ``size`` px, one for each of its layers.

    Three halvings, as in Honda et al. figure 3, or as few as larger maps leave room for; what is left (none for the paper's
    coarse and middle sizes) is pooled.
    """

    def __init__(self, in_channels: int, num_layers: int, size: int, w_dim: int, width: int, in_resolution: int) -> None:
        super().__init__()
        self.num_layers, self.size, self.w_dim = num_layers, size, w_dim
        widths = (in_channels, width // 2, width, width)
        halvings = (in_resolution // size).bit_length() - 1
        blocks = (DownBlock(a, b, stride=2 if k < halvings else 1) for k, (a, b) in enumerate(pairwise(widths)))
        self.down = nn.Sequential(*blocks)
        self.mix = nn.Conv2d(width, width, 1)
        self.to_styles = nn.Conv2d(width, num_layers * w_dim, 1)
        # The first codes are w_avg plus little: a face from the first step on.
        nn.init.normal_(self.to_styles.weight, std=0.1 / width**0.5)
        nn.init.zeros_(self.to_styles.get_parameter("bias"))

    def forward(self, x: Float[Tensor, "batch c h w"]) -> list[StyleMap]:
        """Return one map a layer, as offsets from ``w_avg``."""
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.down(x), 0.2), self.size)
        styles = self.to_styles(F.leaky_relu(self.mix(x), 0.2))
        return list(styles.unflatten(1, (self.num_layers, self.w_dim)).unbind(1))


def narrowed(head: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Make a head of fewer channels out of a trained one, which goes on learning from there.

    Args:
        head: state of a ``Map2Map``.
        width: channels at the end of the new one.

    Returns:
        Its state: of the channels of every layer those that are read with the largest weights.
    """
    kept = torch.arange(head["down.0.conv1.weight"].shape[1])
    state = {"to_styles.bias": head["to_styles.bias"]}

    def strongest(count: int, *readers: str) -> Tensor:
        norms = torch.cat([head[f"{reader}.weight"].transpose(0, 1).flatten(1) for reader in readers], dim=1).norm(dim=1)
        return norms.topk(count).indices.sort().values

    def keep(layer: str, outputs: Tensor, inputs: Tensor) -> None:
        state[f"{layer}.weight"] = head[f"{layer}.weight"][outputs][:, inputs]
        if f"{layer}.bias" in head:
            state[f"{layer}.bias"] = head[f"{layer}.bias"][outputs]

    for k, count in enumerate((width // 2, width, width)):
        readers = (f"down.{k + 1}.conv1", f"down.{k + 1}.shortcut") if k < 2 else ("mix",)
        inner, outer = strongest(count, f"down.{k}.conv2"), strongest(count, *readers)
        keep(f"down.{k}.conv1", inner, kept)
        keep(f"down.{k}.conv2", outer, inner)
        keep(f"down.{k}.shortcut", outer, kept)
        kept = outer
    last = strongest(width, "to_styles")
    keep("mix", last, kept)
    state["to_styles.weight"] = head["to_styles.weight"][:, last]
    return state


class Overview(nn.Module):
    """Add to every pixel of a map what only the whole face tells: its age, its pose, that it smiles.

    Edits move all pixels of a map alike, but its heads see little more than what lies under each pixel. At first it adds
    nothing, so that it can join an encoder that has learnt without it.
    """

    def __init__(self, in_channels: int, width: int, num_ws: int, w_dim: int, side: int = 4) -> None:
        super().__init__()
        self.side, self.num_ws = side, num_ws
        self.look = nn.Linear(in_channels * side**2, width)
        self.to_styles = nn.Linear(width, num_ws * w_dim)
        nn.init.zeros_(self.to_styles.weight)
        nn.init.zeros_(self.to_styles.bias)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> list[Float[Tensor, "batch w_dim 1 1"]]:
        """Return one style a layer."""
        grid = F.adaptive_avg_pool2d(F.leaky_relu(x, 0.2), self.side).flatten(1)
        styles = self.to_styles(F.leaky_relu(self.look(grid), 0.2))
        return list(styles.unflatten(1, (self.num_ws, -1))[..., None, None].unbind(1))


class StyleMapEncoder(Encoder):
    """Encode a 256 px face as a stylemap: coarse and middle layers as maps, fine layers as vectors.

    With ``sizes=(1, 1, 1)`` it is pSp on the same backbone and returns a w_plus; with ``deltas`` as well it is e4e. See
    ``encoders.compact`` for the kinds by name. With ``backbone="ir-se50"`` it sees what the published pSp and e4e do.
    """

    def __init__(
        self,
        num_ws: int = 16,  # Layers of the generator.
        w_dim: int = 512,  # Width of a style.
        sizes: tuple[int, int, int] = (2, 4, 1),  # Side of the coarse, middle and fine style maps.
        pyramid_channels: tuple[int, int, int] = (256, 192, 128),  # Of the coarse, middle and fine level.
        width: int = 256,  # Channels at the end of each head.
        deltas: bool = False,  # Styles are one w_0 plus deltas, which ``stage`` turns on layer by layer.
        in_channels: int = 3,  # 6: an image, and what was drawn so far (ReStyle).
        looks: int = 1,  # At a face, where nobody says: see ``encoders.feedback``.
        context: int = 0,  # Width of what a look at the whole face adds to every pixel of all maps.
        backbone: str = "compact",  # What it sees with: a key of ``encoders.backbone.BACKBONES``.
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise UnknownName("backbone", backbone, BACKBONES)
        self.looks, self.context = looks, context
        self.num_ws, self.w_dim, self.sizes = num_ws, w_dim, tuple(sizes)
        self.pyramid_channels, self.width = tuple(pyramid_channels), width
        self.deltas, self.in_channels = deltas, in_channels
        coarse, middle, fine = pyramid_channels
        self.backbone_name, self.backbone = backbone, BACKBONES[backbone](in_channels)
        c1, c2, c3 = self.backbone.out_channels
        self.top = nn.Conv2d(c3, coarse, 1)
        self.lateral2, self.lateral1 = nn.Conv2d(c2, middle, 1), nn.Conv2d(c1, fine, 1)
        self.down2, self.down1 = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        counts = [len(range(num_ws)[level]) for level in (COARSE, MIDDLE, FINE)]
        self.heads = nn.ModuleList(
            Map2Map(channels, count, size, w_dim, width, resolution)
            for channels, count, size, resolution in zip(pyramid_channels, counts, sizes, (16, 32, 64), strict=True)
            if count  # A small generator has no fine layers.
        )
        if context:
            self.overview = Overview(coarse, context, num_ws, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    @property
    def space(self) -> Literal["w_plus", "stylemap"]:
        """The space of the codes it returns."""
        return "w_plus" if set(self.sizes) == {1} else "stylemap"

    @torch.no_grad()
    def styles_to_deltas(self) -> None:
        """Turn weights learnt for styles into weights for ``deltas``: every layer begins as the first layer's mean style.

        The other coarse layers, which share its head, keep what they differ by; the deltas of finer levels begin at zero.
        """
        for name in ("weight", "bias"):
            coarse, *others = (self.get_parameter(f"heads.{k}.to_styles.{name}") for k in range(len(self.heads)))
            styles = coarse.unflatten(0, (-1, self.w_dim))
            styles[1:] -= styles[:1].clone()
            for deltas in others:
                nn.init.zeros_(deltas)

    def features(
        self, image: Image256
    ) -> tuple[Float[Tensor, "batch c1 64 64"], Float[Tensor, "batch c2 32 32"], Float[Tensor, "batch c3 16 16"]]:
        """Return the backbone's features at strides 4, 8 and 16; a perceptual distance can be taken in them."""
        return self.backbone(image)

    def forward(self, image: Image256) -> Latent:
        """Encode faces in [-1, 1], aligned like FFHQ."""
        c1, c2, c3 = self.backbone(image)
        p3 = self.top(c3)
        p2 = self.lateral2(c2) + self.down2(F.interpolate(p3, scale_factor=2, mode="bilinear", align_corners=False))
        p1 = self.lateral1(c1) + self.down1(F.interpolate(p2, scale_factor=2, mode="bilinear", align_corners=False))
        maps = [style for head, level in zip(self.heads, (p3, p2, p1), strict=False) for style in head(level)]
        if self.context:
            maps = [style + offset for style, offset in zip(maps, self.overview(p3), strict=True)]
        if self.deltas:
            maps = add_deltas(maps, self.stage)
        # Laid out as they are read from a file: another order would draw with another rounding.
        maps = [(style + self.w_avg[:, None, None]).contiguous() for style in maps]
        if self.space == "w_plus":
            return torch.stack([style[:, :, 0, 0] for style in maps], dim=1)
        return tuple(maps)
