"""How do two faces share their styles? Some layers of one, the rest of the other.

Reference: Karras et al. 2019, "StyleGAN", arXiv:1812.04948, section 3.1 and figure 3: coarse styles carry pose, hair style
and face shape, middle ones facial features and eyes, fine ones colours and micro structure.
"""

from __future__ import annotations

from collections.abc import Collection

from editing.errors import EditError
from editing.layers import parse_layers
from editing.matching import AnyLatent, like_sources, match_latents
from generators.latent import Latent, batch_size, select


def mix(a: AnyLatent, b: AnyLatent, layers: Collection[int] | str) -> Latent:
    """Take the styles of some layers from ``b`` and the rest from ``a``.

    Args:
        a: a batch, or a single code for all of ``b``.
        b: the same, the other way round; its maps may have other sizes.
        layers: that come from ``b``: numbers, or text that ``parse_layers`` reads, such as ``coarse`` or ``0-3``.

    Returns:
        A w_plus of two of them, else a stylemap.

    Raises:
        LatentMismatch: the two have different layers, widths or batches, or are no latents.
        EditError: no layers, or layers that there are not.
        UnknownName: the text names no layers.
    """
    maps_a, maps_b = match_latents([a, b])
    if isinstance(layers, str):
        layers = parse_layers(layers, len(maps_a))
    if not layers or not set(layers) <= set(range(len(maps_a))):
        raise EditError(f"layers {sorted(layers)}: expected some of 0 to {len(maps_a) - 1}")
    pairs = zip(maps_a, maps_b, strict=True)
    return like_sources([a, b], [of_b if layer in layers else of_a for layer, (of_a, of_b) in enumerate(pairs)])


def mix_grid(a: AnyLatent, b: AnyLatent, layers: Collection[int] | str) -> list[Latent]:
    """Mix every code of ``a`` with every code of ``b``: one batch for each of ``a``, in the order of ``b``.

    Reference: Karras et al. 2019, arXiv:1812.04948, figure 3.

    Raises:
        LatentMismatch: see ``mix``.
        EditError: see ``mix``.
        UnknownName: see ``mix``.
    """
    return [mix(select(a, i), b, layers) for i in range(batch_size(a))]
