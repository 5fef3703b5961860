from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from encoders.compact import compact_encoder
from invert.cli.main import cli, main
from invert.identity import Likeness
from invert.latents import load_latent
from invert.photo import demo_photo, read_photo
from invert.presets import PRESETS
from pretrained.loading import save_encoder


@pytest.fixture
def run(generator_file, encoder_file, cheap_distance, monkeypatch, tmp_path):
    """Run the command line on the tiny networks; results go to ``tmp_path / "out"``."""
    monkeypatch.setattr("invert.tools.load_perceptual", lambda *_: cheap_distance)
    # The process of the tests is not the command's own.
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)
    defaults = ["--generator", str(generator_file), "-o", str(tmp_path / "out"), "--device", "cpu"]

    def call(*arguments, method=str(encoder_file), **kwargs):
        return CliRunner().invoke(cli, [*map(str, arguments), "--method", method, *defaults], **kwargs)

    return call


def bad_photo(folder, name="bad.jpg"):
    path = folder / name
    path.write_bytes(b"this is no photo")
    return path


def test_a_photo_gives_every_file_that_the_design_lists(run, tmp_path):
    result = run(demo_photo())
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "astronaut"
    names = {path.name for path in folder.iterdir()}
    assert names == {"aligned.png", "inverted.png", "result.jpg", "comparison.png", "latent.safetensors", "report.json"}
    assert read_photo(folder / "inverted.png").shape == (256, 256, 3)
    assert read_photo(folder / "result.jpg").shape == read_photo(demo_photo()).shape


def test_the_report_says_what_was_done_and_what_measured_it(run, tmp_path):
    run(demo_photo())
    report = json.loads((tmp_path / "out/astronaut/report.json").read_text())
    assert report["metrics"]["perceptual"]["backbone"] == "mean absolute difference"
    assert report["metrics"]["mse"]["value"] > 0
    assert report["generator"] == {"name": "tiny", "sha256": "0" * 64}
    assert {"stylegan-invert", "torch", "python"} <= set(report["versions"])
    assert set(report["seconds"]) == {"read", "align", "invert", "edit", "paste", "measure"}


@pytest.mark.parametrize(
    ("likeness", "arguments", "words"),
    [
        (Likeness(0.914, True), [], r", identity 0\.91, [\d.]+ s\)"),
        (Likeness(0.926, False), [], r", identity 0\.93, [\d.]+ s; dlib sees another person: try --preset better\)"),
        (Likeness(0.854, False), ["--refine", 1], r"dlib sees another person: try --preset best\)"),
        (Likeness(0.854, False), ["--refine", 1, "--tune", 1], r"dlib sees another person\)"),
        (None, [], r"MSE [\d.]+, [\d.]+ s\)"),
    ],
)
def test_it_is_said_and_reported_whether_dlib_sees_the_same_person(run, tmp_path, monkeypatch, likeness, arguments, words):
    monkeypatch.setattr("invert.identity.compare", lambda *_: likeness and [likeness])
    result = run(demo_photo(), *arguments)
    assert result.exit_code == 0, result.output
    assert re.search(words, result.stderr)
    report = json.loads((tmp_path / "out/astronaut/report.json").read_text())
    assert report["same_person"] is (likeness and likeness.same_person)


def test_the_latent_can_be_drawn_again(run, tmp_path, tiny_generator):
    run(demo_photo())
    saved = load_latent(tmp_path / "out/astronaut/latent.safetensors", tiny_generator)
    drawn = tiny_generator.synthesis(saved.latent)[0].clamp(-1, 1)
    inverted = read_photo(tmp_path / "out/astronaut/inverted.png").astype(np.float32)
    assert np.abs(drawn.permute(1, 2, 0).numpy() * 127.5 + 127.5 - inverted).max() < 1
    assert saved.crop_from_photo.shape == (3, 3)


def test_outside_the_face_the_photo_keeps_every_bit(run, tmp_path):
    # A copy with a wide margin: the crop cannot reach its left part.
    photo = np.pad(read_photo(demo_photo()), ((0, 0), (400, 0), (0, 0)), mode="reflect")
    Image.fromarray(photo[:, :]).save(tmp_path / "wide.png")
    from invert.faces import align, detect, paste_back

    original = read_photo(tmp_path / "wide.png")
    face = align(original, detect(original)[0], 256)
    pasted = paste_back(original, -face.image, face)
    changed = np.argwhere((pasted != original).any(2))
    assert changed.size
    corners = np.linalg.inv(face.crop_from_photo) @ np.array(
        [[-0.5, 255.5, 255.5, -0.5], [-0.5, -0.5, 255.5, 255.5], [1] * 4]
    )
    left, right = corners[0].min(), corners[0].max()
    assert changed[:, 1].min() >= left - 1
    assert changed[:, 1].max() <= right + 1


@pytest.fixture
def wider(tiny_generator, tmp_path):
    """The file of a direction."""
    from editing.directions import Direction
    from pretrained.directions import save_direction

    vector = torch.zeros(tiny_generator.w_dim)
    vector[0] = 1
    save_direction(tmp_path / "wider.safetensors", Direction.of("wider", vector, tiny_generator.identity))
    return tmp_path / "wider.safetensors"


def test_edits_are_drawn_and_recorded(run, tmp_path, wider):
    result = run(demo_photo(), "--edit", f"{wider}=+2")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out/astronaut"
    edited, inverted = (read_photo(folder / name).astype(int) for name in ("edited.png", "inverted.png"))
    assert np.abs(edited - inverted).max() > 8
    assert json.loads((folder / "report.json").read_text())["edits"][0]["strength"] == 2


def test_an_edit_that_no_generator_can_draw_is_an_error_and_leaves_no_picture(run, tmp_path, wider):
    result = run(demo_photo(), "--edit", f"{wider}=1e30")
    assert result.exit_code == 1
    assert "values that are NaN or infinite: its code lies too far from those that the generator knows" in result.output
    assert not list((tmp_path / "out").rglob("*.*g"))


def two_faces(folder):
    one = Image.fromarray(read_photo(demo_photo()))
    both = Image.new("RGB", (1024, 512))
    both.paste(one, (0, 0))
    both.paste(one.resize((400, 400)), (560, 50))
    both.save(folder / "two.png")
    return folder / "two.png"


@pytest.mark.parametrize("name", ["report.json", "latent.safetensors", "edited.png", "result.jpg", "comparison.png"])
def test_any_result_is_a_recipe_that_gives_it_again(run, tmp_path, wider, name):
    assert run(demo_photo(), "--edit", f"{wider}@0-3=+2.125", "--paste", "change", "--refine", 1).exit_code == 0
    first = tmp_path / "first"
    (tmp_path / "out").rename(first)
    arguments = ["run", str(demo_photo()), "--recipe", str(first / "astronaut" / name), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*arguments, "--generator", str(tmp_path / "tiny.safetensors"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for picture in ("edited.png", "result.jpg"):
        again, before = (read_photo(folder / "astronaut" / picture) for folder in (tmp_path / "out", first))
        assert np.array_equal(again, before), picture
    recipes = [json.loads((folder / "astronaut/report.json").read_text())["recipe"] for folder in (tmp_path / "out", first)]
    assert recipes[0] == recipes[1]


def test_an_encoders_file_is_a_method_of_its_own_or_the_one_of_a_method(run, tmp_path, encoder_file, tiny_generator):
    e4e = compact_encoder("e4e", tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8)
    save_encoder(tmp_path / "e4e.safetensors", e4e, tiny_generator.identity)
    for method, encoder in (("stylemap", encoder_file), ("e4e", tmp_path / "e4e.safetensors")):
        result = run(demo_photo(), "--encoder", encoder, method=method)
        assert result.exit_code == 0, result.output
        report = json.loads((tmp_path / "out/astronaut/report.json").read_text())
        assert (report["method"], report["settings"].get("encoder")) == (
            (str(encoder), None) if method == "stylemap" else ("e4e", str(encoder))
        )
    again = run(demo_photo(), "--recipe", tmp_path / "out/astronaut/report.json", method="e4e")
    assert again.exit_code == 0, again.output
    refused = run(demo_photo(), "--encoder", encoder_file, method="e4e")
    assert "its encoder is one of stylemaps, not of e4e" in str(refused.exception)


def test_a_narrow_dtype_is_used_and_recorded(run, tmp_path):
    pictures = []
    for dtype in ("float32", "bfloat16"):
        assert run(demo_photo(), "--dtype", dtype).exit_code == 0
        assert json.loads((tmp_path / "out/astronaut/report.json").read_text())["recipe"]["dtype"] == dtype
        pictures.append(read_photo(tmp_path / "out/astronaut/inverted.png").astype(int))
    assert 0 < np.abs(pictures[1] - pictures[0]).mean() < 3


def test_what_is_typed_wins_over_a_recipe_and_edits_are_added(run, tmp_path, wider):
    (tmp_path / "recipe.toml").write_text('paste = "change"\nrefine = 9\nedits = ["wider.safetensors=1"]\nface = 3')
    result = run(demo_photo(), "--recipe", tmp_path / "recipe.toml", "--face", "0", "--edit", f"{wider}=2", "--dry-run")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["edits"] == [f"{wider}=+1", f"{wider}=+2"]
    assert (plan["paste"], plan["refine"], plan["face"], plan["seed"]) == ("change", 9, 0, 0)


def test_a_recipe_of_another_generator_is_not_followed_silently(run, tmp_path, generator_file, encoder_file):
    (tmp_path / "recipe.json").write_text(json.dumps({"generator": str(generator_file), "generator_sha256": "f" * 64}))
    arguments = ["run", str(demo_photo()), "--recipe", str(tmp_path / "recipe.json"), "--method", str(encoder_file)]
    result = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "made with the generator" in " ".join(result.output.split())


def test_each_face_of_a_photo_gets_its_own_edits(run, tmp_path, wider):
    text = 'face = "all"\nedits = [{edit = "wider.safetensors", strength = 3, face = 1}]'
    (tmp_path / "recipe.toml").write_text(text)
    result = run(two_faces(tmp_path), "--recipe", tmp_path / "recipe.toml")
    assert result.exit_code == 0, result.output
    folders = [tmp_path / "out" / name for name in ("two-0", "two-1")]
    assert [(folder / "edited.png").exists() for folder in folders] == [False, True]
    assert [json.loads((folder / "report.json").read_text())["face"] for folder in folders] == [0, 1]
    assert np.array_equal(*(read_photo(folder / "result.jpg") for folder in folders))


def test_an_edit_of_a_face_that_is_not_worked_on_is_no_silent_loss(run, tmp_path, wider):
    (tmp_path / "recipe.toml").write_text('edits = [{edit = "wider.safetensors", strength = 3, face = 1}]')
    result = run(demo_photo(), "--recipe", tmp_path / "recipe.toml")
    assert result.exit_code == 1
    assert "is for face 1, but only 0 of this photo is worked on" in " ".join(result.output.split())


def test_the_second_largest_face_is_called_so_in_its_report(run, tmp_path):
    assert run(two_faces(tmp_path), "--face", "1").exit_code == 0
    assert json.loads((tmp_path / "out/two/report.json").read_text())["face"] == 1


def test_many_edits_are_shown_as_one(run, tmp_path, wider):
    assert run(demo_photo(), "--edit", ",".join([f"{wider}=0.1"] * 8)).exit_code == 0
    assert read_photo(tmp_path / "out/astronaut/comparison.png").shape[1] < 4 * 512


def test_one_bad_photo_does_not_stop_the_others(run, tmp_path):
    result = run(bad_photo(tmp_path), demo_photo(), tmp_path / "missing.png")
    assert result.exit_code == 1
    assert (tmp_path / "out/astronaut/report.json").is_file()
    assert "bad.jpg" in result.output
    assert "missing.png" in result.output
    assert "2 of 3 photos failed" in result.output


def test_a_folder_is_every_photo_in_it(run, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(read_photo(demo_photo())).save(folder / name)
    (folder / "c.heic").touch()
    result = run(folder, folder, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("left out 1 file (1 .heic); .heic pictures cannot be read here: save them as JPEG") == 1
    assert [report["photo"] for report in json.loads(result.stdout)] == [str(folder / "a.png"), str(folder / "b.png")]


def test_photos_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(read_photo(demo_photo())).save(tmp_path / name / "me.png")
    assert run(tmp_path / "one/me.png", tmp_path / "two/me.png").exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"me", "me_2"}


def test_several_faces_get_a_numbered_folder_each(run, tmp_path):
    result = run(two_faces(tmp_path), "--face", "all")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"two-0", "two-1"}


def test_a_second_face_does_not_overwrite_the_photo_of_that_name(run, tmp_path):
    (tmp_path / "photos").mkdir()
    two_faces(tmp_path).rename(tmp_path / "photos/IMG.png")
    Image.fromarray(read_photo(demo_photo())).save(tmp_path / "photos/IMG-1.png")
    assert run(tmp_path / "photos", "--face", "all").exit_code == 0
    photos = {path.parent.name: json.loads(path.read_text())["photo"] for path in (tmp_path / "out").glob("*/report.json")}
    assert {name: photo.rpartition("/")[2] for name, photo in photos.items()} == {
        "IMG-1": "IMG-1.png",
        "IMG_2-0": "IMG.png",
        "IMG_2-1": "IMG.png",
    }


def test_what_is_done_is_left_out_until_photo_recipe_or_files_change(run, tmp_path, wider):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    two_faces(tmp_path).rename(folder / "two.png")
    Image.fromarray(read_photo(demo_photo())).save(folder / "one.png")
    edit = ["--edit", f"{wider}=+0.1@rectangle:0,0,0.5,1"]

    def again(*arguments):
        """Return how many photos are left out."""
        result = run(folder, "--face", "all", "--skip-done", "--json", *arguments)
        assert result.exit_code == 0, result.output
        assert len(json.loads(result.stdout)) == 3, "reports of all faces, also of what was done before"
        return int((re.search(r"left out (\d) of 2 photos", result.stderr) or [0, 0])[1])

    assert again(*edit) == 0
    written = (out / "one/report.json").stat().st_mtime_ns
    assert again(*edit) == 2
    assert (out / "one/report.json").stat().st_mtime_ns == written
    (out / "two-1/edited.png").unlink()
    assert again(*edit) == 1
    (out / "two-1/report.json").unlink()
    assert again(*edit) == 1
    report = json.loads((out / "one/report.json").read_text())
    (out / "one/report.json").write_text(json.dumps(report | {"interrupted": True}))
    assert again(*edit) == 1
    Image.fromarray(read_photo(demo_photo())[1:]).save(folder / "one.png")
    assert again(*edit) == 1
    assert again() == 0
    assert again("--seed", 1) == 0
    assert again("--seed", 1) == 2


def test_a_tuned_face_is_done_with_its_generator(run, tmp_path):
    for expected in (0, 1, 0):
        result = run(demo_photo(), "--tune", 1, "--skip-done")
        assert result.exit_code == 0, result.output
        assert result.stderr.count("left out 1 of 1 photos") == expected
        if expected:
            (tmp_path / "out/astronaut/generator.safetensors").unlink()


def test_standard_input_is_a_photo(run, tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(demo_photo().read_bytes()))
    result = run("-", input=stream.buffer.read())
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/stdin/report.json").is_file()


def test_an_aligned_face_is_taken_as_it_is(run, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(tmp_path / "noise.png")
    assert run(tmp_path / "noise.png").exit_code == 1  # There is no face in noise.
    assert run(tmp_path / "noise.png", "--no-align").exit_code == 0


def test_refinement_gives_a_history(run, tmp_path):
    assert run(demo_photo(), "--refine", 2).exit_code == 0
    assert json.loads((tmp_path / "out/astronaut/report.json").read_text())["history"]["steps"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "stylemop"], "unknown method 'stylemop': did you mean stylemap"),
        (["--generator", "mobilestylegan-ffhq-1024", "--edit", "agee=3"], "unknown edit 'agee': did you mean age"),
        (["--edit", "age"], "expected NAME=STRENGTH"),
        (["--edit", "age=nan"], "expected a number"),
        (["--generator", "mobilestylegan-ffhq-1024", "--recipe", "gone.toml"], "gone.toml: cannot be read"),
        (["--method", "projector", "--space", "wplus"], "'wplus' is not one of 'w', 'w_plus', 'stylemap'"),
        (["--generator", "mobilestylegan-ffhq"], "did you mean mobilestylegan-ffhq-1024"),
        (["--face", "biggest"], "expected largest, all or a number"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--demo"], "either photos or --demo"),
        (["--refine", "30"], "the projector does without: take --steps 30"),
        (["--method", "stylemap", "--steps", "300"], "the method is stylemap: take --refine 300"),
        (["--method", "stylemap", "--space", "w"], "the method is stylemap: take --method projector"),
        (["--method", "auto", "--encoder", "ENCODER", "--space", "w"], "--space w is of the projector, and the method is"),
        (["--method", "auto", "--refine", "30"], "the projector does without: take --steps 30"),
    ],
)
def test_a_mistake_in_the_command_is_explained_and_exits_with_2(run, tmp_path, arguments, words, monkeypatch, encoder_file):
    monkeypatch.setattr("invert.tools.load_perceptual", lambda *_: None)
    defaults = ["--generator", str(tmp_path / "tiny.safetensors"), "--method", "projector", "-o", str(tmp_path / "out")]
    named = [str(encoder_file) if argument == "ENCODER" else argument for argument in arguments]
    result = CliRunner().invoke(cli, [str(demo_photo()), *defaults, *named])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mix", "seed:1", "seed:2", "--generator", "TINY", "--layers", "foo"], 2, "unknown layer 'foo'"),
        (["interpolate", "seed:1", "seed:2", "--ease", "foo"], 2, "'foo' is not one of 'linear'"),
        (["models", "fetch", "foo"], 2, "unknown model 'foo'"),
        (["directions", "list", "--generator", "foo"], 2, "unknown generator (nor is there such a file) 'foo'"),
        (["mix", "seed:x", "seed:2"], 2, "'seed:x': expected seed:42"),
        (["mix", "seed:1", "seed:2", "--generator", "TINY", "--layers", "99"], 2, "layer 99: this generator has"),
        (["blend", "seed:1", "--edit", "smile", "--mask", "mouth"], 2, "expected NAME=STRENGTH"),
        (["evaluate", ".", "--methods", "stylemap+x"], 2, "method 'stylemap+x': expected a number"),
        (["evaluate", ".", "--methods", ","], 2, "no methods: name one or more"),
        (["mix", "gone.jpg", "seed:2", "--generator", "TINY"], 1, "gone.jpg: no such file"),
    ],
)
def test_what_is_mistyped_is_a_mistake_in_any_command(arguments, code, words, generator_file, monkeypatch, capsys):
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)
    named = [str(generator_file) if argument == "TINY" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["stylegan-invert", *named])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("code", ["seed:1", "latent.safetensors", "projected_w.npz"])
def test_a_code_instead_of_a_photo_is_told_which_commands_take_it(run, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if not code.startswith("seed:"):
        Path(code).touch()
    monkeypatch.setattr("invert.tools.load_generator", lambda *_: pytest.fail("loaded"))
    result = run(code, "--edit", "smile=1")
    assert result.exit_code == 2
    words = " ".join(result.output.split())
    assert f"{code} is a code, not a photo: seeds and saved latents are for mix, interpolate and blend" in words
    assert f"stylegan-invert blend {code} --edit smile=+1 --mask face" in words


def test_an_output_folder_that_cannot_be_made_is_found_before_the_work(run, tmp_path):
    (tmp_path / "out").write_text("a file is in the way")
    result = run(demo_photo())
    assert result.exit_code == 2
    assert "--output" in result.output


def test_a_dry_run_writes_nothing(run, tmp_path):
    result = run(demo_photo(), "--edit", "age=+1", "--dry-run")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["edits"] == ["age=+1"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evalute", "."], "evalute: no such file or folder; did you mean the command evaluate?"),
        (["--face", "all", "evalute"], "evalute: no such file or folder; did you mean the command evaluate?"),
        (["gone.jpg", "evalute"], "gone.jpg, evalute: no such file or folder"),
        (["run", "evalute.jpg"], "evalute.jpg: no such file or folder"),
    ],
)
def test_what_is_neither_command_nor_photo_is_refused_before_anything_is_loaded(arguments, words):
    code = (
        "import sys\nimport invert.cli.main\n"
        f"sys.argv[1:] = {arguments!r}\ntry: invert.cli.main.main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.endswith(f"Error: {words}\n")


def test_a_folder_of_a_name_like_a_commands_is_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trian").mkdir()
    assert "trian: the folder holds no photos" in run("trian").output


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["train", "--help"], ["--version"]])
def test_help_answers_without_torch(arguments):
    code = (
        "import sys\nfrom invert.cli.main import cli\n"
        f"try: cli({arguments!r}, standalone_mode=False)\nexcept BaseException: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_auto_settles_on_a_method_and_the_recipe_says_which(run, tmp_path, encoder_file, monkeypatch):
    monkeypatch.setattr("invert.inverters.encoder_names", lambda: {"stylemap": encoder_file})
    monkeypatch.setattr("pretrained.loading.encoder_names", lambda: {"stylemap": encoder_file})
    monkeypatch.setitem(PRESETS, "best", replace(PRESETS["best"], refine=2, tune=1))
    result = run(demo_photo(), "--preset", "best", method="auto")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/astronaut/report.json").read_text())
    recipe = report["recipe"]
    assert (recipe["method"], recipe["refine"], recipe["tune"]) == ("stylemap", 2, 1)
    assert "preset" not in recipe
    assert (tmp_path / "out/astronaut/generator.safetensors").is_file()
    plan = json.loads(run(demo_photo(), "--dry-run", "--preset", "fast", method="auto").stdout)
    assert (plan["method"], plan["preset"]) == ("auto", "fast")


def test_auto_takes_the_encoder_that_is_named(run, tmp_path, encoder_file):
    arguments = (demo_photo(), "--encoder", encoder_file, "--preset", "fast")
    plan = json.loads(run(*arguments, "--dry-run", method="auto").stdout)
    assert (plan["method"], plan["encoder"], plan["preset"]) == ("auto", str(encoder_file), "fast")
    result = run(*arguments, method="auto")
    assert result.exit_code == 0, result.output
    recipe = json.loads((tmp_path / "out/astronaut/report.json").read_text())["recipe"]
    assert (recipe["method"], recipe["refine"]) == (str(encoder_file), 0)
    assert "encoder" not in recipe


def test_a_preset_alone_means_auto(generator_file, tmp_path):
    arguments = ["--demo", "--preset", "fast", "-n", "--generator", str(generator_file), "-o", str(tmp_path)]
    plan = json.loads(CliRunner().invoke(cli, arguments).stdout)
    assert plan["method"] == "auto"


def plan_of(generator_file, folder, *arguments):
    """Return what a command would do."""
    common = ["--demo", "-n", "--generator", str(generator_file), "-o", str(folder)]
    return json.loads(CliRunner().invoke(cli, [*common, *arguments]).stdout)


def test_looks_are_kept_in_the_recipe(run, tmp_path):
    assert run(demo_photo(), "--looks", "2").exit_code == 0
    recipe = tmp_path / "out/astronaut/report.json"
    assert json.loads(recipe.read_text())["recipe"]["looks"] == 2
    assert json.loads(run(demo_photo(), "--recipe", str(recipe), "--dry-run").stdout)["looks"] == 2


def test_a_preset_gives_a_named_method_or_encoder_its_steps(generator_file, encoder_file, tmp_path):
    best = PRESETS["best"]
    for named in (("--method", "psp"), ("--encoder", str(encoder_file))):
        plan = plan_of(generator_file, tmp_path, "--preset", "best", *named)
        assert (plan["method"], plan["refine"], plan["tune"]) == (named[1], best.refine, best.tune)
    assert plan_of(generator_file, tmp_path, "--preset", "best", "--method", "projector")["steps"] == best.steps


def test_steps_given_by_hand_go_before_a_presets(generator_file, tmp_path):
    plan = plan_of(generator_file, tmp_path, "--preset", "best", "--method", "psp", "--refine", "7")
    assert (plan["refine"], plan["tune"]) == (7, PRESETS["best"].tune)
    assert plan_of(generator_file, tmp_path, "--preset", "fast", "--refine", "7")["refine"] == 7


@pytest.mark.parametrize(
    "entries",
    [
        {"preset": "best"},
        {"method": "stylemap-e", "preset": "best"},
        {"method": "auto", "preset": "fast", "refine": 10},
        {"method": "auto", "refine": 10, "steps": 9, "tune": 0},
        {"method": "projector", "preset": "best", "steps": 7},
        {"preset": "best", "space": "w"},
        {"method": "auto", "space": "w"},
    ],
)
def test_a_recipe_says_the_same_as_the_options_of_its_entries(generator_file, tmp_path, entries):
    (tmp_path / "recipe.json").write_text(json.dumps(entries))
    options = [str(part) for name, value in entries.items() for part in (f"--{name}", value)]
    plan = plan_of(generator_file, tmp_path, "--recipe", str(tmp_path / "recipe.json"))
    assert plan == plan_of(generator_file, tmp_path, *options)


def test_a_preset_that_is_typed_takes_the_place_of_a_recipes_steps_and_keeps_its_method(generator_file, tmp_path):
    best, recipe = PRESETS["best"], tmp_path / "recipe.json"
    typed = ("--recipe", str(recipe), "--preset", "best")
    recipe.write_text(json.dumps({"method": "e4e", "refine": 7}))
    plan = plan_of(generator_file, tmp_path, *typed)
    assert (plan["method"], plan["refine"], plan["tune"]) == ("e4e", best.refine, best.tune)
    assert plan_of(generator_file, tmp_path, *typed, "--refine", "9")["refine"] == 9
    recipe.write_text(json.dumps({"refine": 7}))
    plan = plan_of(generator_file, tmp_path, *typed)
    assert (plan["method"], plan["preset"], "refine" in plan) == ("auto", "best", False)
    recipe.write_text(json.dumps({"method": "projector", "steps": 7, "space": "w"}))
    assert plan_of(generator_file, tmp_path, *typed)["space"] == "w"
    assert not {"steps", "space"} & set(plan_of(generator_file, tmp_path, "--recipe", str(recipe), "--method", "auto"))


def test_help_says_what_the_presets_do_and_that_none_is_taken_unasked():
    text = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert all(preset.about in text for preset in PRESETS.values())
    assert re.search(r"fast: the encoder; LPIPS 0\.\d+ on \d+ faces, [\d.]+ s a face\.", text)
    assert "[default: (none; better with --method auto)]" in text


def test_what_a_recipe_says_need_not_mean_anything_to_the_method(generator_file, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('method = "projector"\nsteps = 9\nspace = "w"\nrefine = 7')
    assert plan_of(generator_file, tmp_path, "--recipe", str(recipe))["steps"] == 9
    plan = plan_of(generator_file, tmp_path, "--recipe", str(recipe), "--method", "psp")
    assert (plan["refine"], plan.keys() & {"steps", "space"}) == (7, set())
    assert plan_of(generator_file, tmp_path, "--method", "projector", "--refine", "0")["steps"] == 100


@pytest.mark.parametrize("seed", ["-5", "99999999999999999999999"])
@pytest.mark.parametrize(
    "verb", [["run"], ["evaluate"], ["quality"], ["train"], ["directions", "train"], ["directions", "sample"]]
)
def test_a_seed_that_nothing_takes_is_refused_before_any_work(verb, seed):
    result = CliRunner().invoke(cli, [*verb, "--seed", seed])
    assert result.exit_code == 2
    assert f"{seed} is not in the range 0<=x<=" in result.output
