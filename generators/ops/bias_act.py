"""How does a layer end? Bias, activation, gain and clamp in one op, with gradients of any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.errors import UnknownName
from generators.ops import _triton


class Activation(NamedTuple):
    """An activation and StyleGAN's defaults for it."""

    function: Callable[[Tensor, float], Tensor]
    """Of the biased input and alpha."""
    alpha: float = 0.0
    """Slope below 0, where there is one."""
    gain: float = 1.0
    """What keeps a unit-variance input at unit variance, roughly."""


ACTIVATIONS = {
    "linear": Activation(lambda u, alpha: u),
    "relu": Activation(lambda u, alpha: F.relu(u), gain=2**0.5),
    "lrelu": Activation(F.leaky_relu, alpha=0.2, gain=2**0.5),
    "tanh": Activation(lambda u, alpha: torch.tanh(u)),
    "sigmoid": Activation(lambda u, alpha: torch.sigmoid(u)),
    "elu": Activation(lambda u, alpha: F.elu(u)),
    "selu": Activation(lambda u, alpha: F.selu(u)),
    "softplus": Activation(lambda u, alpha: F.softplus(u)),
    "swish": Activation(lambda u, alpha: torch.sigmoid(u) * u, gain=2**0.5),
}


def bias_act(
    x: Float[Tensor, "*shape"],
    b: Float[Tensor, " c"] | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Float[Tensor, "*shape"]:
    """Add a bias, bend, scale and clamp.

    Args:
        x: of any shape.
        b: one number for every index of dimension ``dim``; None adds nothing.
        dim: the dimension of the channels.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: slope of lrelu below 0; None: 0.2.
        gain: applied after the activation; None: sqrt(2) for relu, lrelu and swish, else 1.
        clamp: bound of the scaled result's absolute value; None clamps nothing.
        impl: ``"auto"`` goes by device; ``"reference"``; ``"triton"``.

    Raises:
        UnknownName: no such activation or implementation.
        ValueError: the bias does not fit, or the clamp is negative.
        ImplUnavailable: ``impl="triton"`` where kernels cannot run.
    """
    if act not in ACTIVATIONS:
        raise UnknownName("activation", act, ACTIVATIONS)
    if not -x.ndim <= dim < x.ndim or (b is not None and b.shape != (x.shape[dim],)):
        got = "" if b is None else f", with a bias of shape {tuple(b.shape)}"
        raise ValueError(f"expected a dimension of {tuple(x.shape)} and a bias that fits it, got dim={dim}{got}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp={clamp}: expected a bound of at least 0, or None")
    default = ACTIVATIONS[act]
    alpha = default.alpha if alpha is None else float(alpha)
    gain = default.gain if gain is None else float(gain)
    _triton.choose("bias_act", impl, x)
    return _reference(x, b, dim, act, alpha, gain, clamp)


def _reference(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None) -> Tensor:
    """Follow the definition step by step."""
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    x = ACTIVATIONS[act].function(x, alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
