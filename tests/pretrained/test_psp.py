"""Is the generator inside a file of pSp, e4e or ReStyle found, with the mean of W that the file keeps beside it?"""

from __future__ import annotations

import argparse

import pytest
import torch

from pretrained.checkpoints import read_checkpoint
from pretrained.errors import ForeignFile
from pretrained.loading import load_generator
from pretrained.rosinality import generator_to_rosinality


@pytest.fixture
def write(tmp_path, tiny_stylegan2):
    def write_file(opts, latent_avg=None):
        decoder = generator_to_rosinality(tiny_stylegan2().state_dict())
        state = {"encoder.input_layer.0.weight": torch.zeros(64, 3, 3, 3)}
        state |= {f"decoder.{name}": value for name, value in decoder.items()}
        file = {"state_dict": state, "opts": opts}
        if latent_avg is not None:
            file["latent_avg"] = latent_avg
        torch.save(file, tmp_path / "psp_ffhq_encode.pt")
        return tmp_path / "psp_ffhq_encode.pt"

    return write_file


@pytest.mark.parametrize("opts", [{"output_size": 16}, argparse.Namespace(output_size=16, stylegan_size=16)], ids=str)
@pytest.mark.parametrize("rows", [1, 6])
def test_the_decoder_and_its_mean_are_read(write, tiny_stylegan2, opts, rows):
    generator = tiny_stylegan2()
    found = load_generator(write(opts, generator.w_avg.repeat(rows, 1))).state_dict()
    assert all(torch.equal(found[name], value) for name, value in generator.state_dict().items())


def test_a_mean_that_differs_from_layer_to_layer_is_averaged(write):
    weights = read_checkpoint(write({}, torch.arange(6.0)[:, None].expand(6, 16))).read("decoder")
    assert torch.equal(weights.tensors["mapping.w_avg"], torch.full([16], 2.5))
    assert weights.notes == ("latent_avg differs from layer to layer: its mean is taken",)


@pytest.mark.parametrize(
    ("opts", "family"),
    [
        ({"dataset_type": "ffhq_encode"}, "pSp's encoder"),
        ({"stylegan_size": 1024, "progressive_steps": [0]}, "e4e's encoder"),
        ({"n_iters_per_batch": 5}, "ReStyle's encoder"),
        (argparse.Namespace(delta_norm_lambda=2e-4), "e4e's encoder"),
        ({}, "pSp, e4e or ReStyle's encoder"),
    ],
    ids=str,
)
def test_the_project_is_told_by_the_options(write, opts, family):
    assert family in read_checkpoint(write(opts, torch.zeros(1, 16))).kind


def test_an_encoder_alone_is_no_generator(tmp_path):
    torch.save({"state_dict": {"encoder.input_layer.0.weight": torch.zeros(64, 3, 3, 3)}}, tmp_path / "e.pt")
    with pytest.raises(ForeignFile, match="it is an encoder of pSp, e4e or ReStyle without its generator"):
        load_generator(tmp_path / "e.pt")


@pytest.mark.parametrize("shape", [(5,), (6, 5)])
def test_a_mean_of_another_width_is_refused(write, shape):
    with pytest.raises(Exception, match=r"mapping\.w_avg"):
        load_generator(write({}, torch.zeros(shape)))
