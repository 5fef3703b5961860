"""Does ``auto`` take the best method that a generator has, with the work that was asked for?"""

from __future__ import annotations

import pytest
import torch

from generators.base import FEATURE_DTYPES
from generators.errors import UnknownName
from invert.inverters import EncoderInverter, best_method, load_inverter
from invert.presets import DTYPES, PRESETS, preset_of
from invert.projector import Projector
from invert.tuning import TunedInverter
from pretrained.loading import save_encoder


@pytest.fixture
def shipped(tmp_path, monkeypatch, tiny_encoder, tiny_generator):
    """Let encoders of some names ship for the tiny generator."""
    files = {}
    monkeypatch.setattr("invert.inverters.encoder_names", lambda: files)
    monkeypatch.setattr("pretrained.loading.encoder_names", lambda: files)

    def ship(name, identity=tiny_generator.identity):
        files[name] = tmp_path / f"{name}.safetensors"
        save_encoder(files[name], tiny_encoder, identity)

    return ship


def test_the_best_encoder_that_fits_is_taken(shipped, tiny_generator):
    assert best_method(tiny_generator) == "projector"
    shipped("psp")
    assert best_method(tiny_generator) == "psp"
    shipped("stylemap")
    assert best_method(tiny_generator) == "stylemap"


def test_an_encoder_of_another_generator_is_passed_over(shipped, tiny_generator):
    from generators.base import Identity

    shipped("stylemap-e", Identity("other", "f" * 64))
    assert best_method(tiny_generator) == "projector"


def test_fast_is_one_call_better_refines_and_best_tunes_as_well(shipped, tiny_generator, cheap_distance):
    shipped("stylemap")
    fast, better, best = (
        load_inverter("auto", tiny_generator, preset=name, perceptual=cheap_distance) for name in ("fast", "better", "best")
    )
    assert isinstance(fast, EncoderInverter)
    assert fast.refiner is None
    assert better.refiner.steps == PRESETS["better"].refine
    assert isinstance(best, TunedInverter)
    assert (best.inverter.refiner.steps, best.tuner.steps) == (PRESETS["best"].refine, PRESETS["best"].tune)


def test_without_an_encoder_the_projector_takes_the_presets_steps(shipped, tiny_generator, cheap_distance):
    fast = load_inverter("auto", tiny_generator, preset="fast", perceptual=cheap_distance)
    assert isinstance(fast, Projector)
    assert fast.steps == PRESETS["fast"].steps


def test_an_unknown_preset_names_close_ones(tiny_generator):
    with pytest.raises(UnknownName, match="did you mean best"):
        preset_of("bset")
    with pytest.raises(UnknownName, match="preset"):
        load_inverter("auto", tiny_generator, preset="bset")


def test_the_steps_of_tuning_are_counted_behind_those_before(tiny_generator, encoder_file, cheap_distance):
    import torch

    seen = []
    inverter = load_inverter(
        str(encoder_file), tiny_generator, refine=2, tune=2, perceptual=cheap_distance, on_step=lambda n, _: seen.append(n)
    )
    found = inverter(torch.zeros(1, 3, 256, 256))
    assert seen == [0, 1, 2, 2, 3, 4]
    assert found.generator is not None


def test_the_dtypes_that_are_offered_are_those_that_generators_compute_in():
    assert [getattr(torch, name) for name in DTYPES] == list(FEATURE_DTYPES)
