"""How is a code found without an encoder, or polished after one? By gradient descent on the code itself.

Adam minimises the squared difference and the perceptual distance at 256 px, plus a pull towards the mean of W. The learning
rate rises over the first steps and falls over the last quarter (Karras et al. 2020, arXiv:1912.04958, appendix D). Every
face of a batch keeps the best code that it had, so stopping early loses nothing.

In W the variables are standard deviations along W's principal axes (Zhu et al. 2020, arXiv:2012.09036, without their inverse
activation): a step is as long as W is wide there, which converges faster and stays where the generator draws faces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.errors import LatentMismatch, UnknownName
from generators.latent import Latent, batch_size, check_latent
from invert.inversion import Inversion, resize
from invert.perceptual import Perceptual

SPACES = ("w", "w_plus", "stylemap")
LOSS_RESOLUTION = 256
FARTHEST = 4.0
"""Standard deviations along an axis of W from which a start is brought back: nothing is drawn well from out there."""


@dataclass(frozen=True)
class Projector:
    """Settings of the optimisation; calling it inverts a batch of faces."""

    generator: Generator
    perceptual: Perceptual
    space: str = "w_plus"
    """``w``: one vector for all layers, stays editable (of a start, the mean is taken); ``w_plus``: one for each, looks
    closer; ``stylemap``: only from a start that has maps."""
    steps: int = 100
    learning_rate: float = 0.1
    l2_weight: float = 1.0
    perceptual_weight: float = 0.8
    w_avg_weight: float = 1e-3
    """Of the mean squared distance to ``w_avg``, in units of W's variance."""
    fine_rate: float = 0.65
    """Share of the learning rate that is left at every doubling of the resolution from 64 px on. The loss at 256 px does not
    see the finest layers, and at the full rate they answer it with a grid of dots at 1024 px."""
    on_step: Callable[[int, dict[str, float]], None] | None = None
    """Told the number of the step and its loss terms, as means over the batch."""

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UnknownName("space", self.space, SPACES)
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, not {self.steps}")

    def __call__(self, image: Float[Tensor, "batch 3 height width"], start: Latent | None = None) -> Inversion:
        """Project aligned faces in [-1, 1].

        Args:
            image: square, any size; compared at 256 px.
            start: codes to begin with (an encoder's); their space is kept, unless it is to be W. None: ``w_avg``.

        Returns:
            The best code of each face; also when the user interrupts with Ctrl-C after the first step.

        Raises:
            LatentMismatch: the start does not fit the images or the generator.
            UnknownName: there is no such space.
        """
        target = resize(image, LOSS_RESOLUTION)
        variables, build = self._variables(image.shape[0], start)
        shares = [self._share(layer) if len(variables) > 1 else 1.0 for layer in range(len(variables))]
        groups = [{"params": [variable], "share": share} for variable, share in zip(variables, shares, strict=True)]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        best_loss = torch.full((image.shape[0],), math.inf, device=image.device)
        best = [variable.detach().clone() for variable in variables]
        history: list[dict[str, float]] = []
        interrupted = False
        try:
            # One round more than steps: the last one only looks at what the last step reached.
            for step in range(self.steps + 1):
                with torch.set_grad_enabled(step < self.steps):
                    latent = build(variables)
                    drawn = resize(self.generator.synthesis(latent), LOSS_RESOLUTION)
                    terms = {
                        "mse": (drawn - target).square().mean((1, 2, 3)),
                        "perceptual": self.perceptual(drawn, target),
                        "w_avg": self._distance_to_mean(latent) / self._spread,
                    }
                    weights = {"mse": self.l2_weight, "perceptual": self.perceptual_weight, "w_avg": self.w_avg_weight}
                    loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum(0)
                better = loss.detach() < best_loss
                best_loss = torch.where(better, loss.detach(), best_loss)
                for kept, variable in zip(best, variables, strict=True):
                    kept[better] = variable.detach()[better]
                row = {"loss": loss.mean().item()} | {name: value.mean().item() for name, value in terms.items()}
                history.append(row)
                if self.on_step is not None:
                    self.on_step(step, row)
                if step < self.steps:
                    for group in optimizer.param_groups:
                        group["lr"] = self.learning_rate * group["share"] * self._ramp(step, cold=start is None)
                    optimizer.zero_grad()
                    loss.sum().backward()
                    optimizer.step()
        except KeyboardInterrupt:
            if not history:
                raise
            interrupted = True
        with torch.no_grad():
            latent = build(best)
            return Inversion(latent, self.generator.synthesis(latent), history, interrupted)

    @cached_property
    def _spread(self) -> float:
        """W's variance: measured once, since a video calls for every frame."""
        return self.generator.w_variance()

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """W's axes and its spread along them."""
        return self.generator.w_axes()

    def _variables(self, batch: int, start: Latent | None) -> tuple[list[Tensor], Callable[[list[Tensor]], Latent]]:
        """Return what is optimised, and how a latent is built from it."""
        num_ws = self.generator.num_ws
        if start is None:
            if self.space == "stylemap":
                raise LatentMismatch(
                    "the projector needs a start with maps to work on a stylemap: use --method stylemap --refine"
                )
            w_avg = self.generator.w_avg.clone()
            if self.space == "w":
                return self._along_axes(w_avg.repeat(batch, 1))
            return [w_avg.repeat(batch, 1).requires_grad_() for _ in range(num_ws)], lambda v: torch.stack(v, dim=1)
        maps = check_latent(start, num_ws, self.generator.w_dim)
        if batch_size(start) != batch:
            raise LatentMismatch(f"{batch} images, but {batch_size(start)} codes to start from")
        if self.space == "w":
            return self._along_axes(torch.stack([style.detach().mean((2, 3)) for style in maps]).mean(0))
        if isinstance(start, Tensor):
            return [w.detach().clone().requires_grad_() for w in start.unbind(1)], lambda v: torch.stack(v, dim=1)
        return [style.detach().clone().requires_grad_() for style in maps], lambda v: tuple(v)

    def _along_axes(self, w: Float[Tensor, "batch w_dim"]) -> tuple[list[Tensor], Callable[[list[Tensor]], Latent]]:
        """Begin with codes of W, in standard deviations along its axes."""
        w_avg, (spread, axes) = self.generator.w_avg, self._axes
        along = ((w - w_avg) @ axes.T / spread).clamp(-FARTHEST, FARTHEST)

        def build(variables: list[Tensor]) -> Tensor:
            return (w_avg + (variables[0] * spread) @ axes)[:, None].expand(-1, self.generator.num_ws, -1)

        return [along.requires_grad_()], build

    def _share(self, layer: int) -> float:
        """Return a layer's share of the learning rate: layers 7 and 8 work at 64 px, 9 and 10 at 128, ..."""
        return self.fine_rate ** max(0, (layer - 5) // 2)

    def _ramp(self, step: int, cold: bool) -> float:
        """Return the share of the learning rate: up over the first 5 % (cold start), cosine down over the last 25 %."""
        progress = step / self.steps
        down = min(1.0, (1 - progress) / 0.25)
        up = min(1.0, (step + 1) / max(1.0, 0.05 * self.steps)) if cold else 1.0
        return up * (0.5 - 0.5 * math.cos(math.pi * down))

    def _distance_to_mean(self, latent: Latent) -> Float[Tensor, " batch"]:
        if isinstance(latent, Tensor):
            return (latent - self.generator.w_avg).square().mean((1, 2))
        w_avg = self.generator.w_avg[:, None, None]
        return torch.stack([(style - w_avg).square().mean((1, 2, 3)) for style in latent]).mean(0)
