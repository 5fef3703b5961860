from __future__ import annotations

import math
import sqlite3

import pytest

from invert.dataset import find_faces
from invert.errors import OutputError
from invert.evaluation.manifest import Manifest, ManifestError, Result, part_of, parts_of


def results(manifest, method="m"):
    return {result.content: result for result in manifest.results(method)}


def test_results_come_back_as_they_went_in(tmp_path):
    result = Result("c", "m", {"a": 0.1, "b": math.inf}, 1.5, 7, "", "why", "worker", {"drawn": b"jpeg"})
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.add([result])
    with Manifest(tmp_path / "m.sqlite") as manifest:
        (kept,) = manifest.results("m")
        assert (kept.figures, kept.seconds, kept.peak_bytes, kept.note) == ({"a": 0.1, "b": math.inf}, 1.5, 7, "why")
        assert manifest.picture("c", "m", "drawn") == b"jpeg"
        assert manifest.labels("c", "m") == {"drawn"}
        assert manifest.picture("c", "m", "other") is None


def test_a_figure_without_a_value_stays_known_as_such(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.add([Result("c", "m", {"a": math.nan})])
        manifest.add([Result("c", "m", {"b": 2.0})])
        figures = results(manifest)["c"].figures
    assert math.isnan(figures["a"])
    assert figures["b"] == 2.0


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        with pytest.raises(UnicodeEncodeError):
            manifest.add([Result("c", "m"), Result("\udcff", "m")])
        assert not results(manifest)


def test_a_reason_may_hold_any_bytes_of_a_name(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.add([Result("c", "m", reason="b\udcff.png: broken")])
        assert results(manifest)["c"].reason == "b\\udcff.png: broken"


def test_parts_of_other_workers_are_taken_over_once(tmp_path):
    path = tmp_path / "m[1].sqlite"
    with Manifest(part_of(path, 1)) as part:
        part.add([Result("c", "m", {"a": 1.0}, pictures={"drawn": b"1"}), Result("d", "m", reason="broken")])
    with Manifest(path) as manifest:
        manifest.add([Result("c", "m", {"b": 2.0})])
        assert manifest.merge(part_of(path, 1)) == 2
        assert results(manifest)["c"].figures == {"a": 1.0, "b": 2.0}
        assert results(manifest)["d"].reason == "broken"
        assert manifest.picture("c", "m", "drawn") == b"1"
    assert parts_of(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["m[1].sqlite"]


def test_two_runs_never_share_a_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr("invert.evaluation.manifest.BUSY_SEC", 0.1)
    with Manifest(tmp_path / "m.sqlite"), pytest.raises(ManifestError, match="another run"):
        Manifest(tmp_path / "m.sqlite")


def test_a_manifest_of_another_version_is_refused(tmp_path):
    Manifest(tmp_path / "m.sqlite").close()
    with sqlite3.connect(tmp_path / "m.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ManifestError, match="version 99, this toolkit reads version 1"):
        Manifest(tmp_path / "m.sqlite")


def test_what_is_no_manifest_is_refused_and_kept(tmp_path):
    (tmp_path / "text.sqlite").write_text("some notes of mine, long enough to be a header")
    with pytest.raises(ManifestError, match="no manifest"):
        Manifest(tmp_path / "text.sqlite")
    assert (tmp_path / "text.sqlite").read_text().startswith("some notes")
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(ManifestError, match="no manifest of stylegan-invert"):
        Manifest(tmp_path / "other.sqlite")


def test_a_full_disk_says_so_and_loses_nothing(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.add([Result("kept", "m", {"a": 1.0})])
        (pages,) = manifest._db.execute("PRAGMA page_count").fetchone()
        manifest._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match="full"):
            manifest.add([Result(f"lost {number}", "m", pictures={"drawn": bytes(10_000)}) for number in range(50)])
        assert results(manifest).keys() == {"kept"}
    with Manifest(tmp_path / "m.sqlite") as manifest:
        assert results(manifest).keys() == {"kept"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Manifest(tmp_path / "file" / "m.sqlite")


def test_hashes_last_as_long_as_their_files(tmp_path):
    for name in ("a.png", "b\udcff.png"):
        (tmp_path / name).write_bytes(b"1")
    faces = find_faces([tmp_path])
    with Manifest(tmp_path / "m.sqlite") as manifest:
        assert manifest.known_hashes(faces) == ["", ""]
        manifest.remember_hashes(faces, ["x", "y"])
        assert manifest.known_hashes(faces) == ["x", "y"]
        (tmp_path / "a.png").write_bytes(b"2")
        assert manifest.known_hashes(find_faces([tmp_path])) == ["", "y"]


def test_a_later_failure_hides_no_figures(tmp_path):
    with Manifest(tmp_path / "m.sqlite") as manifest:
        manifest.add([Result("c", "m", {"a": 1.0}, 2.0, 3)])
        manifest.add([Result("c", "m", reason="out of memory")])
        kept = results(manifest)["c"]
    assert (kept.figures, kept.seconds, kept.peak_bytes, kept.reason) == ({"a": 1.0}, 2.0, 3, "out of memory")
    assert kept.has({"a"})
    assert not kept.has({"a", "b"})
    assert not Result("c", "m", reason="broken").has(set())


def test_taking_over_one_workers_results_leaves_those_of_others(tmp_path):
    path = tmp_path / "book"  # Without a suffix, the name of worker 1's file begins worker 10's.
    for worker in (1, 10):
        with Manifest(part_of(path, worker)) as part:
            part.add([Result(f"of {worker}", "m")])
    (tmp_path / "book.worker-1-notes").touch()
    with Manifest(path) as manifest:
        assert parts_of(path) == [part_of(path, 1), part_of(path, 10)]
        for part in parts_of(path):
            manifest.merge(part)
        assert set(results(manifest)) == {"of 1", "of 10"}


def test_a_strangers_database_stays_as_it_is(tmp_path):
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE things (name TEXT)")
    database.close()
    before = file.read_bytes()
    with pytest.raises(ManifestError, match="no manifest of stylegan-invert"):
        Manifest(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]
