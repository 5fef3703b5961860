"""Which encoders are made for CPUs? The field's kinds on one backbone, nearly alike in size, so that they compare."""

from __future__ import annotations

from typing import Any

from encoders.stylemap import StyleMapEncoder
from generators.errors import UnknownName

COMPACT: dict[str, dict[str, Any]] = {
    "psp": {"sizes": (1, 1, 1)},  # Richardson et al. 2021, arXiv:2008.00951: one vector a layer.
    "e4e": {"sizes": (1, 1, 1), "deltas": True},  # Tov et al. 2021, arXiv:2102.02766: one vector, and deltas from it.
    # Alaluf et al. 2021, arXiv:2104.02699: pSp, in several looks; heads half as wide, since each look has less to say.
    "restyle": {"sizes": (1, 1, 1), "in_channels": 6, "width": 128, "looks": 3},
    "stylemap": {"sizes": (8, 16, 16)},  # Honda et al.'s, whose maps are 2 and 4 px, with vectors for the fine layers.
    # The same, taught to stay editable (``invert.training.RECIPES``), which corrects itself; 7 % more weights.
    "stylemap-e": {"sizes": (8, 16, 16), "looks": 3, "context": 64},
}
"""Arguments of ``StyleMapEncoder`` by kind."""


def compact_encoder(kind: str, num_ws: int = 16, w_dim: int = 512, **arguments: Any) -> StyleMapEncoder:
    """Build an untrained encoder.

    Args:
        kind: ``psp``, ``e4e``, ``restyle``, ``stylemap`` or ``stylemap-e``.
        num_ws: layers of the generator.
        w_dim: width of a style.
        **arguments: more of ``StyleMapEncoder``, such as other ``sizes``.

    Raises:
        UnknownName: no such kind.
    """
    if kind not in COMPACT:
        raise UnknownName("kind of encoder", kind, COMPACT)
    return StyleMapEncoder(num_ws, w_dim, **(COMPACT[kind] | arguments))
