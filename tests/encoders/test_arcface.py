"""Are the face networks the published ones, and do they see of a face what the papers' losses see?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encoders import irse
from encoders.arcface import ArcFace

NETWORKS = {
    "arcface_ir_se50_Backbone112.tsv": {},
    "curricularface_IR101_112.tsv": {"units": irse.IR_101, "squeeze": False, "affine": False},
}


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ArcFace((1, 1, 1, 1)).eval().requires_grad_(False)


@pytest.mark.shared
@pytest.mark.parametrize("file", NETWORKS)
def test_the_tensors_are_the_published_ones(file, published_shapes, own_shapes):
    with torch.device("meta"):
        assert own_shapes(ArcFace(**NETWORKS[file])) == published_shapes(file)


def test_embeddings_are_unit_vectors_of_each_face_alone(small, recipe):
    faces = recipe("faces", (3, 3, 256, 256)).tanh()
    vectors = small(faces)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(small(faces[1:2]), vectors[1:2], rtol=1e-4, atol=1e-5)


def test_only_the_face_itself_is_looked_at(small, face):
    around, inside = face.clone(), face.clone()
    around[:, :, :35] = around[:, :, 223:] = around[:, :, :, :32] = around[:, :, :, 220:] = 0
    inside[:, :, 35:60, 32:60] = 0
    assert torch.equal(small(around), small(face))
    assert not torch.allclose(small(inside), small(face))
    cropped = F.adaptive_avg_pool2d(face[:, :, 35:223, 32:220], (112, 112))
    torch.testing.assert_close(small.embed(cropped), small(face))


def test_gradients_reach_the_image(small, face):
    face = face.clone().requires_grad_(True)
    small(face)[0, 0].backward()
    assert face.grad.abs().sum() > 0
