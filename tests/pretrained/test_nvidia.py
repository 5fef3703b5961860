"""Do NVIDIA's pickles become networks, number for number, without their code?"""

from __future__ import annotations

import pickle

import pytest
import torch

from generators.base import Identity
from generators.stylegan2 import StyleGAN2
from pretrained.cache import sha256
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.loading import build_weights, load_generator
from pretrained.nvidia import discriminator_arguments, stylegan2_arguments


def assert_same_tensors(network, expected):
    found, wanted = network.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_becomes_its_moving_average(write_nvidia, tiny_stylegan2, tiny_discriminator, protocol):
    average = tiny_stylegan2()
    other = tiny_stylegan2()
    other.synthesis.b4.const.mul_(2)
    path = write_nvidia("ffhq.weights", protocol, G=other, D=tiny_discriminator, G_ema=average)
    generator = load_generator(path)
    assert isinstance(generator, StyleGAN2)
    assert_same_tensors(generator, average)
    assert generator.identity == Identity("ffhq", sha256(path))
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.readers) == ["G_ema", "G", "D"]
    assert_same_tensors(build_weights(checkpoint.read("G"), "G"), other)
    assert_same_tensors(build_weights(checkpoint.read("D"), "D"), tiny_discriminator)


def test_only_the_moving_average_is_needed(write_nvidia, tiny_stylegan2):
    path = write_nvidia(G_ema=tiny_stylegan2(), D=None)
    assert_same_tensors(load_generator(path), tiny_stylegan2())
    assert list(read_checkpoint(path).readers) == ["G_ema"]


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_generator_saved_by_itself_is_read_too(write_nvidia, tiny_stylegan2, is_zip):
    def save(value, file):
        torch.save(value, file, _use_new_zipfile_serialization=is_zip)

    path = write_nvidia("model_1.pt", save=save, alone=tiny_stylegan2())
    assert_same_tensors(load_generator(path), tiny_stylegan2())


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"c_dim": 5, "mapping_layers": 2},
        {"architecture": "resnet"},
        {"architecture": "orig"},
        {"z_dim": 24, "channel_base": 64},
        {"channel_base": 10**6},
    ],
    ids=str,
)
def test_arguments_are_deduced_from_names_and_shapes(write_nvidia, tiny_stylegan2, arguments):
    generator = tiny_stylegan2(**arguments)
    found = load_generator(write_nvidia(G_ema=generator))
    assert_same_tensors(found, generator)
    assert (found.z_dim, found.c_dim) == (generator.z_dim, generator.c_dim)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["G_1024_configf", "G_32_cond10_auto", "D_1024_configf", "D_32_cond10"])
def test_published_shapes_give_published_arguments(shared_folder, name):
    lines = (shared_folder / "reference" / "shapes" / f"nvidia_sg2ada_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    with torch.device("meta"):
        tensors = {name: torch.empty([int(n) for n in shape[1:-1].split(",") if n.strip()]) for name, _, shape in rows}
    found = (stylegan2_arguments if name.startswith("G") else discriminator_arguments)(tensors)
    is_small = "cond10" in name
    expected = {"img_resolution": 32 if is_small else 1024, "c_dim": 10 if is_small else 0, "channel_max": 512}
    # At 32 px every layer has the most channels, so that any larger base is the same network.
    expected["channel_base"] = 16384 if is_small else 32768
    assert found | expected == found
    if name.startswith("G"):
        layers = 2 if is_small else 8
        assert found | {"z_dim": 512, "w_dim": 512, "mapping_layers": layers, "architecture": "skip"} == found


def test_the_clamp_comes_from_the_file_since_no_shape_tells_it(write_nvidia, tiny_stylegan2):
    assert load_generator(write_nvidia(extra={"conv_clamp": 256}, G_ema=tiny_stylegan2())).conv_clamp == 256
    assert load_generator(write_nvidia(extra={"conv_clamp": None}, G_ema=tiny_stylegan2())).conv_clamp is None
    assert load_generator(write_nvidia(extra={"conv_clamp": "256"}, G_ema=tiny_stylegan2())).conv_clamp is None


def test_half_precision_is_read_as_single(write_nvidia, tiny_stylegan2):
    generator = load_generator(write_nvidia(G_ema=tiny_stylegan2().half()))
    assert {value.dtype for value in generator.state_dict().values()} == {torch.float32}
    assert_same_tensors(generator, tiny_stylegan2().half().float())


def test_missing_and_unexpected_tensors_are_named_by_group(write_nvidia, tiny_stylegan2):
    generator = tiny_stylegan2()
    del generator.synthesis.b8.conv0.noise_const
    generator.synthesis.b4.register_buffer("surplus", torch.zeros(1))
    generator.mapping.w_avg = torch.zeros(15)
    with pytest.raises(CheckpointMismatch, match=r"network\.pkl does not fit") as caught:
        load_generator(write_nvidia(G_ema=generator))
    assert caught.value.missing == ["synthesis.b8.conv0.noise_const"]
    assert caught.value.unexpected == ["synthesis.b4.surplus"]
    assert caught.value.misshapen == ["mapping.w_avg"]


def test_a_file_with_a_discriminator_alone_is_no_generator(write_nvidia, tiny_discriminator):
    with pytest.raises(BrokenFile, match=r"network\.pkl: no generator in it, but D"):
        load_generator(write_nvidia(D=tiny_discriminator))


def test_a_network_that_holds_itself_is_refused(tmp_path):
    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value

    record = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(" + text(b"type") + text(b"class") + text(b"state")
    record += b"}q\x01u\x85Rq\x020"
    path = tmp_path / "endless.pkl"
    path.write_bytes(record + b"h\x01" + text(b"_modules") + b"}" + text(b"x") + b"h\x02ss0}" + text(b"G") + b"h\x02s.")
    with pytest.raises(BrokenFile, match=r"endless\.pkl: a damaged network: x\.x\.x"):
        load_generator(path)


def test_a_tensorflow_pickle_is_known_and_refused_in_words(tmp_path):
    path = tmp_path / "stylegan2-ffhq-config-f.pkl"
    path.write_bytes(pickle.dumps(("G", "D", "Gs"))[:-1] + b"cdnnlib.tflib.network\nNetwork\n.")
    with pytest.raises(ForeignFile, match=r"stylegan2-ffhq-config-f\.pkl: a TensorFlow pickle of NVIDIA's: convert it with"):
        load_generator(path)
