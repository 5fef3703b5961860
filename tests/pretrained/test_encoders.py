"""Are face networks recognised by their tensors, and everything else refused?"""

from __future__ import annotations

import pytest
import torch

from encoders import irse
from encoders.arcface import ArcFace
from pretrained.arguments import arcface_arguments
from pretrained.checkpoints import read_checkpoint
from pretrained.encoders import load_arcface
from pretrained.errors import BrokenFile, CheckpointMismatch
from pretrained.loading import load_generator


@pytest.fixture
def write(tmp_path):
    def write_file(change=None, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = ArcFace((2, 1, 1, 1), **arguments).eval()
        state = network.state_dict()
        (change or (lambda _: None))(state)
        torch.save(state, tmp_path / "model_ir_se50.pth")
        return tmp_path / "model_ir_se50.pth", network

    return write_file


@pytest.mark.parametrize("arguments", [{}, {"squeeze": False, "affine": False}], ids=str)
def test_a_face_network_comes_back_from_its_file(write, arguments):
    path, network = write(**arguments)
    found = load_arcface(path)
    face = torch.rand(2, 3, 256, 256) * 2 - 1
    torch.testing.assert_close(found(face), network(face))
    assert not any(p.requires_grad for p in found.parameters())
    assert list(read_checkpoint(path).readers) == ["face"]


@pytest.mark.parametrize(
    ("units", "arguments"),
    [(irse.IR_50, {}), (irse.IR_101, {"squeeze": False, "affine": False})],
    ids=["ArcFace", "Curricular"],
)
def test_the_published_sizes_are_deduced(units, arguments):
    with torch.device("meta"):
        state = ArcFace(units, **arguments).state_dict()
    assert arcface_arguments(state) == {"units": units, "squeeze": True, "affine": True} | arguments


def test_a_missing_unit_is_named(write):
    path, _ = write(lambda state: state.pop("body.1.res_layer.1.weight"))
    with pytest.raises(CheckpointMismatch, match=r"body\.1\.res_layer\.1\.weight"):
        load_arcface(path)


@pytest.mark.parametrize("name", ["body.2.res_layer.4.bias", "body.0.res_layer.4.bias"])
def test_units_that_make_no_network_are_refused(write, name):
    path, _ = write(lambda state: state.update({name: torch.zeros(7)}))
    with pytest.raises(BrokenFile, match="no face network has"):
        load_arcface(path)


def test_a_face_network_is_no_generator_and_the_other_way_round(write, tmp_path):
    path, _ = write()
    with pytest.raises(BrokenFile, match="no generator in it, but face"):
        load_generator(path)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BrokenFile, match="no face network in it, but generator"):
        load_arcface(tmp_path / "other.pth")
    with pytest.raises(BrokenFile, match="cannot be read"):
        load_arcface(tmp_path / "none.pth")
