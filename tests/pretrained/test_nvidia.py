"""Do NVIDIA's pickles become networks, number for number, without their code?"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from generators.base import Identity
from generators.stylegan2 import StyleGAN2, StyleGAN2Discriminator
from generators.stylegan3 import StyleGAN3
from pretrained.arguments import discriminator_arguments, stylegan2_arguments, stylegan3_arguments
from pretrained.cache import sha256
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.loading import build_weights, load_generator


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


@pytest.mark.parametrize("clamp", ["256", -1.0, float("nan"), True, [256], {"a": 1}])
def test_a_clamp_that_is_no_number_is_refused(write_nvidia, tiny_stylegan2, clamp):
    with pytest.raises(BrokenFile, match=r"its conv_clamp is .*: expected a number"):
        load_generator(write_nvidia(extra={"conv_clamp": clamp}, G_ema=tiny_stylegan2()))


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


STYLEGAN3 = {"img_resolution": 32, "z_dim": 8, "w_dim": 8, "num_layers": 6, "margin_size": 4, "channel_max": 12}
PUBLISHED_R = {"kernel_size": 1, "radial": True}
UNUSUAL = {"first_cutoff": 3.0, "first_stopband": 2**2.4, "last_stopband_rel": 2**0.4, "num_critical": 3}
FILTERS = {"filter_size": 4, "lrelu_upsampling": 4, "output_scale": 0.5, "conv_clamp": 1.5}


def told_by(arguments):
    """Return what a module of StyleGAN3 tells of its arguments in NVIDIA's files, beside its tensors."""

    def tell(module):
        match type(module).__name__:
            case "StyleGAN3Synthesis":
                keywords = ("first_stopband", "last_stopband_rel", "filter_size", "lrelu_upsampling")
                attributes = ("num_critical", "margin_size", "output_scale")
                given = {name: arguments[name] for name in attributes if name in arguments}
                return given | {"_init_kwargs": {name: arguments[name] for name in keywords if name in arguments}}
            case "FilteredLayer":
                return {"conv_clamp": module.conv_clamp}
            case "FourierInput":
                return {"bandwidth": np.float64(module.band.cutoff)}
        return {}

    return tell


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        PUBLISHED_R,
        UNUSUAL,
        FILTERS,
        {"conv_clamp": None, "mapping_layers": 1},
        {"c_dim": 3, "mapping_layers": 4},
        {"channel_base": 777, "channel_max": 31},
        {"channel_base": 101},
    ],
    ids=str,
)
def test_a_stylegan3_becomes_itself(write_nvidia, arguments):
    sizes = {"channel_base": 512} | STYLEGAN3 | arguments
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN3(**sizes).eval().requires_grad_(False)
    found = load_generator(write_nvidia(extra=told_by(sizes), G_ema=generator))
    assert isinstance(found, StyleGAN3)
    assert_same_tensors(found, generator)
    w_plus = torch.randn(2, generator.num_ws, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.synthesis(w_plus), generator.synthesis(w_plus))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["T_1024", "T_256", "R_1024"])
def test_published_shapes_of_stylegan3_give_published_arguments(shared_folder, name):
    lines = (shared_folder / "reference" / "shapes" / f"nvidia_sg3_G_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    with torch.device("meta"):
        tensors = {name: torch.empty([int(n) for n in shape[1:-1].split(",") if n.strip()]) for name, _, shape in rows}
    found = stylegan3_arguments(tensors)
    expected = {"T_1024": (32768, 512, 3), "T_256": (16384, 512, 3), "R_1024": (65536, 1024, 1)}[name]
    assert (found["channel_base"], found["channel_max"], found["kernel_size"]) == expected
    assert found["radial"] == (name == "R_1024")
    with torch.device("meta"):
        assert StyleGAN3(**found).state_dict().keys() == tensors.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        {"architecture": "orig"},
        {"architecture": "skip"},
        {"c_dim": 3, "cmap_dim": 9, "mapping_layers": 2},
        {"c_dim": 3, "mapping_features": 7, "embed_features": 5},
        {"mbstd_num_channels": 0},
        {"mbstd_num_channels": 2},
        {"channel_base": 1007, "channel_max": 99},
    ],
    ids=str,
)
def test_a_discriminator_of_any_kind_becomes_itself(write_nvidia, arguments):
    sizes = {"channel_base": 128, "channel_max": 16} | arguments
    discriminator = StyleGAN2Discriminator(16, **sizes).eval().requires_grad_(False)
    checkpoint = read_checkpoint(write_nvidia(D=discriminator))
    found = build_weights(checkpoint.read("D"), "D")
    assert_same_tensors(found, discriminator)
    images, labels = torch.randn(4, 3, 16, 16), torch.eye(4)[:, :3] if "c_dim" in arguments else None
    assert torch.equal(found(images, labels), discriminator(images, labels))


def test_a_learning_rate_and_a_group_come_from_the_file_since_no_shape_tells_them(write_nvidia, tiny_stylegan2):
    generator = tiny_stylegan2(mapping_lr_multiplier=0.1)
    found = load_generator(write_nvidia(extra={"bias_gain": 0.1}, G_ema=generator))
    z = torch.randn(2, 16)
    assert torch.equal(found.mapping(z), generator.mapping(z))
    assert not torch.allclose(load_generator(write_nvidia(G_ema=generator)).mapping(z), generator.mapping(z))


def test_layers_that_bend_in_another_way_are_refused_by_name(write_nvidia, tiny_stylegan2):
    with pytest.raises(ForeignFile, match=r"its layer .* bends with 'relu', where this toolkit knows 'lrelu'"):
        load_generator(write_nvidia(extra={"activation": "relu"}, G_ema=tiny_stylegan2()))


def test_other_colours_and_filters_are_refused_in_words(write_nvidia, tiny_stylegan2):
    generator = tiny_stylegan2()
    generator.synthesis.b16.torgb.weight = torch.nn.Parameter(torch.zeros(1, 8, 1, 1))
    with pytest.raises(ForeignFile, match="a StyleGAN2 of 1 colour channels"):
        load_generator(write_nvidia(G_ema=generator))
    generator = tiny_stylegan2()
    generator.synthesis.b8.resample_filter = torch.ones(3, 3)
    with pytest.raises(ForeignFile, match=r"b8\.resample_filter has the shape \(3, 3\)"):
        load_generator(write_nvidia(G_ema=generator))


def test_a_network_that_was_trained_without_noise_gets_silent_noise(write_nvidia, tiny_stylegan2):
    generator, silent = tiny_stylegan2(), tiny_stylegan2()
    for resolution in (4, 8, 16):
        for name in ("conv0", "conv1")[resolution == 4 :]:
            layer = getattr(getattr(generator.synthesis, f"b{resolution}"), name)
            del layer.noise_const, layer.noise_strength
            getattr(getattr(silent.synthesis, f"b{resolution}"), name).noise_strength.zero_()
    path = write_nvidia(G_ema=generator)
    codes = torch.randn(1, 6, 16)
    assert torch.equal(load_generator(path).synthesis(codes), silent.synthesis(codes))
    assert "without noise" in read_checkpoint(path).read("G_ema").notes[0]
