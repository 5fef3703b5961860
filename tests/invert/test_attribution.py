"""Is a picture that the generator drew told from one that it did not, with a curve that says how surely?"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from encoders.base import Encoder
from generators.base import Identity
from invert.attribution import (
    MEAN_FACE,
    Attributor,
    Calibration,
    CalibrationError,
    Picture,
    Settings,
    as_jpeg,
    find_calibration,
    find_start,
    plot_roc,
    read_distances,
)
from invert.cli.attribute import command
from invert.errors import MetricError, PhotoError, TooFewImages
from invert.photo import to_uint8

SETTINGS = Settings("toy (123)", "LPIPS-Toy", 7, "psp (456)", "float32")
distances = st.lists(st.floats(0, 2, width=32), min_size=5, max_size=12)


def calibration(generated=(0.1, 0.1, 0.2, 0.2, 0.3), real=(0.5, 0.6, 0.7, 0.8, 0.9)):
    return Calibration(SETTINGS, tuple(map(float, generated)), tuple(map(float, real)), {"photos": "x"})


@given(distances, distances)
def test_the_area_under_the_curve_is_scikit_learns(generated, real):
    known = calibration(generated, real)
    labels = [1] * len(generated) + [0] * len(real)
    expected = roc_auc_score(labels, [-value for value in [*generated, *real]])
    assert known.roc.area == pytest.approx(expected, abs=1e-9)
    low, high = known.area_interval(draws=50)
    assert 0 <= low <= high <= 1


@given(distances, distances)
def test_the_curve_rises_from_nothing_to_everything(generated, real):
    roc = calibration(generated, real).roc
    for shares in (roc.false_positives, roc.true_positives):
        assert shares[0] == 0
        assert shares[-1] == 1
        assert (np.diff(shares) >= 0).all()


@given(distances, distances)
@settings(max_examples=30)
def test_no_threshold_is_better(generated, real):
    known = calibration(generated, real)

    def gain(threshold):
        return np.mean(np.array(generated) < threshold) - np.mean(np.array(real) < threshold)

    assert all(gain(t) <= gain(known.threshold) + 1e-9 for t in [*generated, *real, *known.roc.thresholds])


def test_clear_cases_are_separated_in_the_middle_and_judged():
    known = calibration()
    assert known.roc.area == 1
    assert known.area_interval() == (1, 1)
    assert known.threshold == pytest.approx(0.4)
    near, far = known.judge(0.25), known.judge(0.65)
    assert near.is_generated
    assert (near.real_as_close, near.generated_as_far) == (0, 0.2)
    assert not far.is_generated
    assert (far.real_as_close, far.generated_as_far) == (0.4, 0)


def test_too_few_pictures_are_refused():
    with pytest.raises(TooFewImages, match="calibration with photos: 4 images are too few, it takes at least 5"):
        calibration(real=(1, 2, 3, 4))
    for odd in (math.nan, math.inf, -1.0):
        with pytest.raises(CalibrationError, match="no distances"):
            calibration(real=(1, 2, 3, 4, odd))


def test_a_calibration_is_kept_and_read_again(tmp_path):
    calibration().save(tmp_path / "deep/calibration.json")
    assert Calibration.load(tmp_path / "deep/calibration.json") == calibration()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(version=1),
        lambda data: data.pop("real"),
        lambda data: data.update(real="abcde"),
        lambda data: data.update(settings=[]),
        lambda data: data.update(generated=[None] * 5),
        lambda data: data["settings"].pop("start"),
        lambda data: data["settings"].update(dtype="floot32"),
        lambda data: data["settings"].update(dtype="Tensor"),
        lambda data: data["settings"].update(steps=0),
        lambda data: data["settings"].update(steps=7.5),
        lambda data: data["settings"].update(steps=True),
    ],
)
def test_a_damaged_calibration_is_refused_in_words(tmp_path, damage):
    file = tmp_path / "calibration.json"
    calibration().save(file)
    data = json.loads(file.read_text())
    damage(data)
    file.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match=r"calibration\.json"):
        Calibration.load(file)


def test_what_is_no_calibration_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    for name in ("a.json", "missing.json"):
        with pytest.raises(CalibrationError, match="make one with --calibrate"):
            Calibration.load(tmp_path / name)


def test_the_calibration_of_another_generator_is_passed_over(tmp_path):
    calibration().save(tmp_path / "calibration.json")
    assert find_calibration(None, tmp_path, Identity("toy", "123")) == calibration()
    with pytest.raises(CalibrationError, match="no calibration for the generator other"):
        find_calibration(None, tmp_path, Identity("other", "456"))


def test_the_calibration_that_ships_is_the_default_generators(tmp_path):
    identity = Identity("mobilestylegan-ffhq-1024", "e5d10e2be7df")
    known = find_calibration(None, tmp_path, identity)
    assert known.settings.generator == str(identity)
    assert np.median(known.generated) < known.threshold < np.median(known.real)


@pytest.fixture
def attributor(tiny_generator, cheap_distance):
    return Attributor(tiny_generator, cheap_distance, steps=12)


def photos(count):
    """Colourful squares, such as the tiny generator never draws."""
    random = np.random.default_rng(0)
    return [
        np.kron(random.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((64, 64, 1), np.uint8)) for _ in range(count)
    ]


def test_samples_come_closer_than_photos(attributor):
    told = []
    pictures = [Picture(f"photo {i}", lambda photo=photo: photo) for i, photo in enumerate(photos(5))]
    known = attributor.calibrate(iter(pictures), 5, on_picture=lambda *args: told.append(args))
    assert known.roc.area > 0.7
    assert [name for name, _, _ in told] == [f"sample {i} of seed 0" for i in range(5)] + [f"photo {i}" for i in range(5)]
    assert known.generated + known.real == tuple(distance for *_, distance in told)
    settings = Settings("tiny (000000000000)", "mean absolute difference", 12, MEAN_FACE, "float32")
    assert known.settings == attributor.settings == settings
    attributor.check(known)
    # What was measured is not measured again, whatever it is called by then.
    attributor.measure = None
    done = {content: distance for _, content, distance in told}
    pictures = [picture._replace(name="renamed") for picture in pictures]
    assert attributor.calibrate(pictures, 5, done=done) == known


def test_another_picture_under_a_known_name_is_measured(attributor):
    told = []
    attributor.measure_photo = lambda photo: float(photo.mean())
    for shade in (0, 9):
        pictures = [Picture(f"{i}.png", lambda i=i, shade=shade: np.full((4, 4, 3), shade + i, np.uint8)) for i in range(5)]
        done = {content: distance for _, content, distance in told}
        known = attributor.calibrate(pictures, 5, done=done, on_picture=lambda *args: told.append(args))
        assert known.real == tuple(float(shade + i) for i in range(5))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_distance_that_is_no_number_is_no_verdict(attributor, value):
    attributor.measure = lambda image: torch.full((1,), value)
    with pytest.raises(MetricError, match=f"a distance of {value} after 12 steps in float32"):
        attributor.measure_photo(np.zeros((8, 8, 3), np.uint8))
    told = []
    attributor.measure_photo = lambda photo: float(photo.mean())
    pictures = [Picture(f"{i}.png", lambda i=i: np.full((4, 4, 3), i, np.uint8)) for i in range(5)]
    attributor.calibrate(pictures, 5, on_picture=lambda *args: told.append(args))
    known = attributor.calibrate(pictures, 5, done={content: value for _, content, _ in told})
    assert known.real == (0, 1, 2, 3, 4)


def test_a_photo_that_cannot_be_read_is_left_out_and_a_copy_counts_once(attributor, caplog):
    def fail():
        raise PhotoError("damaged")

    attributor.measure_photo = lambda photo: float(photo.mean())
    reads = [fail, *(lambda i=i: np.full((4, 4, 3), i, np.uint8) for i in (0, 1, 2, 3, 4, 1))]
    assert attributor.calibrate([Picture("x", read) for read in reads], 5).real == (0, 1, 2, 3, 4)
    assert "left out: damaged" in caplog.text


def test_too_few_photos_are_told_before_anything_is_measured(attributor):
    attributor.measure = None
    with pytest.raises(TooFewImages, match="calibration with photos: 3 images are too few"):
        attributor.calibrate([Picture("x", None)] * 3, 3)


def test_only_distances_of_the_same_settings_are_taken_up_again(tmp_path):
    file = tmp_path / "distances.json"
    assert read_distances(file, SETTINGS) == {}
    file.write_text(json.dumps({"settings": asdict(SETTINGS), "distances": {"a": 1}}))
    assert read_distances(file, SETTINGS) == {"a": 1.0}
    assert read_distances(file, replace(SETTINGS, steps=8)) == {}
    file.write_text(json.dumps({"settings": asdict(SETTINGS), "distances": {"a": 1, "b": math.nan, "c": math.inf}}))
    assert read_distances(file, SETTINGS) == {"a": 1.0}, "the others are measured again"
    file.write_text("[]")
    assert read_distances(file, SETTINGS) == {}


def test_samples_are_small_jpegs_and_depend_on_the_seed_alone(attributor):
    first, again = ([picture.read() for picture in attributor.samples(2, seed=3)] for _ in range(2))
    assert first[0].shape == (256, 256, 3)
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], first[1])
    assert 0 < np.abs(as_jpeg(first[0]).astype(int) - first[0]).mean() < 20


def test_distances_of_other_settings_are_not_compared(attributor, tiny_generator, cheap_distance):
    known = Calibration(attributor.settings, (0.1,) * 5, (0.2,) * 5)
    with pytest.raises(CalibrationError, match="steps 12, here 13: make one with --calibrate"):
        Attributor(tiny_generator, cheap_distance, steps=13).check(known)
    coarse = copy.deepcopy(tiny_generator).compute_in(torch.bfloat16)
    with pytest.raises(CalibrationError, match="dtype 'float32', here 'bfloat16'"):
        Attributor(coarse, cheap_distance, steps=12).check(known)


def test_the_plot_is_a_png_that_shows_curve_and_distances(tmp_path):
    plot_roc(calibration(), tmp_path / "roc.png")
    image = np.array(Image.open(tmp_path / "roc.png").convert("RGB"))
    assert image.shape[1] > 1000
    assert image.std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]


@pytest.fixture
def run(generator_file, cheap_distance, tiny_generator, monkeypatch):
    monkeypatch.setattr("pretrained.loading.load_generator", lambda *_, **__: tiny_generator)
    monkeypatch.setattr("invert.perceptual.load_perceptual", lambda *_, **__: cheap_distance)
    return lambda *args: CliRunner().invoke(command, [*map(str, args), "--device", "cpu"])


def test_a_projection_begins_with_the_code_of_an_encoder_of_the_generator(tiny_generator, cheap_distance):
    assert find_start(tiny_generator) == (None, MEAN_FACE), "the e4e that ships is another generator's"
    code = tiny_generator.mapping(torch.randn(1, 32, generator=torch.Generator().manual_seed(1)))

    class Knowing(Encoder):
        input_resolution = 64

        def forward(self, image):
            return code

    image = tiny_generator.synthesis(code)
    near = Attributor(tiny_generator, cheap_distance, 1, Knowing(), "knowing").measure(image)
    assert near < 0.1 * Attributor(tiny_generator, cheap_distance, 1).measure(image)


def test_the_command_calibrates_judges_and_goes_on_after_a_bad_file(run, tmp_path, tiny_generator):
    real, suspects, output = tmp_path / "real", tmp_path / "suspects", tmp_path / "out"
    real.mkdir(), suspects.mkdir()
    for i, photo in enumerate(photos(6)):
        Image.fromarray(photo).save((real if i < 5 else suspects) / f"photo{i}.png")
    drawn = tiny_generator(torch.randn(1, 32, generator=torch.Generator().manual_seed(7)))
    Image.fromarray(to_uint8(drawn)[0]).save(suspects / "drawn.png")
    (suspects / "broken.png").write_bytes(b"no picture")
    result = run("--calibrate", real, "--steps", "8", "-o", output, suspects)
    assert result.exit_code == 1, "one file could not be read"
    assert "drawn.png: generated" in result.output
    assert "photo5.png: real" in result.output
    assert "broken.png: not measured" in result.output
    assert "area under the ROC curve" in result.output
    assert sorted(path.name for path in output.iterdir()) == [
        "calibration.json",
        "distances.json",
        "roc.png",
        "verdicts.json",
    ]
    # The calibration is found again, with its number of steps.
    result = run("-o", output, "--json", suspects / "drawn.png")
    assert result.exit_code == 0
    row = json.loads(result.stdout.splitlines()[-1])[0]
    (tmp_path / "file").touch()
    refused = run("--calibration", output / "calibration.json", "-o", tmp_path / "file", suspects / "drawn.png")
    assert "cannot be written" in str(refused.exception)
    assert row["verdict"] == "generated"
    assert row["distance"] < row["threshold"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "nothing to do"),
        (["--calibrate", "a", "--calibration", "b", "c.png"], 2, "give one of them"),
        (["--calibration", "missing.json", "c.png"], 2, "'missing.json' does not exist"),
        (["--calibration", "c.png", "c.png"], None, "c.png: not a calibration"),
        (["--calibrate", "nodir"], 2, "'nodir' does not exist"),
        (["nope.png"], 2, "'nope.png' does not exist"),
    ],
)
def test_mistakes_in_the_command_are_told(run, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    for name in "a", "b", "c.png":
        (tmp_path / name).touch()
    result = run(*args)
    assert message in " ".join(result.output.split()) + str(result.exception)
    assert code is None or result.exit_code == code


@given(st.integers(1, 100))
@settings(max_examples=10)
def test_any_jpeg_quality_keeps_size_and_type(quality):
    photo = photos(1)[0]
    assert as_jpeg(photo, quality).shape == photo.shape
    assert as_jpeg(photo, quality).dtype == np.uint8
