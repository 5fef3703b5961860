"""Is every face of a folder measured once, whatever happens meanwhile?"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from editing.composition import EditSpec
from editing.lec import LEC
from invert.cli.main import cli
from invert.consistency import Row, as_markdown, means, read_rows, write_rows
from invert.evaluation.runner import Plan, evaluate
from invert.inverters import EncoderInverter, load_inverter
from invert.photo import read_photo, to_tensor
from pretrained.directions import load_direction
from pretrained.loading import save_encoder


@pytest.fixture
def faces(tmp_path):
    """Three pictures and a file that is none."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(faces, wider, encoder_file, generator_file, tmp_path, monkeypatch):
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)

    def call(*arguments):
        networks = ["--method", str(encoder_file), "--generator", str(generator_file), "--device", "cpu"]
        edits = ["--edit", f"{wider}=3", "--edit", f"{wider}@coarse=-1"]
        return CliRunner().invoke(cli, ["lec", str(faces), *networks, *edits, "-o", str(tmp_path / "out"), *arguments])

    return call


def rows_of(folder):
    with (folder / "lec.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_face_has_its_value_and_every_bad_file_its_reason(run, faces, wider, encoder_file, tiny_generator, tmp_path):
    result = run("--batch", "2")
    assert result.exit_code == 1, result.output  # One file is bad.
    rows = {(row["file"], row["edit"]): row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 4 * 2
    assert rows["bad.png", f"{wider}=+3"]["avg"] == ""
    assert "not an image" in rows["bad.png", f"{wider}=+3"]["reason"]
    inverter = load_inverter(str(encoder_file), tiny_generator)
    lec = LEC(inverter.encode, tiny_generator.synthesis)
    direction = load_direction(wider, tiny_generator.identity)
    for edit, change, strength in (
        (f"{wider}=+3", direction, 3.0),
        (f"{wider}@coarse=-1", direction.on_layers((0, 1, 2, 3)), -1.0),
    ):
        expected = lec(to_tensor(read_photo(faces / "1.png"))[None], change, strength)
        for form in ("avg", "min", "max"):
            assert float(rows["1.png", edit][form]) == pytest.approx(getattr(expected, form).item(), rel=1e-4)
    written = json.loads((tmp_path / "out/lec.json").read_text())
    avg = next(mean for mean in written["means"] if mean["form"] == "avg" and mean["edit"] == f"{wider}=+3")
    values = [float(rows[f"{number}.png", f"{wider}=+3"]["avg"]) for number in range(3)]
    assert (avg["mean"], avg["faces"], avg["failed"]) == (pytest.approx(np.mean(values)), 3, 1)


def test_what_the_command_prints_of_one_face_and_of_none_is_json(run, faces):
    def no_constant(name):
        pytest.fail(f"{name} is no JSON")

    (faces / "2.png").unlink()
    for number in (1, 0):
        (faces / f"{number}.png").unlink()
        means = json.loads(run("--json").stdout, parse_constant=no_constant)
        assert {mean["faces"] for mean in means} == {number}
        assert {mean["standard_error"] for mean in means} == {None}
        assert all((mean["mean"] is None) == (number == 0) for mean in means)


def test_an_encoder_that_looks_again_is_measured_alone_unless_its_looks_are_asked_for(
    run, faces, wider, encoder_file, tiny_encoder, tiny_generator, tmp_path
):
    tiny_encoder.looks = 2
    save_encoder(encoder_file, tiny_encoder, tiny_generator.identity)
    assert run("--method", f"{encoder_file},{encoder_file}@2").exit_code == 1
    direction = load_direction(wider, tiny_generator.identity)
    image = to_tensor(read_photo(faces / "1.png"))[None]
    rows = [row for row in rows_of(tmp_path / "out") if (row["file"], row["edit"]) == ("1.png", f"{wider}=+3")]
    for row, looks in zip(rows, (1, 2), strict=True):
        encode = load_inverter(str(encoder_file), tiny_generator, looks=looks).encode
        expected = LEC(encode, tiny_generator.synthesis)(image, direction, 3.0)
        assert float(row["avg"]) == pytest.approx(expected.avg.item(), rel=1e-4), looks


def test_nothing_is_done_twice(run, faces, tmp_path, monkeypatch):
    run()
    first = rows_of(tmp_path / "out")
    seen = []
    forward = EncoderInverter.__call__

    def watched(self, image):
        seen.append(len(image))
        return forward(self, image)

    monkeypatch.setattr(EncoderInverter, "__call__", watched)
    run()
    assert seen == []
    assert rows_of(tmp_path / "out") == first
    Image.new("RGB", (256, 256), "red").save(faces / "new.png")
    (faces / "copy.png").write_bytes((faces / "0.png").read_bytes())
    run("--batch", "1")  # Another batch, other rounding: measured anew.
    assert len(seen) == 4
    reasons = {row["file"]: row["reason"] for row in rows_of(tmp_path / "out")}
    assert sorted(name for name, reason in reasons.items() if reason.startswith("the same as")) in (["0.png"], ["copy.png"])


def test_a_run_that_was_stopped_goes_on(faces, wider, encoder_file, generator_file, tmp_path):
    plan = Plan((faces,), (str(encoder_file),), (), str(generator_file), edits=(EditSpec(wider, 3.0),))
    done = []

    def stop(progress):
        done.append(progress.done)
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(plan, tmp_path / "lec.sqlite", torch.device("cpu"), on_progress=stop)
    finished = evaluate(plan, tmp_path / "lec.sqlite", torch.device("cpu"), on_progress=lambda p: done.append(p.total))
    assert done[-1] == 2
    rows = read_rows(finished, tmp_path / "lec.sqlite")
    assert sum(math.isfinite(row.avg) for row in rows) == 3


def test_an_edit_that_no_generator_can_draw_marks_no_other_edit_of_the_face(run, wider, tmp_path):
    result = run("--edit", f"{wider}=1e30")
    assert result.exit_code == 1
    rows = {(row["file"], row["edit"]): row for row in rows_of(tmp_path / "out")}
    assert (rows["1.png", f"{wider}=+3"]["reason"], rows["1.png", f"{wider}=+3"]["avg"] == "") == ("", False)
    assert "no value for this face" in rows["1.png", f"{wider}=+1e+30"]["reason"]
    written = json.loads((tmp_path / "out/lec.json").read_text())
    counts = {mean["edit"]: (mean["faces"], mean["failed"]) for mean in written["means"]}
    assert counts == {f"{wider}=+3": (3, 1), f"{wider}@coarse=-1": (3, 1), f"{wider}=+1e+30": (0, 4)}


def test_means_count_what_they_average():
    rows = [Row(f"{n}.png", "", "e", "age=+1", value, value, value) for n, value in enumerate((1.0, 3.0))]
    rows.append(Row("bad.png", "", "e", "age=+1", reason="no picture"))
    rows.append(Row("again.png", "", "e", "age=+1", reason="the same as 0.png"))
    found = means(rows)
    assert [(mean.form, mean.mean, mean.faces, mean.failed) for mean in found] == [
        (form, 2.0, 2, 1) for form in ("avg", "min", "max")
    ]
    assert found[0].standard_error == pytest.approx(1.0)
    assert "| e | age=+1 | 2 | 1 | 2.00 ± 1.00 |" in as_markdown(found)
    assert "n/a" in as_markdown(means(rows[2:3]))
    assert [mean.failed for mean in means([replace(rows[0], max=math.nan, reason="why")])] == [0, 0, 1]


def test_no_name_becomes_a_formula_of_a_spreadsheet(tmp_path):
    write_rows(tmp_path, [Row("=1+1.png", "", "@method", "age=+1", -1.0)], {})
    (row,) = rows_of(tmp_path)
    assert (row["file"], row["method"], row["edit"], row["avg"]) == ("'=1+1.png", "'@method", "age=+1", "-1.0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a folder"),
        (["EMPTY"], "expected images"),
        (["EMPTY", "--edit", "age=nan"], "expected a number"),
        (["EMPTY", "--edit", "agee=1"], "did you mean age"),
        (["EMPTY", "--method", "projector"], "LEC is of encoders alone"),
    ],
)
def test_a_mistake_is_explained(tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty") if argument == "EMPTY" else argument for argument in arguments]
    result = CliRunner().invoke(cli, ["lec", *arguments, "--edit", "age=1", "-o", str(tmp_path / "out")])
    message = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert result.exit_code != 0
    assert words in " ".join(message.split())
