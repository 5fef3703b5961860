"""How is a code found without an encoder, or polished after one? By gradient descent on the code itself.

The squared difference and the perceptual distance at 256 px are minimised, plus a pull towards the mean of W. The learning
rate falls over the last quarter (Karras et al. 2020, arXiv:1912.04958, appendix D). Every face of a batch keeps the best
code that it had, so stopping early loses nothing.

Styles move along W's principal axes (Zhu et al. 2020, arXiv:2012.09036, without their inverse activation), by ``Padam``: a
step is as long as W is wide there and as the picture depends on it, so that codes come closer in fewer steps and stay nearer
to where the generator draws faces. The many styles of maps are moved by Adam as they are.
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
from invert.inversion import Inversion, check_faces, resize
from invert.padam import Padam
from invert.perceptual import Perceptual

SPACES = ("w", "w_plus", "stylemap")
LOSS_RESOLUTION = 256
LEARNING_RATES = {"w": 0.1, "w_plus": 0.3, "stylemap": 0.015}
"""By space. Maps have hundreds of times as many numbers: at a vector's rate they paint the face, and edits do nothing any
more; at their own they come as close, and stay where edits work."""
W_AVG_WEIGHTS = {"w": 0.05, "w_plus": 1e-3, "stylemap": 1e-3}
"""By space. W's codes are about as likely as a normal distribution says, and found sooner when that is known."""
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
    learning_rate: float | None = None
    """Of W in standard deviations along its axes, of W+ in geometric means of these and W's overall one, of maps in units
    of W; None: that of ``LEARNING_RATES``."""
    l2_weight: float = 1.0
    perceptual_weight: float = 0.8
    w_avg_weight: float | None = None
    """Of the mean squared distance to ``w_avg``, in W in standard deviations along its axes, else in units of its variance;
    None: that of ``W_AVG_WEIGHTS``."""
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
            ImageError: see ``check_faces``.
        """
        check_faces(image)
        target = resize(image, LOSS_RESOLUTION)
        variables, build = self._variables(image.shape[0], start)
        shares = [self._share(layer) if len(variables) > 1 else 1.0 for layer in range(len(variables))]
        groups = [{"params": [variable], "share": share} for variable, share in zip(variables, shares, strict=True)]
        moved = "stylemap" if variables[0].ndim == 4 else "w" if len(variables) == 1 else "w_plus"
        rate = LEARNING_RATES[moved] if self.learning_rate is None else self.learning_rate
        pull = W_AVG_WEIGHTS[moved] if self.w_avg_weight is None else self.w_avg_weight
        weights = {"mse": self.l2_weight, "perceptual": self.perceptual_weight, "w_avg": pull}
        optimizer = torch.optim.Adam(groups, 0.0, betas=(0.9, 0.99)) if moved == "stylemap" else Padam(groups, 0.0)
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
                        "w_avg": self._distance_to_mean(latent),
                    }
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
                        group["lr"] = rate * group["share"] * self._ramp(step)
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
    def _variance(self) -> float:
        """W's variance: measured once, since a video calls for every frame."""
        return self.generator.w_variance()

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """W's axes and its spread along them."""
        return self.generator.w_axes()

    def _variables(self, batch: int, start: Latent | None) -> tuple[list[Tensor], Callable[[list[Tensor]], Latent]]:
        """Return what is optimised, a tensor a layer, and how a latent is built from it."""
        num_ws, w_avg = self.generator.num_ws, self.generator.w_avg
        if start is None:
            if self.space == "stylemap":
                raise LatentMismatch(
                    "the projector needs a start with maps to work on a stylemap: use --method stylemap --refine"
                )
            return self._along_axes(w_avg.repeat(batch, num_ws if self.space == "w_plus" else 1, 1))
        maps = check_latent(start, num_ws, self.generator.w_dim)
        if batch_size(start) != batch:
            raise LatentMismatch(f"{batch} images, but {batch_size(start)} codes to start from")
        if self.space == "w":
            spread, axes = self._axes
            w = torch.stack([style.detach().mean((2, 3)) for style in maps]).mean(0)
            along = self._deviations(w).clamp(-FARTHEST, FARTHEST)
            return self._along_axes((w_avg + along * spread @ axes)[:, None])
        if isinstance(start, Tensor):
            return self._along_axes(start.detach())
        return [style.detach().clone().requires_grad_() for style in maps], lambda v: tuple(v)

    def _along_axes(
        self, codes: Float[Tensor, "batch layers w_dim"]
    ) -> tuple[list[Tensor], Callable[[list[Tensor]], Latent]]:
        """Move codes, all layers by one style or each by its own, along W's axes."""
        spread, axes = self._axes
        # Photos lie outside of W, along its thin axes, too: there, W+ goes further than W is wide.
        unit = spread if codes.shape[1] == 1 else (spread * spread.square().mean().sqrt()).sqrt()

        def build(moves: list[Tensor]) -> Tensor:
            return (codes + (torch.stack(moves, dim=1) * unit) @ axes).expand(-1, self.generator.num_ws, -1)

        return [torch.zeros_like(style).requires_grad_() for style in codes.unbind(1)], build

    def _deviations(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Return codes of W in standard deviations along its axes."""
        spread, axes = self._axes
        return (w - self.generator.w_avg) @ axes.T / spread

    def _share(self, layer: int) -> float:
        """Return a layer's share of the learning rate: layers 7 and 8 work at 64 px, 9 and 10 at 128, ..."""
        return self.fine_rate ** max(0, (layer - 5) // 2)

    def _ramp(self, step: int) -> float:
        """Return the share of the learning rate: cosine down over the last 25 %."""
        return 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - step / self.steps) / 0.25))

    def _distance_to_mean(self, latent: Latent) -> Float[Tensor, " batch"]:
        w_avg = self.generator.w_avg
        if not isinstance(latent, Tensor):
            squares = [(style - w_avg[:, None, None]).square().mean((1, 2, 3)) for style in latent]
            return torch.stack(squares).mean(0) / self._variance
        if self.space == "w":
            return self._deviations(latent[:, 0]).square().mean(1)
        return (latent - w_avg).square().mean((1, 2)) / self._variance
