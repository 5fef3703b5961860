"""Does tuning bring the generator closer to a face, leave the given generator alone and keep the best of its steps?"""

from __future__ import annotations

import pytest
import torch

from invert.inversion import Inversion
from invert.tuning import TunedInverter, Tuner, _detail


@pytest.fixture
def target(tiny_generator):
    """Return a face that no code of the generator draws, and the code of one near it."""
    codes = tiny_generator.mapping(torch.randn(1, tiny_generator.z_dim, generator=torch.Generator().manual_seed(4)))
    drawn = tiny_generator.synthesis(codes)
    return (drawn * 0.7 + 0.2).clamp(-1, 1), codes


def test_tuning_brings_the_image_closer_while_the_code_stays(tiny_generator, cheap_distance, target):
    image, pivot = target
    found = Tuner(tiny_generator, cheap_distance, steps=8, learning_rate=3e-3)(image, pivot)
    losses = [row["loss"] for row in found.history]
    assert len(losses) == 9
    assert min(losses) < 0.9 * losses[0]
    assert found.latent is pivot
    assert torch.equal(found.image, found.generator.synthesis(pivot))


def test_the_given_generator_stays_as_it_is(tiny_generator, cheap_distance, target):
    before = {name: value.clone() for name, value in tiny_generator.state_dict().items()}
    found = Tuner(tiny_generator, cheap_distance, steps=2)(*target)
    assert all(torch.equal(value, before[name]) for name, value in tiny_generator.state_dict().items())
    assert not any(p.requires_grad for p in (*tiny_generator.parameters(), *found.generator.parameters()))
    assert found.generator.identity == tiny_generator.identity, "its edits are those of the generator it came from"


def test_no_steps_change_nothing(tiny_generator, cheap_distance, target):
    image, pivot = target
    found = Tuner(tiny_generator, cheap_distance, steps=0)(image, pivot)
    assert torch.equal(found.image, tiny_generator.synthesis(pivot))


def test_the_best_step_is_kept_when_later_ones_go_astray(tiny_generator, cheap_distance, target):
    found = Tuner(tiny_generator, cheap_distance, steps=4, learning_rate=0.1)(*target)
    losses = [row["loss"] for row in found.history]
    assert losses[-1] > min(losses)
    again = Tuner(found.generator, cheap_distance, steps=0)(*target).history[0]["loss"]
    assert again == pytest.approx(min(losses), rel=1e-4)


def test_an_interrupted_tuning_keeps_what_it_has(tiny_generator, cheap_distance, target):
    def interrupt(step, row):
        if step == 1:
            raise KeyboardInterrupt

    found = Tuner(tiny_generator, cheap_distance, steps=5, on_step=interrupt)(*target)
    assert found.interrupted
    assert len(found.history) == 2


def test_a_tuned_inverter_finds_the_code_first(tiny_generator, cheap_distance, target):
    image, pivot = target
    first = [{"loss": 9.0}]

    def inverter(images):
        return Inversion(pivot, tiny_generator.synthesis(pivot), first)

    found = TunedInverter(inverter, Tuner(tiny_generator, cheap_distance, steps=1))(image)
    assert found.history[:1] == first
    assert len(found.history) == 3
    assert found.generator is not None


def test_what_is_too_fine_for_the_loss_hardly_changes(tiny_generator, cheap_distance, target, monkeypatch):
    monkeypatch.setattr("invert.tuning.LOSS_RESOLUTION", 64)
    image, pivot = target

    def change(weight):
        tuner = Tuner(tiny_generator, cheap_distance, steps=6, learning_rate=3e-3, detail_weight=weight)
        return _detail(tuner(image, pivot).image - tiny_generator.synthesis(pivot)).square().mean()

    assert change(100.0) < 0.5 * change(0.0)


def test_what_an_image_has_above_the_losses_resolution_is_lost_when_it_is_shrunk(monkeypatch):
    monkeypatch.setattr("invert.tuning.LOSS_RESOLUTION", 8)
    dots = torch.ones(1, 3, 16, 16)
    dots[:, :, ::2, ::2] = dots[:, :, 1::2, 1::2] = -1
    assert torch.equal(_detail(dots), dots)
    assert _detail(torch.full((1, 3, 16, 16), 0.5)).abs().max() == 0
    assert not _detail(torch.rand(1, 3, 8, 8)).any(), "all of it is seen"
