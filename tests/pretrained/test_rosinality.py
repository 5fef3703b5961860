"""Do rosinality's names and NVIDIA's name the same tensors, in both directions, to the last bit?"""

from __future__ import annotations

import argparse

import pytest
import torch

from pretrained import checkpoints
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, CannotConvert, CheckpointMismatch
from pretrained.loading import build_weights, load_generator
from pretrained.rosinality import (
    discriminator_filters,
    discriminator_from_rosinality,
    discriminator_rows,
    discriminator_to_rosinality,
    generator_filters,
    generator_from_rosinality,
    generator_rows,
    generator_to_rosinality,
)


def shapes_of(file):
    rows = [line.split("\t") for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: [int(n) for n in shape[1:-1].split(",") if n.strip()] for name, _, shape in rows}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def state(tiny_stylegan2):
    return tiny_stylegan2().state_dict()


@pytest.mark.shared
def test_the_map_covers_the_published_names_of_a_generator(shared_folder):
    shapes = shared_folder / "reference" / "shapes"
    theirs, ours = shapes_of(shapes / "rosinality_G_1024_cm2.tsv"), shapes_of(shapes / "nvidia_sg2ada_G_1024_configf.tsv")
    check_rows(generator_rows(9, 8), generator_filters(9), theirs, ours, apart={"mapping.w_avg"})
    assert shapes_of(shapes / "psp_decoder_1024.tsv") == theirs


@pytest.mark.shared
def test_the_map_covers_the_published_names_of_a_discriminator(shared_folder):
    shapes = shared_folder / "reference" / "shapes"
    theirs, ours = shapes_of(shapes / "rosinality_D_1024_cm2.tsv"), shapes_of(shapes / "nvidia_sg2ada_D_1024_configf.tsv")
    check_rows(discriminator_rows(9), discriminator_filters(9), theirs, ours, apart=set())


def check_rows(rows, filters, theirs, ours, apart):
    assert {row.theirs for row in rows} | filters[0].keys() == theirs.keys()
    assert {row.ours for row in rows} | set(filters[1]) | apart == ours.keys()
    for row in rows:
        assert theirs[row.theirs] == [1] * row.lead + ours[row.ours] + [1] * row.trail, row


def test_a_generator_there_and_back_is_the_same_to_the_last_bit(state):
    theirs = generator_to_rosinality(state)
    assert torch.equal(theirs["convs.0.conv.blur.kernel"], state["synthesis.b8.conv0.resample_filter"] * 4)
    back, notes = generator_from_rosinality(theirs, "a file")
    assert_same(back, {name: value for name, value in state.items() if name != "mapping.w_avg"})
    assert notes == []


def test_a_discriminator_there_and_back_is_the_same_to_the_last_bit(tiny_discriminator):
    state = tiny_discriminator.state_dict()
    assert_same(discriminator_from_rosinality(discriminator_to_rosinality(state), "a file"), state)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_training_file_becomes_its_moving_average(tmp_path, tiny_stylegan2, tiny_discriminator, is_zip):
    generator, trained = tiny_stylegan2(), tiny_stylegan2()
    trained.synthesis.b4.const.add_(1)
    optimiser = torch.optim.Adam(tiny_stylegan2().requires_grad_(True).parameters())
    file = {
        "g": generator_to_rosinality(trained.state_dict()),
        "d": discriminator_to_rosinality(tiny_discriminator.state_dict()),
        "g_ema": generator_to_rosinality(generator.state_dict()),
        "g_optim": optimiser.state_dict(),
        "args": argparse.Namespace(size=16, path="lmdb", r1=10.0),
        "ada_aug_p": 0.25,
        "latent_avg": generator.w_avg,
    }
    torch.save(file, tmp_path / "550000.pt", _use_new_zipfile_serialization=is_zip)
    found = load_generator(tmp_path / "550000.pt")
    assert_same(found.state_dict(), generator.state_dict())
    assert found.identity.name == "550000"
    checkpoint = read_checkpoint(tmp_path / "550000.pt")
    assert "rosinality's" in checkpoint.kind
    assert_same(build_weights(checkpoint.read("d"), "d").state_dict(), tiny_discriminator.state_dict())
    assert_same(build_weights(checkpoint.read("g"), "g").state_dict(), trained.state_dict())


def test_a_mean_of_w_that_is_absent_is_taken(tmp_path, tiny_stylegan2, monkeypatch):
    generator = tiny_stylegan2()
    torch.save({"g_ema": generator_to_rosinality(generator.state_dict())}, tmp_path / "g.pt")
    weights = read_checkpoint(tmp_path / "g.pt").read("g_ema")
    expected = generator.mapping.w(torch.randn(20000, 16, generator=torch.Generator().manual_seed(5)))
    assert (weights.tensors["mapping.w_avg"] - expected.mean(0)).abs().max() < 0.05 * expected.std()
    assert weights.notes == (f"latent_avg is absent: the mean of {checkpoints.W_AVG_SAMPLES} drawn codes is taken",)


def test_noise_constants_that_are_absent_are_drawn_alike_each_time(tmp_path, tiny_stylegan2):
    theirs = generator_to_rosinality(tiny_stylegan2().state_dict())
    older = {name: value for name, value in theirs.items() if not name.startswith("noises.")}
    torch.save({"g_ema": older, "latent_avg": torch.zeros(16)}, tmp_path / "g.pt")
    first, second = (read_checkpoint(tmp_path / "g.pt").read("g_ema") for _ in range(2))
    assert_same(first.tensors, second.tensors)
    assert "noise constants are absent" in first.notes[0]
    assert load_generator(tmp_path / "g.pt").num_ws == 6


def test_misfits_are_named_as_the_file_names_them(tmp_path, state):
    theirs = generator_to_rosinality(state)
    del theirs["convs.1.activate.bias"]
    theirs["extra"] = torch.zeros(1)
    theirs["to_rgb1.bias"] = torch.zeros(3)
    torch.save({"g_ema": theirs, "latent_avg": torch.zeros(16)}, tmp_path / "g.pt")
    with pytest.raises(CheckpointMismatch, match=r"g\.pt does not fit") as caught:
        load_generator(tmp_path / "g.pt")
    assert (caught.value.missing, caught.value.unexpected) == (["convs.1.activate.bias"], ["extra"])
    assert caught.value.misshapen == ["to_rgb1.bias"]


def test_another_filter_is_refused(state):
    theirs = generator_to_rosinality(state)
    theirs["to_rgbs.0.upsample.kernel"] = torch.ones(4, 4) / 4
    with pytest.raises(BrokenFile, match=r"to_rgbs\.0\.upsample\.kernel is not StyleGAN2's 1-3-3-1"):
        generator_from_rosinality(theirs, "a file")
    state["synthesis.b8.resample_filter"] = torch.ones(4, 4) / 16
    with pytest.raises(CannotConvert, match=r"synthesis\.b8\.resample_filter is another"):
        generator_to_rosinality(state)


def test_what_their_code_cannot_express_is_refused(tiny_stylegan2):
    with pytest.raises(CannotConvert, match=r"no place for mapping\.embed\.bias"):
        generator_to_rosinality(tiny_stylegan2(c_dim=3).state_dict())
