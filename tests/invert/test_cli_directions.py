"""Does ``stylegan-invert directions`` learn, measure and preview with any generator, and say what is wrong in one line?"""

from __future__ import annotations

import re

import pytest
import torch
from click.testing import CliRunner

from generators.errors import ToolkitError
from invert.cli.main import cli
from invert.photo import read_photo
from pretrained.directions import load_direction


@pytest.fixture
def run(generator_file, monkeypatch, tmp_path):
    """Run a verb of ``directions`` on the tiny network, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)
    monkeypatch.setattr("invert.attributes.find_faces", lambda face: [])  # It draws none.

    def call(verb, *arguments):
        arguments = ["directions", verb, *map(str, arguments), "--generator", str(generator_file), "--device", "cpu"]
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
        if isinstance(result.exception, ToolkitError):
            return result, str(result.exception)
        assert result.exception is None or not isinstance(result.exception, AssertionError), result.output
        return result, result.output + str(result.exception or "")

    return call


@pytest.fixture
def scorer_module(tmp_path):
    (tmp_path / "scorers_of_this_test.py").write_text("def red(reading):\n    return reading.face[..., 0].mean()\n")
    return "scorers_of_this_test:red"


@pytest.mark.usefixtures("landmark_model")
def test_a_users_own_scorer_teaches_a_direction_and_the_next_one_draws_nothing(run, scorer_module, tmp_path, monkeypatch):
    result, output = run("train", "red", "--scorer", scorer_module, "--samples", 100, "-o", "out")
    assert result.exit_code == 0, output
    direction = load_direction(tmp_path / "out/red.safetensors")
    assert direction.generator.name == "tiny"
    assert direction.quality["samples"] == 100
    assert len(list((tmp_path / "out/samples/faces").iterdir())) == 100
    monkeypatch.setattr("invert.samples.drawn", lambda *_: iter(()))
    result, output = run("train", "hat", "--labels", labels(tmp_path), "--samples", 100, "-o", "out", "--layers", "0-3")
    assert result.exit_code == 0, output
    assert load_direction(tmp_path / "out/hat.safetensors").layers == (0, 1, 2, 3)


def labels(tmp_path, rows: int = 100):
    path = tmp_path / "labels.csv"
    path.write_text("index,label\n" + "".join(f"{row},{row % 2}\n" for row in range(rows)))
    return path


def test_labels_of_own_latents_need_no_sample(run, tmp_path):
    codes = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    codes[1::2, 5] += 3
    torch.save(codes, tmp_path / "codes.pt")
    result, output = run("train", "hat", "--labels", labels(tmp_path), "--latents", "codes.pt", "-o", "out")
    assert result.exit_code == 0, output
    assert load_direction(tmp_path / "out/hat.safetensors").vector[5] > 0.8
    assert not (tmp_path / "out/samples").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smlie"], "did you mean smile"),
        (["--scorer", "a:b"], "with one NAME"),
        (["x", "--scorer", "a:b", "--labels", "c.csv"], "give one of them"),
        (["x", "--latents", "c.npy"], "--latents go with --labels"),
        (["age", "--layers", "0-99"], "layers 0 to 11"),
        (["age", "--layers", "corse"], "did you mean coarse"),
        (["age", "--condition", "gender:much"], "gender or age:0.5"),
        (["x", "--labels", "missing.csv"], "missing.csv"),
    ],
)
def test_mistakes_are_named(run, arguments, message):
    result, output = run("train", *arguments, "--samples", 50, "-o", "out")
    assert result.exit_code != 0
    assert re.search(message, output, re.DOTALL), output


@pytest.mark.usefixtures("landmark_model")
def test_pictures_without_faces_teach_no_age(run):
    result, output = run("train", "age", "--samples", 50, "-o", "out")
    assert result.exit_code != 0
    assert re.search("0 leave 0 in each tail.*50 of 50 pictures show no face", output, re.DOTALL), output


def test_faces_are_drawn_to_be_labelled(run, tmp_path):
    result, output = run("sample", "--samples", 50, "-o", "faces-to-label")
    assert result.exit_code == 0, output
    assert (tmp_path / "faces-to-label/faces/000049.png").is_file()


@pytest.mark.parametrize("verb", ["ganspace", "sefa"])
def test_directions_that_nobody_named_come_with_a_sheet(run, tmp_path, verb):
    more = ["--samples", 200] if verb == "ganspace" else []
    result, output = run(verb, "-k", 3, "--layers", "0-3", *more, "-o", "found")
    assert result.exit_code == 0, output
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {f"{verb}-0-3.png", *(f"{verb}-0-3-{k}.safetensors" for k in range(3))}
    assert read_photo(tmp_path / f"found/{verb}-0-3.png").shape[1] > 900
    direction = load_direction(tmp_path / f"found/{verb}-0-3-1.safetensors")
    assert (direction.layers, direction.generator.name) == ((0, 1, 2, 3), "tiny")


def test_more_components_than_the_space_has_are_refused(run):
    _, output = run("sefa", "-k", 99, "-o", "found")
    assert "1 to 32 directions" in output


def test_what_nothing_scores_cannot_be_measured(run, tmp_path):
    torch.save(torch.ones(1, 32), tmp_path / "hat.pt")
    _, output = run("measure", "hat.pt", "--faces", 1)
    assert "nothing scores 'hat'" in output


def test_the_list_says_what_a_step_is():
    result = CliRunner().invoke(cli, ["directions", "list"])
    assert result.exit_code == 0
    for part in ("smile", "pose (yaw, rotation)", "latent units", "held-out accuracy", "-3 to 3"):
        assert part in result.output


def test_the_list_says_where_none_ship_and_how_to_learn_some(generator_file):
    for generator in ("stylegan2-ffhq-1024", str(generator_file)):
        result = CliRunner().invoke(cli, ["directions", "list", "--generator", generator])
        assert (result.exit_code, result.stdout) == (0, "")
        assert f"no directions ship for {generator}: learn some with" in result.stderr
