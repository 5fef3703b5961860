"""Does a download go on where it stopped, and is everything that is not the file called by its name?"""

from __future__ import annotations

import socket

import pytest
import torch

from pretrained import catalog, downloads
from pretrained.cache import sha256
from pretrained.catalog import CATALOG, Download, fetch
from pretrained.downloads import MIRROR, download
from pretrained.errors import BrokenFile, DownloadFailed, UnsafePickle
from pretrained.loading import load_generator

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def server(server):
    server.content = CONTENT
    return server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "face.pkl"


def silent(_):
    pass


def test_a_file_comes_whole_and_leaves_no_litter(server, path):
    download(server.url, path, silent)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.requests == [("/files/face.pkl", None)]


def test_an_interrupted_download_goes_on_where_it_stopped(server, path):
    server.break_after = 300_000
    with pytest.raises(DownloadFailed, match=r"ended after 300000 of 1024000 bytes\); run it again to go on") as caught:
        download(server.url, path, silent)
    assert str(path.parent) in str(caught.value)
    assert not path.exists()
    server.break_after, told = None, []
    download(server.url, path, told.append)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/files/face.pkl", "bytes=300000-")
    assert told == ["going on at 0 of 1 MB"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("change", ["another file", "no ranges", "no tag", "a weak tag", "a shorter file"])
def test_what_cannot_go_on_begins_anew(server, path, change):
    server.break_after = 300_000
    if change in ("no tag", "a weak tag"):
        server.etag = "" if change == "no tag" else 'W/"one"'
    with pytest.raises(DownloadFailed):
        download(server.url, path, silent)
    server.break_after = None
    if change == "another file":
        server.content, server.etag = CONTENT[::-1], '"two"'
    elif change == "no ranges":
        server.has_ranges = False
    elif change == "a shorter file":
        server.content = CONTENT[:1000]
    download(server.url, path, silent)
    assert path.read_bytes() == server.content


@pytest.mark.parametrize(
    ("content", "words"), [(b"\n <!DOCTYPE html><title>Quota exceeded</title>", "a web page in place"), (b"", "nothing in")]
)
def test_a_web_page_is_not_kept(server, path, content, words):
    server.content = content
    with pytest.raises(BrokenFile, match=words):
        download(server.url, path, silent)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_answer_of_the_server_is_shown(server, path, status):
    server.status = status
    with pytest.raises(DownloadFailed, match=f"HTTP Error {status}.*put the file as face.pkl into"):
        download(server.url, path, silent)


def test_no_server_and_a_silent_one_are_told(path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_SEC", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        port = quiet.getsockname()[1]
        with pytest.raises(DownloadFailed, match="timed out"):
            download(f"http://127.0.0.1:{port}/face.pkl", path, silent)
    with pytest.raises(DownloadFailed, match="could not be fetched"):
        download(f"http://127.0.0.1:{port}/face.pkl", path, silent)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "face.pkl"])
def test_other_kinds_of_addresses_are_refused(path, url):
    with pytest.raises(DownloadFailed, match="expected an address that begins with https://"):
        download(url, path, silent)


def test_a_mirror_takes_the_place_of_the_source(server, path, monkeypatch):
    monkeypatch.setenv(MIRROR, server.url.rpartition("/")[0] + "/")
    download("https://example.invalid/some/folder/face.pkl", path, silent)
    assert path.read_bytes() == CONTENT


def test_a_full_disk_is_told_before_it_is_full(server, path, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: downloads.shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(DownloadFailed, match=r"has 0 MB of space, and 1 MB are needed"):
        download(server.url, path, silent)


@pytest.fixture
def entry(server, cache, monkeypatch, write_nvidia, tiny_stylegan2):
    """A catalogue entry whose file the server has."""
    server.content = write_nvidia(G_ema=tiny_stylegan2()).read_bytes()
    entry = Download("tiny-nv", "a tiny network", 16, server.url, "CC0, drawn by chance")
    monkeypatch.setitem(CATALOG, "tiny-nv", entry)
    return entry


def test_a_published_file_is_fetched_checked_and_loaded_by_name(entry, server, tiny_stylegan2):
    told = []
    generator = load_generator("tiny-nv", notify=told.append)
    assert torch.equal(generator.synthesis.b4.const, tiny_stylegan2().synthesis.b4.const)
    assert "CC0" in told[0]
    assert f"names no SHA-256; {sha256(entry.file)} is kept" in told[1]
    assert entry.is_cached()
    load_generator("tiny-nv", notify=told.append)
    assert len(told) == 2
    assert len(server.requests) == 1


def test_a_file_that_changed_on_the_disk_is_fetched_again(entry, server):
    fetch("tiny-nv", silent)
    entry.file.write_bytes(entry.file.read_bytes()[:-1])
    assert not entry.is_cached()
    told = []
    fetch("tiny-nv", told.append)
    assert "damaged" in told[0]
    assert entry.file.read_bytes() == server.content


def test_a_file_that_was_put_there_by_hand_is_taken(entry, server):
    entry.file.write_bytes(server.content)
    assert fetch("tiny-nv", silent) == entry.file
    assert entry.is_cached()
    assert server.requests == []


def test_a_file_of_another_checksum_is_not_kept(entry, monkeypatch):
    other = Download(entry.name, entry.summary, 16, entry.url, entry.licence, sha256="0" * 64)
    monkeypatch.setitem(CATALOG, "tiny-nv", other)
    with pytest.raises(BrokenFile, match=f"expected {'0' * 64}; it was deleted"):
        fetch("tiny-nv", silent)
    assert not entry.file.exists()


def test_a_hostile_file_is_not_kept(entry, server):
    server.content = b"cposix\nsystem\n(S'touch canary'\ntR."
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        fetch("tiny-nv", silent)
    assert not entry.file.exists()


def test_published_networks_have_addresses_licences_and_no_made_up_checksum():
    published = [entry for entry in CATALOG.values() if isinstance(entry, Download)]
    assert {"stylegan2-ffhq-1024", "stylegan3-t-ffhq-1024", "stylegan3-r-ffhqu-256"} <= {entry.name for entry in published}
    for entry in published:
        assert entry.url.startswith("https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan")
        assert entry.url.endswith(f"-{entry.resolution}x{entry.resolution}.pkl")
        assert "non-commercial" in entry.licence
        assert entry.sha256 == ""
    assert len({entry.url for entry in published}) == len(published) == len(catalog.PUBLISHED)
