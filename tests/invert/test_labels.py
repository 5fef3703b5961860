"""Are labels, latents and scorers of a user's own read as meant, and every mistake in them named with its line?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from editing.errors import TrainingDataError
from invert.age_and_gender import ScorerError
from invert.attributes import FaceReading
from invert.labels import import_scorer, read_labels
from pretrained.errors import BrokenFile


def labels(tmp_path, text: str, count: int = 4) -> list[float]:
    (tmp_path / "labels.csv").write_text(text)
    return read_labels(tmp_path / "labels.csv", "hat", count).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "index,label\n0,1\n1,0\n3,0.5\n",
        "index,hat,other\n3,0.5,9\n1,0,9\n0,1,9\n",
        "file,hat\n000003.png,0.5\nfaces/000001.png,0\n000000.png,1\n",
        "\ufeffindex,label\n0,1\n\n1,0\n3,0.5\n",
        "image , hat\n 0 , 1\n1,0\n3, 5e-1\n",
    ],
)
def test_labels_find_their_samples(tmp_path, text):
    found = labels(tmp_path, text)
    assert found[:2] == [1.0, 0.0]
    assert math.isnan(found[2])
    assert found[3] == 0.5


def test_a_column_alone_has_a_row_for_each_sample(tmp_path):
    assert labels(tmp_path, "hat\n1\n0\n1\n1\n") == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hat\n1\n0\n1\n", "3 labels for 4 samples"),
        ("1\n0\n1\n1\n0\n", "expected a head"),
        ("index,label\n0,nan\n", "line 2: the label is 'nan'"),
        ("index,label\n0,1\n1,\n", "line 3: the label is ''"),
        ("index,label\n0,yes\n", "line 2: the label is 'yes'"),
        ("index,label\n4,1\n", "line 2: '4' is no sample: expected a number from 0 to 3"),
        ("index,label\n-1,1\n", "'-1' is no sample"),
        ("index,label\nface.png,1\n", "'face.png' is no sample"),
        ("index,label\n1,1\n1,0\n", "line 3: sample 1 is labelled twice"),
        ("index,label\n1,1,1\n", "line 2: 3 cells, the head has 2"),
        ("index,a,b\n1,1,1\n", "which column"),
        ("index\n1\n", "which column"),
        ("index,label\n", "no labels in it"),
        ("", "no labels in it"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, text, message):
    with pytest.raises(TrainingDataError, match=message):
        labels(tmp_path, text)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x80", None])
def test_what_is_no_table_is_refused(tmp_path, content):
    if content:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(BrokenFile, match=r"labels\.csv"):
        read_labels(tmp_path / "labels.csv", "hat", 4)


def test_a_scorer_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_scorers_of_test.py").write_text("def red(reading):\n    return reading.face[..., 0].mean()\n")
    reading = FaceReading(np.full((4, 4, 3), 9, np.uint8))
    assert import_scorer("my_scorers_of_test:red")(reading) == 9.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red", "expected MODULE:FUNCTION"),
        (":red", "expected MODULE:FUNCTION"),
        ("no_such_module_at_all:red", "cannot be imported"),
        ("math:no_such_function", "has no function 'no_such_function'"),
        ("math:pi", "has no function 'pi'"),
    ],
)
def test_a_scorer_that_cannot_be_had_is_named(text, message):
    with pytest.raises(ScorerError, match=message):
        import_scorer(text)


def test_a_scorer_that_returns_no_number_is_named():
    with pytest.raises(ScorerError, match="expected one number for each face"):
        import_scorer("builtins:vars")(FaceReading(np.zeros((4, 4, 3), np.uint8)))
