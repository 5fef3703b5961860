"""Are fetched files kept where the user says, and written whole or not at all?"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from pretrained.cache import cache_folder, sha256, whole_file


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert not cache_folder().exists(), "asking for it makes nothing"


def test_a_tilde_means_the_home_folder(monkeypatch):
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", "~/weights")
    assert cache_folder() == Path.home() / "weights"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_choice_it_is_the_users_cache_folder(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("STYLEGAN_INVERT_CACHE", raising=False)
    else:
        monkeypatch.setenv("STYLEGAN_INVERT_CACHE", value)
    assert "stylegan-invert" in cache_folder().parts


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"weights" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"weights" * 100_000).hexdigest()


def test_a_whole_file_appears_only_at_the_end_and_in_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "weights.safetensors"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent, "another disk could not be renamed from"
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "weights"
    path.write_text("old")

    def fail():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_whole_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "whole") as temporary:
        temporary.touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")]
    assert modes[0] == modes[1]


def test_a_file_that_its_writer_made_anew_is_readable_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "made") as part:
        part.unlink()
        part.touch(mode=0o600)
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode
