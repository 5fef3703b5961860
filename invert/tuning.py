"""How is the rest of a likeness found, when the code has given all that it can? By tuning the generator itself, a little.

Pivotal tuning: the code stays where it is (the pivot), and the weights of a copy of the generator move until it draws this
face from it. Edits near the pivot work as before, since the weights have hardly moved.

Reference: Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images", arXiv:2106.05744.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.latent import Latent
from invert.inversion import Inversion, Inverter, resize
from invert.perceptual import Perceptual
from invert.projector import LOSS_RESOLUTION


@dataclass(frozen=True)
class Tuner:
    """Settings of pivotal tuning; calling it tunes a copy of the generator to some faces at once."""

    generator: Generator
    perceptual: Perceptual
    steps: int = 40
    learning_rate: float = 5e-5
    """Of Adam. At 3e-4 (Roich et al.) the first step undoes what a refined code has reached, tenfold."""
    l2_weight: float = 1.0
    perceptual_weight: float = 0.8
    detail_weight: float = 1.0
    """Of the mean squared change of what is too fine for the loss's 256 px: it has no reason to change, and would answer
    with a grid of dots."""
    on_step: Callable[[int, dict[str, float]], None] | None = None
    """Told the number of the step and its loss terms, as means over the batch."""

    def __call__(self, image: Float[Tensor, "batch 3 height width"], pivot: Latent) -> Inversion:
        """Tune to aligned faces in [-1, 1] and the codes that were found for them.

        Args:
            image: square, any size; compared at 256 px.
            pivot: codes of the faces; they are kept.

        Returns:
            The codes, what the tuned generator draws from them, and that generator: the copy with the lowest loss, also when
            the user interrupts with Ctrl-C after the first step.
        """
        target = resize(image, LOSS_RESOLUTION)
        tuned = copy.deepcopy(self.generator)
        weights = [p.requires_grad_() for p in tuned.synthesis.parameters()]  # type: ignore[attr-defined]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate, betas=(0.9, 0.99))
        best_loss, best = math.inf, copy.deepcopy(tuned.state_dict())
        history: list[dict[str, float]] = []
        interrupted = False
        try:
            for step in range(self.steps + 1):
                with torch.set_grad_enabled(step < self.steps):
                    image_now = tuned.synthesis(pivot)
                    drawn = resize(image_now, LOSS_RESOLUTION)
                    if step == 0:  # Nothing is tuned yet.
                        detail = _detail(image_now.detach())
                    terms = {
                        "mse": (drawn - target).square().mean(),
                        "perceptual": self.perceptual(drawn, target).mean(),
                        "detail": (_detail(image_now) - detail).square().mean(),
                    }
                    weights_of = {"mse": self.l2_weight, "perceptual": self.perceptual_weight, "detail": self.detail_weight}
                    loss = torch.stack([weights_of[name] * value for name, value in terms.items()]).sum()
                row = {"loss": loss.item()} | {name: value.item() for name, value in terms.items()}
                history.append(row)
                if row["loss"] < best_loss:
                    best_loss, best = row["loss"], copy.deepcopy(tuned.state_dict())
                if self.on_step is not None:
                    self.on_step(step, row)
                if step < self.steps:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        except KeyboardInterrupt:
            if not history:
                raise
            interrupted = True
        tuned.load_state_dict(best)
        tuned.requires_grad_(False)
        with torch.no_grad():
            return Inversion(pivot, tuned.synthesis(pivot), history, interrupted, tuned)


def _detail(image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Return what an image has above the resolution of the loss; nothing for one that is no larger."""
    if image.shape[-1] <= LOSS_RESOLUTION:
        return torch.zeros_like(image)
    seen = resize(image, LOSS_RESOLUTION)
    return image - F.interpolate(seen, image.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class TunedInverter:
    """Find the code by another inverter, then tune the generator to it: one face at a time, whose own the weights become."""

    inverter: Inverter
    tuner: Tuner

    def __call__(self, image: Float[Tensor, "batch 3 height width"]) -> Inversion:
        """Invert one aligned face in [-1, 1]; what the user interrupted is not tuned any more."""
        found = self.inverter(image)
        if found.interrupted:
            return found
        tuned = self.tuner(image, found.latent)
        return replace(tuned, history=found.history + tuned.history)
