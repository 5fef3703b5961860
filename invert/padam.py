"""How does a code go downhill fast? By steps between Adam's, of one length for every number, and the gradient's own.

Adam moves every number of a code alike, also those that the image hardly depends on: they wander, and stay where no face is
drawn. One length for a whole style moves along the steepest axes alone. Halfway between, each number's steps are divided by
the geometric mean of its own gradients' size and of its style's (Chen et al. 2018, arXiv:1806.06763, with p = 1/4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

EPS = 1e-12
"""Gradients below it are rounding errors, and move nothing."""


class Padam(torch.optim.Optimizer):
    """Partially adaptive momentum estimation, on variables whose last dimension is a style.

    Args:
        params: as every optimiser takes them.
        lr: root mean square of the first step, in the variables' own unit, if all gradients had one size.
        betas: decay of the averages of gradients and of their squares. The first is shorter than Adam's usual 0.9: with
            that, codes swing around what they look for.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.7, 0.99)
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every variable that has a gradient."""
        if closure is not None:
            raise ValueError("Padam takes no closure")
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for variable in group["params"]:
                if variable.grad is None:
                    continue
                state = self.state[variable]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(variable), square=torch.zeros_like(variable))
                state["step"] += 1
                mean = state["mean"].lerp_(variable.grad, 1 - beta1) / (1 - beta1 ** state["step"])
                square = state["square"].lerp_(variable.grad.square(), 1 - beta2) / (1 - beta2 ** state["step"])
                size = square.pow(0.25) * square.mean(-1, keepdim=True).pow(0.25)
                variable.sub_(group["lr"] * mean / (size + EPS))
