"""Do ``mix``, ``interpolate`` and ``blend`` do what they say, from what users type to the files they get?"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from editing.interpolation import EASES
from editing.mixing import mix
from generators.latent import as_stylemaps
from invert.cli import interpolate
from invert.cli.main import cli
from invert.latents import load_latent
from invert.photo import demo_photo, read_photo
from invert.sources import sample


@pytest.fixture
def run(generator_file, monkeypatch, tmp_path):
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)

    def call(verb, *arguments, output="out"):
        fixed = ["--generator", str(generator_file), "--device", "cpu", "-o", str(tmp_path / output)]
        return CliRunner().invoke(cli, [verb, *map(str, arguments), *fixed])

    return call


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_mix_writes_both_faces_their_mix_and_its_latent(run, tmp_path, tiny_generator):
    result = run("mix", "seed:1", "seed:2", "--layers", "fine")
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path / "out") == {
        "a.png", "b.png", "mixed.png", "comparison.png", "latent.safetensors", "report.json",
    }  # fmt: skip
    expected = mix(sample(tiny_generator, 1).latent, sample(tiny_generator, 2).latent, range(8, 12))
    assert torch.equal(load_latent(tmp_path / "out/latent.safetensors", tiny_generator).latent, expected)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["a"], report["b"], report["layers"]) == (["seed 1"], ["seed 2"], [8, 9, 10, 11])


def test_a_photo_mixes_with_a_saved_latent(run, tmp_path, encoder_file):
    run("mix", "seed:1", "seed:2", output="anna")
    result = run("mix", demo_photo(), tmp_path / "anna/latent.safetensors", "--method", encoder_file)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out/report.json").read_text())["b"] == ["anna"]


def test_mix_grid_is_one_sheet(run, tmp_path):
    assert run("mix", "seed:1-2", "seed:3-5", "--grid").exit_code == 0
    assert names_in(tmp_path / "out") == {"grid.png", "report.json"}
    height, width, _ = read_photo(tmp_path / "out/grid.png").shape
    assert 3 * 256 < height < width


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("seed:1", "seed:2", "--layers", "corse"), "did you mean coarse"),
        (("seed:1", "seed:2", "--layers", "12"), "0 to 11"),
        (("seed:1-2", "seed:3"), "A holds 2 faces.*--grid"),
        (("seed:x", "seed:3"), "expected seed:42"),
        (("nowhere.jpg", "seed:3"), "nowhere.jpg: no such file"),
    ],
)
def test_mix_says_what_is_wrong(run, tmp_path, arguments, words):
    result = run("mix", *arguments)
    assert result.exit_code != 0
    assert re.search(words, f"{result.output} {result.exception}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["morph.gif", "morph.mp4"])
def test_interpolate_writes_a_film(run, tmp_path, name):
    import av

    result = run("interpolate", "seed:1,2,3", "--frames", 7, "--size", 64, output=name)
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / name)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 7
    assert frames[0].shape == (64, 64, 3)


@pytest.mark.parametrize("space", ["w", "z"])
def test_a_film_begins_and_ends_with_its_faces(run, tmp_path, tiny_generator, space):
    from invert.photo import to_uint8

    assert run("interpolate", "seed:1", "seed:2", "--frames", 3, "--in", space, output="frames").exit_code == 0
    for seed, frame in ((1, 0), (2, 2)):
        drawn = to_uint8(tiny_generator.synthesis(sample(tiny_generator, seed).latent)[0])
        assert np.array_equal(read_photo(tmp_path / f"frames/{frame:06d}.png"), drawn)


def test_the_same_face_twice_makes_a_still_film(run, tmp_path):
    result = run("interpolate", "seed:1", "seed:1", "--frames", 3, "--in", "z", output="frames")
    assert "so will be all frames" in result.output
    first, *others = (read_photo(path).astype(int) for path in sorted((tmp_path / "frames").iterdir()))
    assert all(np.abs(first - other).max() <= 1 for other in others)


@pytest.mark.parametrize(
    ("arguments", "output", "words"),
    [
        (("seed:1",), "a.mp4", "between 1 points"),
        (("seed:1-3", "--frames", 2), "a.mp4", "at least one a point"),
        (("seed:1-2", "--frames", 0), "a.mp4", "0 is not in the range"),
        (("seed:1-2", "--ease", "smoth"), "a.mp4", "'smoth' is not one of 'linear', 'smooth'"),
        (("seed:1-2",), "a.avi", r"use \.mp4, \.gif"),
        (("seed:1-2", "--fps", 60), "a.gif", "50 in a GIF"),
        (("seed:1-2", "--fps", 0), "a.mp4", "above 0"),
    ],
)
def test_interpolate_says_what_is_wrong(run, tmp_path, arguments, output, words):
    result = run("interpolate", *arguments, output=output)
    assert result.exit_code != 0
    assert re.search(words, f"{result.output} {result.exception}")
    assert not (tmp_path / output).exists()


def test_help_lists_the_eases_that_there_are():
    assert tuple(EASES) == interpolate.EASES


def test_only_seeds_have_a_way_in_z(run, tmp_path):
    run("mix", "seed:1", "seed:2", output="anna")
    result = run("interpolate", "seed:1", tmp_path / "anna/latent.safetensors", "--in", "z", output="a.mp4")
    assert result.exit_code == 2
    assert "anna is no seed" in result.output


@pytest.mark.parametrize(("how", "has_latent"), [("styles", True), ("features", False), ("pixels", False)])
def test_blend_changes_one_half_by_another_face(run, tmp_path, how, has_latent):
    mask = "rectangle:0,0,0.5,1"
    result = run("blend", "seed:1", "seed:2", "--mask", mask, "--in", how, "--feather", 0)
    assert result.exit_code == 0, result.output
    assert re.search(r"[\d.]+% of the change inside the mask", result.output)
    assert ("latent.safetensors" in names_in(tmp_path / "out")) == has_latent
    a, blended = (read_photo(tmp_path / f"out/{name}.png").astype(int) for name in ("a", "blended"))
    change = np.abs(blended - a).mean((0, 2))
    assert change[:64].mean() > 2 * change[-64:].mean()


def test_a_vertical_gradient_goes_from_a_to_b(run, tmp_path, tiny_generator):
    assert run("blend", "seed:1", "seed:2", "--gradient", "vertical", "--feather", 0).exit_code == 0
    maps = as_stylemaps(load_latent(tmp_path / "out/latent.safetensors").latent)
    ends = [as_stylemaps(sample(tiny_generator, seed).latent) for seed in (1, 2)]
    for style_map, of_a, of_b in zip(maps, *ends, strict=True):
        rows = ((style_map - of_a) / (of_b - of_a)).median(1).values[0].mean(1)
        assert rows.diff().gt(0).all()
        assert rows[0] < 0.3 < 0.7 < rows[-1]


def test_a_blend_of_styles_can_be_gone_on_with(run, tmp_path):
    run("blend", "seed:1", "seed:2", "--gradient", "vertical", output="half")
    assert run("mix", tmp_path / "half/latent.safetensors", "seed:3").exit_code == 0


def test_several_faces_lie_over_the_first(run):
    masks = ["--mask", "rectangle:0,0,0.5,1", "--mask", "rectangle:0.5,0,1,0.5"]
    assert run("blend", "seed:1", "seed:2", "seed:3", *masks).exit_code == 0
    result = run("blend", "seed:1", "seed:2", "seed:3", *masks, "--in", "features")
    assert "put together of two" in str(result.exception)


def test_the_gradient_grid_is_one_sheet(run, tmp_path):
    assert run("blend", "seed:1-2", "seed:3-4", "--gradient", "vertical", "--grid").exit_code == 0
    assert names_in(tmp_path / "out") == {"grid.png", "report.json"}


@pytest.fixture
def direction_file(tiny_generator, tmp_path):
    from editing.directions import Direction
    from pretrained.directions import save_direction

    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "brighter.safetensors"
    save_direction(path, Direction.of("brighter", vector, tiny_generator.identity))
    return path


@pytest.mark.parametrize("how", ["styles", "features", "pixels"])
def test_an_edit_works_in_the_mask_alone_on_each_of_several_faces(run, tmp_path, direction_file, how):
    mask = ["--mask", "rectangle:0.3,0.3,0.7,0.7", "--in", how]
    result = run("blend", "seed:1-2", "--edit", f"{direction_file}=+1", *mask)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert re.search(r"mean [\d.]+%, least [\d.]+% of the change inside the mask \+ 5 %, 2 faces", result.output)
    assert {"seed-1-before.png", "seed-2-after.png", "comparison.png", "report.json"} <= names_in(tmp_path / "out")
    shares = json.loads((tmp_path / "out/report.json").read_text())["inside"]
    assert min(shares.values()) > (0.5 if how == "styles" else 0.9)


@pytest.mark.parametrize("paste", ["face", "change"])
def test_a_face_of_a_photo_is_put_back_into_it(run, tmp_path, encoder_file, paste):
    mask = ["--mask", "rectangle:0.3,0.3,0.7,0.7", "--method", encoder_file, "--paste", paste]
    result = run("blend", demo_photo(), "seed:2", *mask)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    photo, pasted = (read_photo(path).astype(int) for path in (demo_photo(), tmp_path / "out/result.jpg"))
    assert pasted.shape == photo.shape
    change = np.abs(pasted - photo).mean(2)
    assert change[:40].mean() < 3 < change.max()  # JPEG's own, and the face's.
    within = change[60:220, 140:300]  # Inside the crop; its middle is what the mask changed.
    assert (np.median(within) > 10) == (paste == "face")
    assert run("blend", "seed:1", "seed:2", "--mask", "vertical").exit_code == 0
    assert not (tmp_path / "out/result.jpg").exists()


def test_every_edited_face_of_a_photo_is_put_back(run, tmp_path, encoder_file, direction_file):
    where = ["--mask", "rectangle:0.3,0.3,0.7,0.7", "--method", encoder_file]
    assert run("blend", demo_photo(), "--edit", f"{direction_file}=+1", *where).exit_code == 0
    assert read_photo(tmp_path / "out/astronaut-result.jpg").shape == read_photo(demo_photo()).shape
    again = run(
        "blend", tmp_path / "out/astronaut-after.png", "--edit", f"{direction_file}=+1", *where, "--no-align", output="b"
    )
    assert again.exit_code == 0
    assert not [name for name in names_in(tmp_path / "b") if name.endswith(".jpg")]


def test_an_edit_that_leads_too_far_in_a_face_is_told_with_advice(run, direction_file):
    result = run("blend", "seed:1-2", "--edit", f"{direction_file}=1e30", "--mask", "rectangle:0.3,0.3,0.7,0.7")
    assert result.exit_code == 1
    assert result.output.count("its code lies too far from those that the generator knows; take smaller strengths") == 2


def test_photos_of_one_name_keep_their_results_apart(run, tmp_path, encoder_file, direction_file):
    (tmp_path / "photos").mkdir()
    for name, width in (("x.png", 512), ("x.bmp", 500)):
        Image.fromarray(read_photo(demo_photo())[:, :width]).save(tmp_path / "photos" / name)
    where = ["--mask", "rectangle:0.3,0.3,0.7,0.7", "--method", encoder_file]
    result = run("blend", tmp_path / "photos", "--edit", f"{direction_file}=+1", *where)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert [read_photo(tmp_path / f"out/{name}-result.jpg").shape[1] for name in ("x", "x_2")] == [500, 512]
    assert {f"{name}-{kind}.png" for name in ("x", "x_2") for kind in ("before", "after")} <= names_in(tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["faces"] == [["x", "x_2"]]
    assert report["inside"].keys() == {"x", "x_2"}


def test_what_feathering_adds_is_not_counted_as_inside(run, tmp_path):
    shares = []
    for share in (0, 0.5):
        run("blend", "seed:1", "seed:2", "--mask", "rectangle:0.4,0.4,0.6,0.6", "--in", "pixels", "--feather", share)
        shares.append(json.loads((tmp_path / "out/report.json").read_text())["inside"])
    assert shares[0] == pytest.approx(1)
    assert shares[1] < 0.8


def test_one_bad_face_does_not_stop_the_others(run, tmp_path, direction_file, monkeypatch):
    from invert.errors import NoFaceFound
    from invert.masks import mask_of

    calls = []

    def first_is_hidden(spec, image, predictor=None):
        calls.append(spec)
        if len(calls) == 1:
            raise NoFaceFound("nose: not visible in this picture")
        return mask_of("rectangle:0,0,0.5,0.5", image)

    monkeypatch.setattr("invert.blends.mask_of", first_is_hidden)
    result = run("blend", "seed:1-2", "--edit", f"{direction_file}=+1", "--mask", "nose")
    assert result.exit_code == 1
    assert "seed 1: nose: not visible" in result.output
    assert json.loads((tmp_path / "out/report.json").read_text())["failed"] == ["seed 1"]


def test_an_edit_of_strength_0_changes_nothing(run, tmp_path, direction_file):
    for how in ("styles", "features", "pixels"):
        result = run("blend", "seed:1", "--edit", f"{direction_file}=0", "--mask", "rectangle:0,0,0.5,0.5", "--in", how)
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        before, after = (read_photo(tmp_path / f"out/seed-1-{name}.png") for name in ("before", "after"))
        assert np.array_equal(before, after)
        assert json.loads((tmp_path / "out/report.json").read_text())["inside"] == {"seed 1": None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("seed:1", "seed:2"), "where.*--mask"),
        (("seed:1", "seed:2", "--mask", "mouht"), "did you mean mouth"),
        (("seed:1", "seed:2", "seed:3", "--mask", "vertical"), "3 faces and 1 masks"),
        (("seed:1", "--edit", "a=1", "--edit", "b=nan", "--mask", "vertical"), "nan"),
        (("seed:1", "seed:2", "--edit", "smile=1", "--mask", "vertical"), "an edit takes one face"),
        (("seed:1", "seed:2", "--mask", "vertical", "--layers", "fin"), "did you mean fine"),
        (("seed:1-2", "seed:3", "--mask", "vertical"), "one face; --grid"),
        (("seed:1", "seed:2", "--mask", "mouth"), "no face found"),
        (("seed:1", "seed:2", "--mask", "vertical", "--layers", "fine", "--in", "pixels"), "goes with --in styles"),
    ],
)
def test_blend_says_what_is_wrong(run, tmp_path, arguments, words):
    result = run("blend", *arguments)
    assert result.exit_code != 0
    assert re.search(words, f"{result.output} {result.exception}"), f"{result.output} {result.exception}"
    assert not (tmp_path / "out").exists()


def test_a_painted_mask_of_another_shape_is_refused_with_its_size(run, tmp_path):
    Image.new("L", (64, 32), 255).save(tmp_path / "mask.png")
    result = run("blend", "seed:1", "seed:2", "--mask", tmp_path / "mask.png")
    assert "64 x 32" in str(result.exception)
