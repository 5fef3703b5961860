"""How does an encoder learn? One step of it: losses on real faces, and codes and losses on faces that the generator drew.

The trainer holds networks, optimiser and moving average, and gives its whole state as one dict; where the data come from
and where checkpoints go is its caller's business.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.training.augment import misalign, random_flip, relight, soften
from generators.base import Generator
from generators.latent import Latent, as_stylemaps
from generators.preview import PreviewHead

Image = Float[Tensor, "batch 3 height width"]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Losses:
    """Weights of the terms."""

    l2: float = 1.0
    """Mean squared difference of the images in [-1, 1]."""
    lpips: float = 0.8
    """Perceptual distance (pSp's weight)."""
    code: float = 0.1
    """Squared error of the codes of sampled faces, in units of W's variance."""
    w_norm: float = 0.003
    """Squared distance of real faces' codes from w_avg, in units of W's variance."""
    roughness: float = 0.01
    """Variance of each map around its mean, in units of W's variance: maps vary only where that pays."""


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the run: linear warm-up, then a cosine down to a twentieth."""

    steps: int
    learning_rate: float = 3e-4
    warmup: int = 50

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


class EncoderTrainer:
    """Teach an encoder to invert a frozen generator.

    Image losses are taken on a preview of the generator (see ``generators.preview``), which goes on learning from what the
    whole generator draws for the encoder's own codes; without a preview, on the whole generator's image.
    """

    def __init__(
        self,
        encoder: nn.Module,
        generator: Generator,
        perceptual: Distance,
        schedule: Schedule,
        preview: PreviewHead | None = None,
        losses: Losses | None = None,
        ema: float = 0.99,
        seed: int = 0,
    ) -> None:
        self.encoder, self.generator, self.perceptual, self.preview = encoder, generator, perceptual, preview
        self.schedule, self.losses, self.ema = schedule, losses or Losses(), ema
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(encoder.parameters(), betas=(0.9, 0.99))
        self.preview_optimizer = torch.optim.Adam(preview.parameters(), lr=1e-3) if preview is not None else None
        self.random = torch.Generator().manual_seed(seed)
        self.step_number = 0
        with torch.no_grad():
            z = torch.randn(4096, generator.z_dim, generator=torch.Generator().manual_seed(0)).to(generator.w_avg)
            self.w_variance = float((generator.mapping.w(z) - generator.w_avg).square().mean())

    def draw(self, latent: Latent, resolution: int) -> Image:
        """Draw codes the way the image losses see them."""
        image: Tensor = self.generator.synthesis(latent) if self.preview is None else self.preview(self.generator, latent)
        return resize(image, resolution)

    def fit_preview(self, latent: Latent, image: Image) -> float:
        """Take one step of the preview towards what the whole generator drew; return its squared error."""
        if self.preview is None or self.preview_optimizer is None:
            raise RuntimeError("this trainer has no preview to fit")
        drawn = self.preview(self.generator, latent)
        target = resize(image, drawn.shape[-1])
        error = F.mse_loss(drawn, target)
        loss = error + 0.1 * (self.perceptual(drawn, target).mean() if self.step_number else 0)
        # Four faces now and then must not shake a preview that the encoder leans on: once, its error rose fivefold and the
        # encoder followed it astray.
        for group in self.preview_optimizer.param_groups:
            group["lr"] = 1e-3 if self.step_number == 0 else 2e-4
        self.preview_optimizer.zero_grad()
        loss.backward()
        self.preview_optimizer.step()
        return error.item()

    def step(
        self,
        real: Float[Tensor, "real 3 256 256"],
        sampled: Float[Tensor, "sampled 3 256 256"],
        codes: Float[Tensor, "sampled num_ws w_dim"],
        drawn: int | None = None,
    ) -> dict[str, float]:
        """Take one step.

        Args:
            real: aligned faces in [-1, 1] whose codes nobody knows.
            sampled: faces that the generator drew.
            codes: their codes.
            drawn: how many of the sampled faces get image losses too (None: all); the codes of all are supervised.

        Returns:
            Every term's value, before weighting.

        Raises:
            ValueError: there is no face that gets image losses.
        """
        if real.shape[0] + (sampled.shape[0] if drawn is None else drawn) == 0:
            raise ValueError("a step needs a real face, or a sampled one that is drawn")
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step_number)
        # Real faces change as a whole (any face is a fair target); sampled ones only in what the encoder sees, since their
        # codes stay those of the untouched face.
        real = relight(misalign(random_flip(real, self.random), self.random), self.random)
        seen = soften(torch.cat([real, misalign(sampled, self.random, shift=0.01, scale=0.015, roll_deg=1.0)]), self.random)
        self.encoder.train()
        latent = self.encoder(seen)
        maps = as_stylemaps(latent)
        with_image = real.shape[0] + (sampled.shape[0] if drawn is None else drawn)
        part = latent[:with_image] if isinstance(latent, Tensor) else tuple(m[:with_image] for m in latent)
        resolution = 256 if self.preview is None else 2 * self.preview.resolution
        target = resize(torch.cat([real, sampled])[:with_image], resolution)
        image = self.draw(part, resolution)
        terms = {
            "l2": F.mse_loss(image, target),
            "lpips": self.perceptual(image, target).mean(),
            "code": self._code_error([m[real.shape[0] :] for m in maps], codes),
            "w_norm": self._distance_from_w_avg([m[: real.shape[0]] for m in maps]),
            "roughness": torch.stack([(m - m.mean((2, 3), keepdim=True)).square().mean() for m in maps]).mean()
            / self.w_variance,
        }
        loss = torch.stack([getattr(self.losses, name) * value for name, value in terms.items()]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        terms["gradient"] = nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        self._update_average()
        self.step_number += 1
        return {name: float(value.detach()) for name, value in terms.items()} | {"loss": loss.item()}

    def refresh_preview(self, image: Image) -> float:
        """Let the whole generator draw the encoder's codes of some faces, and the preview learn from it."""
        with torch.no_grad():
            latent = self.encoder(image)
            drawn = self.generator.synthesis(latent)
        return self.fit_preview(latent, drawn)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs to go on exactly as if it had never stopped."""
        return {
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "preview": None if self.preview is None else self.preview.state_dict(),
            "preview_optimizer": None if self.preview_optimizer is None else self.preview_optimizer.state_dict(),
            "random": self.random.get_state(),
            "step_number": self.step_number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.preview is not None and self.preview_optimizer is not None:
            self.preview.load_state_dict(state["preview"])
            self.preview_optimizer.load_state_dict(state["preview_optimizer"])
        self.random.set_state(state["random"])
        self.step_number = state["step_number"]

    def _w_avg(self) -> Float[Tensor, "w_dim 1 1"]:
        return self.generator.w_avg[:, None, None]

    def _code_error(self, maps: list[Tensor], codes: Float[Tensor, "batch num_ws w_dim"]) -> Tensor:
        """Compare every pixel of every map with the one code that drew the face."""
        if codes.shape[0] == 0:
            return codes.new_zeros(())  # No faces have no error: a mean over them would be no number.
        errors = [(m - codes[:, layer, :, None, None]).square().mean() for layer, m in enumerate(maps)]
        return torch.stack(errors).mean() / self.w_variance

    def _distance_from_w_avg(self, maps: list[Tensor]) -> Tensor:
        """Return the squared distance of codes from w_avg, in units of W's variance; 0 for no codes."""
        if maps[0].shape[0] == 0:
            return maps[0].new_zeros(())
        return torch.stack([(m - self._w_avg()).square().mean() for m in maps]).mean() / self.w_variance

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average would be full of the first weights: let it follow faster at first.
        decay = min(self.ema, (1 + self.step_number) / (10 + self.step_number))
        for average, value in zip(self.average.parameters(), self.encoder.parameters(), strict=True):
            average.lerp_(value, 1 - decay)
        for kept, current in zip(self.average.buffers(), self.encoder.buffers(), strict=True):
            kept.copy_(current)


def resize(image: Image, resolution: int) -> Float[Tensor, "batch 3 {resolution} {resolution}"]:
    """Pool an image down, or interpolate it up, to a resolution; nothing happens where it has it."""
    if image.shape[-1] == resolution:
        return image
    if image.shape[-1] > resolution:
        return F.interpolate(image, (resolution, resolution), mode="area")
    return F.interpolate(image, (resolution, resolution), mode="bilinear", align_corners=False)
