"""Which encoder is meant by a kind and a backbone? The compact ones, or the papers' own networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from encoders.backbone import BACKBONES
from encoders.base import Encoder
from encoders.compact import COMPACT, compact_encoder
from encoders.e4e import Encoder4Editing
from encoders.psp import GradualStyleEncoder, PublishedEncoder
from encoders.restyle import BackboneEncoder
from generators.errors import ToolkitError, UnknownName

PUBLISHED: dict[str, Callable[[int, int], PublishedEncoder]] = {
    "psp": GradualStyleEncoder,
    "e4e": Encoder4Editing,
    "restyle": BackboneEncoder,
}
"""Networks of IR-SE50 whose files others publish, by kind."""


def build_encoder(
    kind: str, backbone: str = "compact", num_ws: int = 16, w_dim: int = 512, sizes: tuple[int, int, int] | None = None
) -> Encoder:
    """Build an untrained encoder.

    Args:
        kind: of ``encoders.compact``.
        backbone: a key of ``encoders.backbone.BACKBONES``; with ``ir-se50`` the kinds of ``PUBLISHED`` are those networks,
            and the others the StyleMap encoder on it.
        num_ws: layers of the generator.
        w_dim: width of a style.
        sizes: of the coarse, middle and fine style maps; None: the kind's own.

    Raises:
        UnknownName: no such kind or backbone.
        ToolkitError: maps of a kind and backbone that have none.
    """
    if kind not in COMPACT:
        raise UnknownName("kind of encoder", kind, COMPACT)
    if backbone not in BACKBONES:
        raise UnknownName("backbone", backbone, BACKBONES)
    if backbone == "ir-se50" and kind in PUBLISHED:
        if sizes is not None:
            raise ToolkitError(
                f"{kind} on {backbone} gives one style a layer: leave the sizes of maps out, or take stylemap"
            )
        return PUBLISHED[kind](num_ws, w_dim)
    arguments: dict[str, Any] = {} if sizes is None else {"sizes": sizes}
    return compact_encoder(kind, num_ws, w_dim, backbone=backbone, **arguments)
