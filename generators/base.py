"""What must every generator offer? The contract that encoders, the projector, edits and the command line rely on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.latent import Latent, WPlus

FEATURE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FLOAT32_UP_TO = 32
"""Resolution up to which features stay float32 whatever others are computed in: 5 % of the arithmetic of 1024 px, but errors
made early grow (256 px, random weights, bfloat16 from 4 px on: 40.7 dB PSNR from float32; from 64 px on: 47.9 dB)."""
NoiseMode: TypeAlias = Literal["const", "random", "none"]
"""Injected noise: the network's own constants, fresh Gaussian noise, or none."""

Compose: TypeAlias = Callable[[Float[Tensor, "batch c _ _"]], Float[Tensor, "batch c _ _"]]
"""Told the features of each resolution, and where colours are added up these too; what it returns is drawn on from."""


@dataclass(frozen=True)
class Identity:
    """Which weights these are: what a latent or a direction is bound to."""

    name: str = "unnamed"
    sha256: str = ""
    """Of the published file that the weights came from; empty for weights from nowhere."""

    def fits(self, other: Identity) -> bool:
        """Tell whether latents of one work in the other."""
        return self.sha256 == other.sha256 if self.sha256 and other.sha256 else self.name == other.name

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})" if self.sha256 else self.name


def dtype_at(resolution: int, feature_dtype: torch.dtype | None, weight_dtype: torch.dtype) -> torch.dtype:
    """Return what the features of a resolution are computed in."""
    return weight_dtype if feature_dtype is None or resolution <= FLOAT32_UP_TO else feature_dtype


@runtime_checkable
class Mapping(Protocol):
    """The mapping network of a generator."""

    @property
    def w_avg(self) -> Float[Tensor, " w_dim"]:
        """The mean of W."""

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> WPlus:
        """Map z to w_plus."""

    def w(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Map z to W, without truncation."""


@runtime_checkable
class Synthesis(Protocol):
    """The synthesis network of a generator."""

    feature_dtype: torch.dtype | None
    """What features are computed in; None: the type of the weights."""

    def __call__(
        self, latent: Latent, noise_mode: NoiseMode = "const", compose: Compose | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images, nominally in [-1, 1]; ``compose`` may change features on the way."""

    def features(
        self, latent: Latent, resolution: int, noise_mode: NoiseMode = "const"
    ) -> Float[Tensor, "batch c height width"]:
        """Return the features of one resolution."""


class Generator(nn.Module):
    """Base of all generators.

    Subclasses set ``mapping`` and ``synthesis`` and the four numbers below.
    """

    mapping: Mapping
    synthesis: Synthesis
    img_resolution: int
    """Side of its images in pixels."""
    num_ws: int
    """Layers that take a style."""
    w_dim: int
    """Width of a style."""
    z_dim: int
    """Width of the input noise."""
    identity: Identity = Identity()
    source: str = ""
    """The file that it was read from; those of pSp, e4e and ReStyle hold its encoder, too."""

    def compute_in(self, dtype: torch.dtype) -> Generator:
        """Compute features above 32 px in float32 (as at first), bfloat16 or float16, and return the generator itself.

        Weights, styles and the image stay float32, so that latents and gradients do, too. bfloat16 is
        some 43 dB PSNR from float32, and 1.7 times as fast on one CPU with AVX-512 BF16, 0.9 times on another. float16 is
        for GPUs.

        Raises:
            ValueError: another type.
        """
        if dtype not in FEATURE_DTYPES:
            names = ", ".join(str(known).removeprefix("torch.") for known in FEATURE_DTYPES)
            raise ValueError(f"features cannot be computed in {dtype}: expected one of {names}")
        self.synthesis.feature_dtype = None if dtype == torch.float32 else dtype
        return self

    @property
    def w_avg(self) -> Float[Tensor, " w_dim"]:
        """The mean of W, where truncation, encoders and the projector start from."""
        return self.mapping.w_avg

    @torch.no_grad()
    def w_variance(self) -> float:
        """Return W's mean squared distance from its mean, a number wide, over 4,096 samples: the unit of terms on codes."""
        return float(self._w_offsets().square().mean())

    @torch.no_grad()
    def w_axes(self) -> tuple[Float[Tensor, " w_dim"], Float[Tensor, "w_dim w_dim"]]:
        """Return W's standard deviation along each of its principal axes, and the axes as rows, of 4,096 samples.

        W is far from round (of the default generator from 2.8 down to 0.05), so that a step of one length is nothing in one
        direction and leaves W in another.
        """
        variances, axes = torch.linalg.eigh(self._w_offsets().T.cov())
        spread = variances.clamp(min=0).sqrt()
        return spread.clamp(min=1e-3 * float(spread.max())), axes.T

    def _w_offsets(self) -> Float[Tensor, "4096 w_dim"]:
        """Return how far samples of W lie from its mean."""
        z = torch.randn(4096, self.z_dim, generator=torch.Generator().manual_seed(0)).to(self.w_avg)
        return self.mapping.w(z) - self.w_avg

    @property
    def style_resolutions(self) -> tuple[int, ...]:
        """Side of the features that each style works on: two styles a resolution, after one for the lowest."""
        return tuple(min(4 * 2 ** ((layer + 1) // 2), self.img_resolution) for layer in range(self.num_ws))

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images of random faces."""
        return self.synthesis(self.mapping(z, truncation_psi, truncation_cutoff))
