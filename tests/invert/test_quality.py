"""Is a generator measured by all metrics that were asked for, with a reason for each that cannot be had?"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from generators.errors import UnknownName
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from invert.cli.quality import _as_json, _photos, command
from invert.dataset import find_faces
from invert.errors import MetricUnavailable
from invert.metrics.base import Description, PairMetric
from invert.metrics.features import FeatureNetwork
from invert.photo import to_uint8
from invert.quality import QUALITY_METRICS, Figure, Settings, as_seen, measure_generator, table


@pytest.fixture
def networks(monkeypatch):
    """Stand in for Inception, LPIPS and the scorers, which need weights."""
    features = FeatureNetwork("toy", "corner pixels", 12, lambda image: image[:, :, :2, :2].flatten(1))
    monkeypatch.setattr("invert.quality.load_features", lambda key, device: features)
    squared = PairMetric(
        Description("lpips-toy", "LPIPS-Toy", False, 0.0, 9.0), lambda a, b: (a - b).square().mean((1, 2, 3))
    )
    monkeypatch.setattr("invert.quality.lpips_metric", lambda net, device: squared)

    lost = iter([True, True])

    def scores(image, names):
        means = image.mean((2, 3)).double()
        if next(lost, False):
            means[0] = torch.nan
        return {name: means[:, i % 3] for i, name in enumerate(names)}

    monkeypatch.setattr("invert.quality.score_images", scores)


@pytest.fixture
def photos():
    return torch.rand(60, 3, 256, 256, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).split(20)


def by_key(figures):
    return {figure.description.key: figure for figure in figures}


def test_every_metric_has_a_value_or_a_reason(tiny_generator, networks, photos, monkeypatch):
    monkeypatch.setattr("invert.metrics.separability.KEPT_PER_PARAMETER", 0.5)
    told = []
    metrics = [key for key in QUALITY_METRICS if not key.startswith("ppl") or key in ("ppl-w-end", "ppl-z-full-crop")]
    settings = Settings(50, batch_size=8)
    figures = by_key(measure_generator(tiny_generator, metrics, settings, photos, lambda *args: told.append(args)))
    for key in ("fid-toy", "kid-toy", "precision-toy", "recall-toy", "ppl-w-end", "ppl-z-full-crop", "separability-w"):
        assert figures[key].value is not None, figures[key]
        assert figures[key].description.low <= figures[key].value <= figures[key].description.high
    for key in ("eq-t", "eq-t-frac", "eq-r"):
        assert figures[key].value is None
        assert "no input that can be moved" in figures[key].note
    assert ("samples", 50) in told
    assert ("photos", 60) in told
    assert figures["fid-toy"].note == "50 samples, 60 photos"
    assert figures["separability-z"].note == "48 samples, 2 without a face left out"


def test_too_few_pictures_cost_the_metrics_that_need_more(tiny_generator, networks, photos):
    figures = by_key(measure_generator(tiny_generator, ["fid", "kid"], Settings(20), photos))
    assert figures["fid-toy"].value is not None
    assert figures["kid-toy"].value is None
    assert "20 images are too few" in figures["kid-toy"].note


def test_nothing_is_drawn_for_metrics_that_have_too_few_pictures(tiny_generator, networks, photos):
    told = []
    for settings, pictures in ((Settings(10), photos), (Settings(60), photos[:1])):
        figures = by_key(
            measure_generator(tiny_generator, ["kid", "pr"], settings, pictures, lambda *args: told.append(args))
        )
        assert all("images are too few" in figure.note for figure in figures.values())
        assert len(figures) == 3
    assert told == [("photos", 20)]


def test_nothing_is_drawn_for_a_separability_of_too_few_samples(tiny_generator, networks):
    told = []
    metrics = ["separability-z", "separability-w"]
    figures = by_key(measure_generator(tiny_generator, metrics, Settings(659), None, lambda *args: told.append(args)))
    for key in metrics:
        assert figures[key].value is None
        assert figures[key].note.startswith(f"{key}: 659 images are too few, it takes at least 660: the hyperplane has 33")
    assert not told


def test_the_batch_size_changes_nothing(tiny_generator, networks, photos):
    one, other = (
        by_key(measure_generator(tiny_generator, ["fid", "ppl-w-end"], Settings(20, batch_size=size), photos))
        for size in (3, 20)
    )
    for key in one:
        assert one[key].value == pytest.approx(other[key].value, rel=1e-3)


def test_what_cannot_be_had_is_told_and_the_rest_goes_on(tiny_generator, networks, photos, monkeypatch):
    def fail(*_):
        raise MetricUnavailable("no network")

    monkeypatch.setattr("invert.quality.load_features", fail)
    figures = by_key(measure_generator(tiny_generator, ["ppl-w-end", "fid"], Settings(3), photos))
    assert figures["fid"].value is None
    assert figures["fid"].note == "no network"
    assert figures["ppl-w-end"].value > 0
    without_photos = by_key(measure_generator(tiny_generator, ["kid"], Settings(3)))
    assert "--data" in without_photos["kid"].note
    assert "| kid | n/a | needs real photos" in table(list(without_photos.values()))


def test_a_figure_that_fails_does_not_cost_the_others(tiny_generator, networks, photos, monkeypatch):
    monkeypatch.setattr("invert.metrics.separability.KEPT_PER_PARAMETER", 0.1)

    def small_alone(a, b):
        if a.shape[-1] < 256:
            raise RuntimeError("Given input size: (512x1x1). Calculated output size: (512x0x0)")
        return (a - b).square().mean((1, 2, 3))

    squeeze = PairMetric(Description("lpips-toy", "LPIPS-Toy", False, 0.0, 9.0), small_alone)
    monkeypatch.setattr("invert.quality.lpips_metric", lambda net, device: squeeze)

    def fail(*_):
        raise ValueError("did not converge")

    monkeypatch.setattr("invert.metrics.distributions.KID.compute", fail)
    monkeypatch.setattr("invert.metrics.separability._sides", fail)
    metrics = ["ppl-w-end-crop", "ppl-w-end", "kid", "pr", "separability-w"]
    figures = by_key(measure_generator(tiny_generator, metrics, Settings(50), photos))
    failed = {key: figure.note for key, figure in figures.items() if figure.value is None}
    assert failed.keys() == {"ppl-w-end-crop", "kid-toy", "separability-w"}
    assert "LPIPS-Toy cannot compare images of 128x128 px: Given input size" in failed["ppl-w-end-crop"]
    assert failed["kid-toy"] == failed["separability-w"] == "did not converge"


def test_a_generator_that_takes_labels_is_told_in_words():
    generator = StyleGAN2(16, c_dim=3, z_dim=8, w_dim=8, channel_base=64, channel_max=8).eval()
    figures = list(measure_generator(generator, ["ppl-w-end", "eq-t", "eq-t"], Settings(3)))
    assert [figure.note.partition(";")[0] for figure in figures] == ["this generator draws by labels (of width 3)"] * 2


def test_an_unknown_metric_gets_a_hint(tiny_generator):
    with pytest.raises(UnknownName, match="did you mean ppl-w-end"):
        next(measure_generator(tiny_generator, ["ppl-w-ende"], Settings(3)))


def test_the_command_prints_a_table_and_json(tiny_generator, networks, tmp_path, monkeypatch):
    monkeypatch.setattr("pretrained.loading.load_generator", lambda *_, **__: tiny_generator)
    random = np.random.default_rng(0)
    for i in range(50):
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    args = ["--data", str(tmp_path), "--metrics", "kid,eq-t", "--samples", "50", "--device", "cpu"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.exception
    assert "| KID (toy) at 256 px ↓ |" in result.stdout
    assert "50 samples, 50 photos" in result.stdout
    assert "broken.png: the file is empty" in result.output
    assert "samples: 50 pictures [" in result.stderr
    rows = json.loads(CliRunner().invoke(command, [*args, "--json"]).stdout)
    assert [row["key"] for row in rows] == ["kid-toy", "eq-t"]
    assert rows[0]["backbone"] == "corner pixels"
    assert rows[1]["value"] is None


def test_photos_and_samples_of_the_same_pictures_are_seen_alike(tiny_generator, networks, tmp_path, monkeypatch):
    random = torch.Generator().manual_seed(0)
    portraits = {side: torch.rand(2, 3, side, side, generator=random).mul(2.2).sub(1.1) for side in (64, 200, 320, 512)}
    for side, images in portraits.items():
        for i, photo in enumerate(to_uint8(images)):
            Image.fromarray(photo).save(tmp_path / f"{side}-{i}.png")
    faces = sorted(find_faces([tmp_path]), key=lambda face: int(face.stem.replace("-", "")))
    monkeypatch.setattr("invert.evaluation.faces.kind_of", lambda faces: "aligned")
    photos = [as_seen(batch) for batch in _photos(faces, 3, torch.device("cpu"))]
    assert [len(batch) for batch in photos] == [2, 2, 2, 2]
    for photo, sample in zip(photos, map(as_seen, portraits.values()), strict=True):
        assert photo.shape[2:] == (256, 256)
        assert torch.equal(photo, sample)


def test_pictures_of_other_things_than_faces_count_by_their_middle_square(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "car.png")
    Image.fromarray(pixels[:, 4:28]).save(tmp_path / "square.png")
    (batch,) = _photos(find_faces([tmp_path]), 2, torch.device("cpu"), "none")
    assert batch.shape == (2, 3, 24, 24)
    assert torch.equal(batch[0], batch[1])
    assert np.array_equal(to_uint8(batch[0]), pixels[:, 4:28])


def test_a_command_that_measures_nothing_fails_and_says_why(tiny_generator, monkeypatch):
    monkeypatch.setattr("pretrained.loading.load_generator", lambda *_, **__: tiny_generator)
    result = CliRunner().invoke(command, ["--metrics", "eq-t, kid", "--samples", "3", "--device", "cpu", "--json"])
    assert result.exit_code == 1
    rows = {row["key"]: row for row in json.loads(result.stdout)}
    assert (rows["eq-t"]["value"], rows["eq-t"]["higher_is_better"]) == (None, True)
    assert (rows["kid"]["value"], rows["kid"]["higher_is_better"]) == (None, False)
    assert "--data" in rows["kid"]["note"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_of_a_generator_that_draws_no_numbers_are_missing_with_the_reason(value, networks, photos, monkeypatch):
    generator = StyleGAN3(16, z_dim=8, w_dim=8, channel_base=64, channel_max=8).eval().requires_grad_(False)
    draw = type(generator.synthesis).forward
    monkeypatch.setattr(type(generator.synthesis), "forward", lambda *args: draw(*args) * value)
    monkeypatch.setattr("pretrained.loading.load_generator", lambda *_, **__: generator)
    monkeypatch.setattr("invert.cli.quality._photos", lambda *_: iter(photos))
    monkeypatch.setattr("invert.dataset.find_faces", lambda *_: [])
    arguments = ["--metrics", "kid,ppl-w-end,eq-t", "--data", ".", "--samples", "50", "--device", "cpu", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    for row in json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")):
        assert row["value"] is None
        assert "NaN or infinite" in row["note"]


def test_a_perfect_generator_is_infinitely_good_but_not_in_json():
    figure = Figure(Description("eq-t", "EQ-T [dB]", True, 0.0, math.inf), math.inf, "3 samples")
    row = _as_json(figure)
    assert (row["value"], row["high"], row["note"]) == (None, None, "infinite: nothing differs; 3 samples")
    assert "| EQ-T [dB] ↑ | inf | 3 samples |" in table([figure])


def test_a_single_path_has_no_standard_error(tiny_generator, networks):
    (figure,) = measure_generator(tiny_generator, ["ppl-w-end"], Settings(1))
    assert figure.value is not None
    assert figure.note == "1 path"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "fidd"], "did you mean fid"),
        (["--metrics", " ,"], "names nothing to measure"),
        (["--features", "inceptoin"], "did you mean inception"),
        (["--lpips", "foo"], "known: alex, squeeze, vgg"),
        (["--split", "test"], "name them with --data"),
        (["--data", "nodir", "--metrics", "kid"], "'nodir' does not exist"),
    ],
)
def test_mistakes_in_the_command_are_told_before_anything_is_loaded(arguments, words):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
