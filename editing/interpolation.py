"""What lies between two faces? Straight lines in W, W+ and stylemaps, great circles in Z, paths through several points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from editing.errors import EditError
from editing.matching import AnyLatent, like_sources, match_latents
from generators.errors import LatentMismatch, UnknownName
from generators.latent import Latent

Share: TypeAlias = float | int
"""How far along: 0 is the first end, 1 the second."""

EASES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),
    "in": lambda t: t * t,
    "out": lambda t: t * (2 - t),
}
"""How speed changes on the way from one point to the next: not, slow at both ends, at the start, at the end."""


def lerp(a: AnyLatent, b: AnyLatent, t: Share) -> Latent:
    """Interpolate linearly: ``a`` at 0 and ``b`` at 1, both exactly; other numbers go beyond.

    A map of 1x1 stands for a map of any size that is the same everywhere.

    Args:
        a: a batch, or a single code for all of ``b``.
        b: the same, the other way round, of the same layers.
        t: how far along.

    Returns:
        A w_plus of two of them, else a stylemap.

    Raises:
        LatentMismatch: the two differ in layers, widths or batches, or their maps in sizes.
        EditError: ``t`` is NaN or infinite.
    """
    if not math.isfinite(t):
        raise EditError(f"t={t}: expected a finite number, 0 for the first code, 1 for the second")
    maps_a, maps_b = match_latents([a, b])
    moved = []
    for layer, (of_a, of_b) in enumerate(zip(maps_a, maps_b, strict=True)):
        sizes = {tuple(of.shape[2:]) for of in (of_a, of_b)} - {(1, 1)}
        if len(sizes) > 1:
            raise LatentMismatch(
                f"layer {layer}: maps of {of_a.shape[2:]} and {of_b.shape[2:]} have no straight line between"
            )
        start, end = torch.broadcast_tensors(of_a, of_b)
        moved.append(torch.lerp(start, end, float(t)))
    return like_sources([a, b], moved)


def slerp(a: Float[Tensor, "batch z_dim"], b: Float[Tensor, "batch z_dim"], t: Share) -> Float[Tensor, "batch z_dim"]:
    """Interpolate along a great circle, for codes of Z, which lie near a sphere; lengths change linearly.

    Args:
        a: codes before the mapping network.
        b: as many.
        t: how far along, 0 for ``a``, 1 for ``b``, both exactly.

    Raises:
        EditError: ``t`` is NaN or infinite, a code is zero, or two point in opposite directions, so that no way is shortest.

    Reference: Shoemake 1985, "Animating rotation with quaternion curves"; White 2016, arXiv:1609.04468, section 2.1.
    """
    if not math.isfinite(t):
        raise EditError(f"t={t}: expected a finite number, 0 for the first code, 1 for the second")
    length_a, length_b = (z.double().norm(dim=1, keepdim=True) for z in (a, b))
    if not bool(torch.cat([length_a, length_b]).gt(0).all()):
        raise EditError("a code of Z is zero, so that it has no direction")
    unit_a, unit_b = a / length_a, b / length_b
    # atan2 is exact for small angles too, where acos of a cosine is not.
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=1, keepdim=True), (unit_a + unit_b).norm(dim=1, keepdim=True))
    if bool((angle > math.pi - 1e-6).any()):
        raise EditError("two codes of Z point in opposite directions: no way between them is shortest; put a point between")
    sin = angle.sin()
    is_flat = sin < 1e-9
    share_a = torch.where(is_flat, 1 - t, ((1 - t) * angle).sin() / sin.clamp(min=1e-9))
    share_b = torch.where(is_flat, t, (t * angle).sin() / sin.clamp(min=1e-9))
    on_way = (share_a * unit_a + share_b * unit_b) * torch.lerp(length_a, length_b, float(t))
    exact = {0.0: a, 1.0: b}.get(float(t))
    return on_way.to(a.dtype) if exact is None else exact


def path(num_points: int, frames: int, ease: str = "linear", loop: bool = False) -> list[tuple[int, float]]:
    """Spread frames over a way through points, each of which is met exactly.

    Args:
        num_points: at least 2.
        frames: of the whole way, at least one a point.
        ease: of ``EASES``, for every stretch between two points.
        loop: go back to the first point; the last frame is then the one before it, so that the film can start anew.

    Returns:
        For each frame the number of the point behind it and how far it is to the next, from 0 to below 1; without ``loop``
        the last frame is (``num_points`` - 2, 1.0).

    Raises:
        EditError: too few points or frames.
        UnknownName: no such ease.
    """
    if ease not in EASES:
        raise UnknownName("ease", ease, EASES)
    if num_points < 2:
        raise EditError(f"interpolation between {num_points} points: expected at least 2")
    if frames < num_points:
        raise EditError(f"{frames} frames for {num_points} points: expected at least one a point")
    stretches = num_points if loop else num_points - 1
    last = frames if loop else frames - 1
    at = [round(i * last / stretches) for i in range(stretches + 1)]
    steps = [(i, EASES[ease](k / (end - start))) for i, (start, end) in enumerate(pairwise(at)) for k in range(end - start)]
    return steps if loop else [*steps, (stretches - 1, 1.0)]


def interpolate(points: Sequence[AnyLatent], frames: int, ease: str = "linear", loop: bool = False) -> Iterator[Latent]:
    """Give the latents on straight lines through points, one by one; see ``path``.

    Raises:
        EditError: too few points or frames.
        LatentMismatch: the points do not go together; see ``lerp``.
        UnknownName: no such ease.
    """
    steps = path(len(points), frames, ease, loop)
    for a, b in pairwise(points):
        lerp(a, b, 0)  # Before the first frame, not in the middle of a film.
    return (lerp(points[i], points[(i + 1) % len(points)], t) for i, t in steps)


def interpolate_z(
    points: Sequence[Float[Tensor, "batch z_dim"]], frames: int, ease: str = "linear", loop: bool = False
) -> Iterator[Float[Tensor, "batch z_dim"]]:
    """Give the codes on great circles through points of Z, one by one; see ``path``.

    Raises:
        EditError: too few points or frames, or points without a shortest way between; see ``slerp``.
        UnknownName: no such ease.
    """
    steps = path(len(points), frames, ease, loop)
    stretches = pairwise([*points, points[0]]) if loop else pairwise(points)
    for a, b in stretches:
        slerp(a, b, 0)
    return (slerp(points[i], points[(i + 1) % len(points)], t) for i, t in steps)
