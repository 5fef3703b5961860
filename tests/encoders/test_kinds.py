"""Is every kind of encoder built on every backbone, and is it the paper's own network where there is one?"""

from __future__ import annotations

import pytest
import torch

from encoders.compact import COMPACT
from encoders.e4e import Encoder4Editing
from encoders.kinds import build_encoder
from encoders.psp import GradualStyleEncoder
from encoders.restyle import BackboneEncoder
from encoders.stylemap import StyleMapEncoder
from generators.errors import ToolkitError, UnknownName


@pytest.mark.parametrize("backbone", ["compact", "ir-se50"])
@pytest.mark.parametrize("kind", sorted(COMPACT))
def test_every_kind_is_built_on_every_backbone(kind, backbone):
    with torch.device("meta"):
        encoder = build_encoder(kind, backbone, 12, 32)
    assert (encoder.num_ws, encoder.w_dim, encoder.backbone_name) == (12, 32, backbone)
    assert encoder.in_channels == (6 if kind == "restyle" else 3)
    assert encoder.deltas == (kind == "e4e")
    assert encoder.space == ("stylemap" if kind.startswith("stylemap") else "w_plus")


def test_on_ir_se50_the_published_kinds_are_the_published_networks():
    with torch.device("meta"):
        networks = {kind: type(build_encoder(kind, "ir-se50")) for kind in COMPACT}
    assert networks == {
        "psp": GradualStyleEncoder,
        "e4e": Encoder4Editing,
        "restyle": BackboneEncoder,
        "stylemap": StyleMapEncoder,
        "stylemap-e": StyleMapEncoder,
    }


@pytest.mark.parametrize("backbone", ["compact", "ir-se50"])
def test_stylemaps_have_the_sizes_asked_for(backbone):
    with torch.device("meta"):
        assert build_encoder("stylemap", backbone, sizes=(2, 4, 1)).sizes == (2, 4, 1)


def test_what_there_is_not_is_refused():
    with pytest.raises(UnknownName, match="kind of encoder 'style'"):
        build_encoder("style")
    with pytest.raises(UnknownName, match="known: compact, ir-se50"):
        build_encoder("psp", "resnet")
    with pytest.raises(ToolkitError, match="e4e on ir-se50 gives one style a layer: leave the sizes of maps out"):
        build_encoder("e4e", "ir-se50", sizes=(2, 4, 1))
