"""What must every generator offer? The contract that encoders, the projector, edits and the command line rely on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from generators.latent import Latent, WPlus

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

    @property
    def w_avg(self) -> Float[Tensor, " w_dim"]:
        """The mean of W, where truncation, encoders and the projector start from."""
        return self.mapping.w_avg

    @property
    def style_resolutions(self) -> tuple[int, ...]:
        """Side of the features that each style works on: two styles a resolution, after one for the lowest."""
        return tuple(min(4 * 2 ** ((layer + 1) // 2), self.img_resolution) for layer in range(self.num_ws))

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draw images of random faces."""
        return self.synthesis(self.mapping(z, truncation_psi, truncation_cutoff))
