"""How does one attribute change? A direction in W: add so much of one vector to the styles of a code.

Reference: Shen et al. 2020, "InterFaceGAN", arXiv:2005.09635, section 3.1: the normal of the hyperplane that separates codes
with and without the attribute. As in e4e's released code, and unlike InterFaceGAN's own for single codes, a strength is
added to where the code stands; it is no target distance from the hyperplane.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from editing.errors import EditError
from generators.base import Identity
from generators.errors import LatentMismatch
from generators.latent import Latent, StyleMap, as_stylemaps, map_layers

Strength: TypeAlias = float | int | Float[Tensor, ""] | Float[Tensor, " batch"]
"""How far to go: one number for a whole batch, or one for each of its codes."""

Edit: TypeAlias = Callable[[Latent, Strength], Latent]
"""What turns a code into another of the same space and shape; pure, batched, and the identity at strength 0."""


@dataclass(frozen=True, eq=False)
class Direction:
    """An edit that adds ``strength * unit * vector`` to the styles of some layers, in a stylemap to every pixel.

    Attributes:
        name: what a user types.
        vector: one unit vector for all layers, or one per layer whose mean square norm is 1.
        generator: the weights in whose space it lies.
        space: ``w`` (one vector) or ``w_plus`` (one per layer).
        layers: those that it moves; None for all.
        unit: latent units per strength 1.
        sign: what a positive strength does, in words.
        learnt: how, in words.
        quality: evidence, such as held-out accuracy; JSON values only.

    Raises:
        ValueError: shape, norm or unit are not as said above.
    """

    name: str
    vector: Float[Tensor, "*num_ws w_dim"]
    generator: Identity
    space: Literal["w", "w_plus"] = "w"
    layers: tuple[int, ...] | None = None
    unit: float = 1.0
    sign: str = "unknown"
    learnt: str = "unknown"
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what it does, whatever it is called."""
        what = repr((tuple(self.vector.shape), self.layers, self.unit)).encode()
        return hashlib.sha256(what + self.vector.detach().cpu().float().numpy().tobytes()).hexdigest()

    def __post_init__(self) -> None:
        if self.vector.ndim != (1 if self.space == "w" else 2):
            raise ValueError(f"direction {self.name!r}: shape {tuple(self.vector.shape)} does not suit {self.space!r}")
        if not math.isfinite(self.unit):
            raise ValueError(f"direction {self.name!r}: its unit is {self.unit}, expected a finite number")
        norm = rms_norm(self.vector)
        if not abs(norm - 1) < 1e-3:  # So that NaN is refused, too.
            raise ValueError(f"direction {self.name!r}: the vector's norm is {norm:.4g}, expected 1; see Direction.of")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError(f"direction {self.name!r}: layers {self.layers}: expected numbers from 0, at least one")
        if self.layers is not None and self.space == "w_plus" and max(self.layers) >= len(self.vector):
            raise ValueError(f"direction {self.name!r}: layer {max(self.layers)} of {len(self.vector)} vectors")

    @classmethod
    def of(cls, name: str, vector: Float[Tensor, "*num_ws w_dim"], generator: Identity, **fields: Any) -> Direction:
        """Make a direction of a vector of any length, which becomes its unit unless one is given.

        Rows that are all equal become one vector of W, which then fits generators of the same W with more or fewer layers.

        Raises:
            ValueError: the vector is zero, not finite or of a wrong shape.
        """
        if vector.ndim not in (1, 2):
            raise ValueError(f"direction {name!r}: expected (w_dim,) or (num_ws, w_dim), got {tuple(vector.shape)}")
        vector = vector.detach().to("cpu", torch.float32)
        norm = rms_norm(vector)
        if not (math.isfinite(norm) and norm > 0):
            raise ValueError(f"direction {name!r}: a vector of norm {norm} points nowhere")
        if vector.ndim == 2 and torch.allclose(vector, vector[:1], rtol=0, atol=1e-6 * norm):
            vector = vector[0]
        fields.setdefault("unit", norm)
        return cls(name, vector / norm, generator, "w" if vector.ndim == 1 else "w_plus", **fields)

    @property
    def w_dim(self) -> int:
        """Width of the styles that it moves."""
        return self.vector.shape[-1]

    def on_layers(self, layers: tuple[int, ...] | None) -> Direction:
        """Return the same direction for other layers."""
        return replace(self, layers=layers)

    def check_generator(self, identity: Identity) -> None:
        """Refuse a generator that the direction was not learnt for.

        Raises:
            LatentMismatch: naming both.
        """
        if not self.generator.fits(identity):
            raise LatentMismatch(
                f"the direction {self.name!r} belongs to the generator {self.generator}, the latent to {identity}:"
                " directions hold in one W only; learn it anew for this generator"
            )

    def __call__(self, latent: Latent, strength: Strength) -> Latent:
        """Move a latent along the direction; strength 0 changes nothing, strengths add up.

        Gradients flow to the latent, and to a strength that is a tensor.

        Raises:
            LatentMismatch: the latent has another width or number of layers.
            EditError: the strength is NaN or infinite.
        """
        maps = as_stylemaps(latent)
        for w_dim in {style_map.shape[1] for style_map in maps}:
            self.check_shape(len(maps), w_dim)
        amount = torch.as_tensor(strength, dtype=torch.float32, device=maps[0].device) * self.unit
        if not bool(torch.isfinite(amount).all()):
            raise EditError(f"{self.name}: the strength is {strength}, expected a finite number")
        vector = self.vector.to(maps[0].device)

        def move(layer: int, style_map: StyleMap) -> StyleMap:
            if self.layers is not None and layer not in self.layers:
                return style_map
            row = vector if self.space == "w" else vector[layer]
            offset = (amount[..., None] * row)[..., None, None]  # (w_dim, 1, 1), or (batch, w_dim, 1, 1).
            return style_map + offset.to(style_map.dtype)

        return map_layers(latent, move)

    def check_shape(self, num_ws: int, w_dim: int) -> None:
        """Refuse latents of another number of layers, or width, than the direction moves.

        Raises:
            LatentMismatch: naming both.
        """
        needed = max(self.layers) + 1 if self.layers is not None else 1
        if self.space == "w_plus" and num_ws != len(self.vector):
            raise LatentMismatch(
                f"the direction {self.name!r} has {len(self.vector)} layers ({self.generator}), the latent {num_ws}"
            )
        if num_ws < needed:
            raise LatentMismatch(f"the direction {self.name!r} moves layer {needed - 1}, the latent has {num_ws} layers")
        if w_dim != self.w_dim:
            raise LatentMismatch(
                f"the direction {self.name!r} ({self.generator}) is {self.w_dim} wide, a layer of the latent {w_dim}"
            )


def rms_norm(vector: Float[Tensor, "*num_ws w_dim"]) -> float:
    """Return a vector's norm; of one vector per layer, the root of the mean square norm."""
    return float(vector.double().square().sum(-1).mean().sqrt())
