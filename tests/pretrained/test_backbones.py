"""Are the networks of metrics found where they should be, fetched where they are not, and never run as code?"""

from __future__ import annotations

import hashlib
import pickle
import urllib.error
from http.client import IncompleteRead

import pytest
import torch

from pretrained import backbones
from pretrained.backbones import FACENET, INCEPTION, Backbone, load_facenet, load_inception
from pretrained.errors import BrokenFile, DownloadFailed


@pytest.fixture
def published(tmp_path):
    """A backbone whose file lies outside of all the places where it is looked for."""
    file = tmp_path / "published.pth"
    torch.save({"weight": torch.arange(3.0)}, file)
    prefix = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return Backbone("a small network", f"{file.as_uri().replace('file:///', 'file://localhost/')}", prefix)


def test_it_is_downloaded_once(cache, published, tmp_path):
    assert published.local_file() is None
    assert published.state_dict()["weight"].tolist() == [0, 1, 2]
    (tmp_path / "published.pth").unlink()
    assert published.state_dict()["weight"].tolist() == [0, 1, 2]


def test_a_file_put_into_the_cache_by_hand_is_taken(cache, published, tmp_path):
    (tmp_path / "published.pth").rename(cache / "published.pth")
    assert published.local_file() == published.fetch() == cache / "published.pth"


def test_a_damaged_file_is_not_used_and_fetched_again(cache, published, caplog):
    (cache / "published.pth").write_bytes(b"half a file")
    assert published.fetch() != cache / "published.pth"
    assert "damaged" in caplog.text
    assert (cache / "published.pth").read_bytes() == b"half a file", "a user's file is left alone"


def test_a_download_with_another_hash_is_refused(cache, published, tmp_path):
    (tmp_path / "published.pth").write_bytes(b"something else")
    with pytest.raises(DownloadFailed, match="invalid hash"):
        published.fetch()
    assert published.local_file() is None


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), ConnectionResetError("reset"), RuntimeError("odd"), IncompleteRead(b"")]
)
def test_a_failing_download_names_the_address_and_the_folder(cache, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(DownloadFailed, match=rf"Inception.*https://github\.com/.*6726825d\.pth.*{cache}.*by hand"):
        INCEPTION.fetch()


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


@pytest.mark.parametrize("content", [b"<html>", pickle.dumps(Trap()), pickle.dumps({"a": 1})], ids=["html", "trap", "dict"])
def test_a_file_of_something_else_is_refused_and_nothing_in_it_is_run(cache, monkeypatch, tmp_path, content):
    monkeypatch.chdir(tmp_path)
    (cache / FACENET.file_name).write_bytes(content)
    with pytest.raises(BrokenFile, match="does not hold FaceNet"):
        load_facenet()
    assert not (tmp_path / "trapped").exists()


def test_facenet_takes_its_published_file_without_the_classifier(cache):
    from facenet_pytorch import InceptionResnetV1

    state = InceptionResnetV1(classify=False).state_dict()
    torch.save(
        state | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}, cache / FACENET.file_name
    )
    model = load_facenet()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    embedding = model(torch.zeros(2, 3, 160, 160))
    assert embedding.shape == (2, 512)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2))


def test_files_of_other_networks_do_not_fit(cache, monkeypatch):
    monkeypatch.setattr(backbones, "INCEPTION", Backbone("the Inception network of FID", INCEPTION.url))
    for backbone, load in ((FACENET, load_facenet), (INCEPTION, load_inception)):
        torch.save({"weight": torch.zeros(1)}, cache / backbone.file_name)
        with pytest.raises(BrokenFile, match="does not fit"):
            load()
