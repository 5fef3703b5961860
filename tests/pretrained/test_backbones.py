"""Are the networks of metrics found where they should be, fetched where they are not, and never run as code?"""

from __future__ import annotations

import hashlib
import io
import pickle
from http.client import IncompleteRead
from urllib.error import URLError

import pytest
import torch

from pretrained import backbones, downloads
from pretrained.backbones import FACENET, INCEPTION, Backbone, load_facenet, load_inception
from pretrained.downloads import MIRROR
from pretrained.errors import BrokenFile, DownloadFailed


@pytest.fixture
def published(server):
    """A backbone whose file a server has."""
    file = io.BytesIO()
    torch.save({"weight": torch.arange(3.0)}, file)
    server.content = file.getvalue()
    return Backbone("a small network", server.url, hashlib.sha256(server.content).hexdigest()[:8])


def test_it_is_downloaded_once(cache, published, server):
    assert published.local_file() is None
    assert published.state_dict()["weight"].tolist() == [0, 1, 2]
    assert published.state_dict()["weight"].tolist() == [0, 1, 2]
    assert len(server.requests) == 1
    assert list(cache.iterdir()) == [cache / published.file_name]


def test_an_interrupted_download_goes_on(cache, published, server):
    server.break_after = 100
    with pytest.raises(DownloadFailed, match=r"a small network is not here: http.*run it again to go on"):
        published.fetch()
    server.break_after = None
    assert published.fetch().read_bytes() == server.content
    assert server.requests[-1][1] == "bytes=100-"


def test_a_mirror_takes_the_place_of_the_address(cache, published, server, monkeypatch):
    monkeypatch.setenv(MIRROR, server.url.rpartition("/")[0])
    elsewhere = Backbone(
        "a small network", f"https://example.invalid/somewhere/{published.file_name}", published.sha256_prefix
    )
    assert elsewhere.fetch().read_bytes() == server.content


def test_a_web_page_is_no_network(cache, published, server):
    server.content = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(DownloadFailed, match=r"a small network is not here: http.*a web page in place of weights"):
        published.fetch()
    assert published.local_file() is None


def test_a_file_put_into_the_cache_by_hand_is_taken(cache, published, server):
    (cache / published.file_name).write_bytes(server.content)
    assert published.local_file() == published.fetch() == cache / published.file_name
    assert server.requests == []


def test_a_damaged_file_is_not_used_and_fetched_again(cache, published, server, caplog):
    (cache / published.file_name).write_bytes(b"half a file")
    assert published.fetch().read_bytes() == server.content
    assert "damaged" in caplog.text


def test_a_download_with_another_hash_is_refused(cache, published, server):
    server.content = b"something else"
    with pytest.raises(DownloadFailed, match=f"no SHA-256 of {published.sha256_prefix}[.]+; it was deleted.*{cache}"):
        published.fetch()
    assert published.local_file() is None


@pytest.mark.parametrize("error", [URLError("no route"), ConnectionResetError("reset"), IncompleteRead(b"")])
def test_a_failing_download_names_the_address_and_the_folder(cache, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(downloads, "urlopen", fail)
    with pytest.raises(DownloadFailed, match=rf"Inception.*https://github\.com/.*6726825d\.pth.*{cache} by hand"):
        INCEPTION.fetch()


def test_a_folder_that_cannot_be_written_is_told(cache, published):
    (cache / f".{published.file_name}.part").mkdir()
    with pytest.raises(DownloadFailed, match=r"a small network is not here: .*Is a directory"):
        published.fetch()


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
