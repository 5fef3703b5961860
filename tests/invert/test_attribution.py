"""Is a picture that the generator drew told from one that it did not, with a curve that says how surely?"""

from __future__ import annotations

import json
import math
import re
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
    FLOOR,
    MEAN_FACE,
    Attributor,
    Calibration,
    CalibrationError,
    Distances,
    Picture,
    Settings,
    as_jpeg,
    find_calibration,
    find_start,
    plot_roc,
    read_distances,
)
from invert.cli.attribute import command
from invert.errors import PhotoError, TooFewImages
from invert.photo import to_uint8

SETTINGS = Settings("toy (123)", "LPIPS-Toy", 7, "psp")
gains = st.lists(st.floats(0.5, 4, width=32), min_size=5, max_size=12)


def gaining(*values, w_plus=0.1):
    """Distances by how many times W+ comes closer."""
    return tuple(Distances(float(value) * (w_plus + FLOOR) - FLOOR, w_plus) for value in values)


def calibration(generated=(1.1, 1.1, 1.2, 1.2, 1.3), real=(1.5, 1.6, 1.7, 1.8, 1.9)):
    return Calibration(SETTINGS, gaining(*generated), gaining(*real), {"photos": "x"})


@given(gains, gains)
def test_the_area_under_the_curve_is_scikit_learns(generated, real):
    known = calibration(generated, real)
    labels = [1] * len(generated) + [0] * len(real)
    expected = roc_auc_score(labels, [-value.gain for value in [*known.generated, *known.real]])
    assert known.roc.area == pytest.approx(expected, abs=1e-9)
    low, high = known.area_interval(draws=50)
    assert 0 <= low <= high <= 1


@given(gains, gains)
def test_the_curve_rises_from_nothing_to_everything(generated, real):
    roc = calibration(generated, real).roc
    for shares in (roc.false_positives, roc.true_positives):
        assert shares[0] == 0
        assert shares[-1] == 1
        assert (np.diff(shares) >= 0).all()


@given(gains, gains)
@settings(max_examples=30)
def test_no_threshold_is_better(generated, real):
    known = calibration(generated, real)

    ours, theirs = ([distances.gain for distances in kind] for kind in (known.generated, known.real))

    def surplus(threshold):
        return np.mean(np.array(ours) < threshold) - np.mean(np.array(theirs) < threshold)

    assert all(surplus(t) <= surplus(known.threshold) + 1e-9 for t in [*ours, *theirs, *known.roc.thresholds])


def test_clear_cases_are_separated_in_the_middle_and_judged():
    known = calibration()
    assert known.roc.area == 1
    assert known.area_interval() == (1, 1)
    assert known.threshold == pytest.approx(1.4)
    low, high = (known.judge(*gaining(value)) for value in (1.25, 1.65))
    assert low.is_generated
    assert (low.real_as_low, low.generated_as_high) == (0, 0.2)
    assert not high.is_generated
    assert (high.real_as_low, high.generated_as_high) == (0.4, 0)


def test_what_the_generator_cannot_draw_at_all_is_none_of_its_pictures_whatever_it_gains():
    known = calibration()
    assert known.reach == pytest.approx(0.125)
    assert known.judge(*gaining(1.0, w_plus=0.12)).is_generated
    beyond = known.judge(*gaining(1.0, w_plus=0.13))
    assert beyond.is_beyond
    assert not beyond.is_generated


def test_two_perfect_projections_gain_nothing():
    assert Distances(0.0, 0.0).gain == 1
    assert Distances(0.001, 0.0).gain < 1.25


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
        lambda data: data.update(generated=[0.1] * 5),
        lambda data: data.update(generated=[[0.1, 0.1, 0.1]] * 5),
        lambda data: data["settings"].pop("start"),
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


@pytest.fixture
def attributor(tiny_generator, cheap_distance):
    return Attributor(tiny_generator, cheap_distance, steps=12)


@pytest.fixture
def photos(tiny_generator):
    """Pictures that the tiny generator never draws, since each layer has a style of its own; W+ can."""
    w = tiny_generator.mapping.w(torch.randn(6 * tiny_generator.num_ws, 32, generator=torch.Generator().manual_seed(5)))
    return list(to_uint8(tiny_generator.synthesis(w.unflatten(0, (6, -1)))))


def test_photos_gain_more_by_a_style_for_each_layer_than_samples(attributor, photos):
    told = []
    pictures = [Picture(f"photo {i}", lambda photo=photo: photo) for i, photo in enumerate(photos[:5])]
    known = attributor.calibrate(iter(pictures), 5, on_picture=lambda *args: told.append(args))
    assert known.roc.area > 0.7
    assert [name for name, _ in told] == [f"sample {i} of seed 0" for i in range(5)] + [f"photo {i}" for i in range(5)]
    assert known.generated + known.real == tuple(distances for _, distances in told)
    settings = Settings("tiny (000000000000)", "mean absolute difference", 12, MEAN_FACE)
    assert known.settings == attributor.settings == settings
    attributor.check(known)
    # What was measured is not measured again, nor even drawn or read.
    attributor.measure = None
    pictures = [Picture(f"photo {i}", None) for i in range(5)]
    assert attributor.calibrate(pictures, 5, done=dict(told)) == known


def test_a_photo_that_cannot_be_read_is_left_out(attributor, caplog):
    def fail():
        raise PhotoError("damaged")

    pictures = [Picture(f"photo {i}", fail if i == 2 else None) for i in range(6)]
    done = {f"photo {i}": Distances(float(i), 1.0) for i in range(6) if i != 2}
    done |= {f"sample {i} of seed 0": Distances(0.0, 0.0) for i in range(5)}
    assert [distances.w for distances in attributor.calibrate(pictures, 5, done=done).real] == [0, 1, 3, 4, 5]
    assert "left out: damaged" in caplog.text


def test_only_distances_of_the_same_settings_are_taken_up_again(tmp_path):
    file = tmp_path / "distances.json"
    assert read_distances(file, SETTINGS) == {}
    file.write_text(json.dumps({"settings": asdict(SETTINGS), "distances": {"a": [2, 1]}}))
    assert read_distances(file, SETTINGS) == {"a": Distances(2.0, 1.0)}
    assert read_distances(file, replace(SETTINGS, steps=8)) == {}
    file.write_text("[]")
    assert read_distances(file, SETTINGS) == {}


def test_samples_are_small_jpegs_and_depend_on_the_seed_alone(attributor):
    first, again = ([picture.read() for picture in attributor.samples(2, seed=3)] for _ in range(2))
    assert first[0].shape == (256, 256, 3)
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], first[1])
    assert 0 < np.abs(as_jpeg(first[0]).astype(int) - first[0]).mean() < 20


def test_distances_of_other_settings_are_not_compared(attributor, tiny_generator, cheap_distance):
    known = Calibration(attributor.settings, gaining(*[1] * 5), gaining(*[2] * 5))
    with pytest.raises(CalibrationError, match="steps 12, here 13: make one with --calibrate"):
        Attributor(tiny_generator, cheap_distance, steps=13).check(known)


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


def test_a_projection_begins_with_the_code_of_an_encoder_of_the_generator(tiny_generator, cheap_distance, monkeypatch):
    assert find_start(tiny_generator) == (None, MEAN_FACE), "the psp that ships is another generator's"
    random = torch.Generator().manual_seed(1)
    code = tiny_generator.mapping(torch.randn(1, 32, generator=random))

    class Knowing(Encoder):
        input_resolution = 64

        def forward(self, image):
            return code

    image = tiny_generator.synthesis(code)
    near = Attributor(tiny_generator, cheap_distance, 1, Knowing(), "knowing").measure(image)
    far = Attributor(tiny_generator, cheap_distance, 1).measure(image)
    assert near.w < 0.1 * far.w
    assert near.w_plus < 0.1 * far.w_plus


def test_the_command_calibrates_judges_and_goes_on_after_a_bad_file(run, tmp_path, tiny_generator, photos):
    real, suspects, output = tmp_path / "real", tmp_path / "suspects", tmp_path / "out"
    real.mkdir(), suspects.mkdir()
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save((real if i < 5 else suspects) / f"photo{i}.png")
    drawn = tiny_generator(torch.randn(1, 32, generator=torch.Generator().manual_seed(7)))
    Image.fromarray(to_uint8(drawn)[0]).save(suspects / "drawn.png")
    (suspects / "broken.png").write_bytes(b"no picture")
    result = run("--calibrate", real, "--steps", "5", "-o", output, suspects)
    assert result.exit_code == 1, "one file could not be read"
    for name in ("drawn.png", "photo5.png"):
        assert re.search(rf"{name}: (generated|real) \(W\+ comes [\d.]+ times as close as W, (below|above) ", result.output)
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
    assert (row["verdict"] == "generated") == (row["gain"] < row["threshold"] and not row["is_beyond"])
    assert row["gain"] == pytest.approx((row["w"] + FLOOR) / (row["w_plus"] + FLOOR))


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "nothing to do"),
        (["--calibrate", "a", "--calibration", "b", "c.png"], 2, "give one of them"),
        (["--calibration", "missing.json", "c.png"], None, "missing.json: not a calibration"),
    ],
)
def test_mistakes_in_the_command_are_told(run, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert message in result.output + str(result.exception)
    assert code is None or result.exit_code == code


@given(st.integers(1, 100))
@settings(max_examples=10)
def test_any_jpeg_quality_keeps_size_and_type(quality):
    photo = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert as_jpeg(photo, quality).shape == photo.shape
    assert as_jpeg(photo, quality).dtype == np.uint8
