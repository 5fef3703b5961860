"""Are generator and encoder in a file of pSp, e4e or ReStyle found, with the mean of W that the file keeps beside them?"""

from __future__ import annotations

import argparse
import itertools

import pytest
import torch

from encoders.psp import IRSEEncoder
from encoders.restyle import ResNetEncoder
from generators.base import Identity
from generators.errors import UnknownName
from pretrained.arguments import encoder_arguments
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.loading import load_encoder, load_generator, save_encoder
from pretrained.psp import ENCODERS, METHODS, choose, encoder_architecture
from pretrained.rosinality import generator_to_rosinality

HEADS = {"input_layer.0.weight", "styles.0.linear.weight"}
RESNET = {"conv1.weight", "body.0.conv1.weight", "styles.0.linear.weight"}


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
    with pytest.raises(BrokenFile, match="no generator in it, but encoder"):
        load_generator(tmp_path / "e.pt")


@pytest.mark.parametrize("shape", [(5,), (6, 5)])
def test_a_mean_of_another_width_is_refused(write, shape):
    with pytest.raises(Exception, match=r"mapping\.w_avg"):
        load_generator(write({}, torch.zeros(shape)))


@pytest.fixture
def build_encoder(monkeypatch):
    """A builder of encoders for the tiny generator, with a short backbone."""
    for backbone in (IRSEEncoder, ResNetEncoder):
        monkeypatch.setattr(backbone, "units", (1, 1, 1, 1))

    def build(name, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ENCODERS[name](**({"num_ws": 6, "w_dim": 16} | arguments)).eval().requires_grad_(False)

    return build


@pytest.fixture
def write_encoder(tmp_path, tiny_stylegan2):
    def write_file(encoder, decoder=True, name="model.pt", prefix="", **entries):
        state = {f"{prefix}encoder.{key}": value for key, value in encoder.state_dict().items() if key != "w_avg"}
        if decoder:
            names = generator_to_rosinality(tiny_stylegan2().state_dict())
            state |= {f"{prefix}decoder.{key}": value for key, value in names.items()}
        torch.save({"state_dict": state, **entries}, tmp_path / name)
        return tmp_path / name

    return write_file


@pytest.fixture
def rewrite():
    """Change the tensors of a file."""

    def change(path, tensors):
        file = torch.load(path)
        torch.save(file | {"state_dict": tensors(file["state_dict"])}, path)
        return path

    return change


def a_face(channels=3):
    return torch.rand(1, channels, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("container", [dict, argparse.Namespace])
def test_every_published_encoder_comes_back_with_its_mean(name, container, build_encoder, write_encoder):
    encoder = build_encoder(name)
    mean = torch.linspace(-1, 1, 16)
    path = write_encoder(encoder, latent_avg=mean.repeat(6, 1), opts=container(encoder_type=name, output_size=16))
    found = load_encoder(path)
    assert type(found) is ENCODERS[name]
    assert (found.num_ws, found.w_dim, found.in_channels) == (6, 16, encoder.in_channels)
    assert torch.equal(found.w_avg, mean.repeat(6, 1))
    assert not found.training
    for key, value in encoder.state_dict().items():
        assert key == "w_avg" or torch.equal(found.state_dict()[key], value), key
    assert found.identity.fits(load_generator(path).identity)


def test_the_code_is_the_encoders_output_plus_the_mean(build_encoder, write_encoder):
    encoder, mean = build_encoder("GradualStyleEncoder"), torch.linspace(-1, 1, 16)
    found = load_encoder(write_encoder(encoder, latent_avg=mean[None], opts={"encoder_type": "GradualStyleEncoder"}))
    torch.testing.assert_close(found(a_face()), encoder(a_face()) + mean)


@pytest.mark.parametrize(("opts", "is_counted"), [({"start_from_latent_avg": False, "output_size": 16}, False), ({}, True)])
def test_without_a_mean_the_decoders_is_taken_unless_the_training_had_none(
    opts, is_counted, build_encoder, write_encoder, tiny_stylegan2
):
    told = []
    path = write_encoder(build_encoder("GradualStyleEncoder"), opts=opts)
    found = load_encoder(path, method="psp", notify=told.append)
    expected = load_generator(path, notify=told.append).w_avg if is_counted else torch.zeros(16)
    assert torch.equal(found.w_avg, expected.repeat(6, 1))
    assert bool(told and "mean of W" in told[0]) == is_counted


def test_an_encoder_alone_needs_its_mean(build_encoder, write_encoder):
    encoder = build_encoder("GradualStyleEncoder")
    with pytest.raises(BrokenFile, match="without latent_avg"):
        load_encoder(write_encoder(encoder, decoder=False), method="psp")
    alone = load_encoder(write_encoder(encoder, decoder=False, latent_avg=torch.ones(16)), method="psp")
    assert torch.equal(alone.w_avg, torch.ones(6, 16))


def test_a_mean_may_be_a_batch_of_one(build_encoder, write_encoder):
    mean = torch.linspace(-1, 1, 96).view(6, 16)
    path = write_encoder(build_encoder("GradualStyleEncoder"), latent_avg=mean[None])
    assert torch.equal(load_encoder(path, method="psp").w_avg, mean)


@pytest.mark.parametrize("shape", [(5, 16), (6, 15), (), (0,), (2, 6, 16)])
def test_a_mean_of_another_shape_is_refused(shape, build_encoder, write_encoder):
    path = write_encoder(build_encoder("GradualStyleEncoder"), latent_avg=torch.zeros(shape))
    with pytest.raises((BrokenFile, CheckpointMismatch), match=r"latent_avg|w_avg|shape"):
        load_encoder(path, method="psp")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_compiled_networks_are_read(prefix, build_encoder, write_encoder):
    encoder = build_encoder("GradualStyleEncoder")
    path = write_encoder(encoder, prefix=prefix, latent_avg=torch.zeros(6, 16), opts={"learn_in_w": False})
    assert torch.equal(load_encoder(path)(a_face()), encoder(a_face()))
    load_generator(path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_alone_is_read(prefix, build_encoder, write_encoder, tmp_path):
    encoder, told = build_encoder("GradualStyleEncoder"), []
    torch.save(torch.load(write_encoder(encoder, prefix=prefix))["state_dict"], tmp_path / "bare.pt")
    generator = load_generator(tmp_path / "bare.pt", notify=told.append)
    with pytest.raises(ForeignFile, match="use the method psp or e4e"):
        load_encoder(tmp_path / "bare.pt")
    found = load_encoder(tmp_path / "bare.pt", method="psp", notify=told.append)
    torch.testing.assert_close(found(a_face()), encoder(a_face()) + generator.w_avg)
    assert [note for note in told if "latent_avg is absent" in note] == told
    assert "pSp, e4e or ReStyle's encoder and decoder" in read_checkpoint(tmp_path / "bare.pt").kind


def test_a_state_dict_of_others_with_an_encoder_is_not_taken_for_psps(tmp_path):
    torch.save({"encoder.conv.weight": torch.zeros(1), "decoder.conv.weight": torch.zeros(1)}, tmp_path / "vae.pt")
    assert "pSp" not in read_checkpoint(tmp_path / "vae.pt").kind


def test_names_of_a_compiled_encoder_are_read(build_encoder, write_encoder, rewrite):
    encoder = build_encoder("GradualStyleEncoder")
    path = write_encoder(encoder, latent_avg=torch.zeros(6, 16), opts={"learn_in_w": False})
    rewrite(path, lambda state: {name.replace("encoder.", "encoder._orig_mod."): value for name, value in state.items()})
    assert torch.equal(load_encoder(path)(a_face()), encoder(a_face()))


def test_sketches_and_half_precision_and_names_of_many_devices_are_read(build_encoder, write_encoder):
    encoder = build_encoder("Encoder4Editing", in_channels=1).half()
    path = write_encoder(encoder, prefix="module.", latent_avg=torch.zeros(6, 16), opts={"stylegan_size": 16})
    found = load_encoder(path)
    assert (type(found).__name__, found.in_channels) == ("Encoder4Editing", 1)
    assert found.input_layer[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "tensors",
    [
        lambda state: {name: value.half() for name, value in state.items()},
        lambda state: {name: value.half() for name, value in state.items() if not name.endswith("num_batches_tracked")},
    ],
    ids=["narrowed", "absent"],
)
def test_counts_of_batches_may_be_narrowed_or_absent(tensors, build_encoder, write_encoder, rewrite):
    encoder = build_encoder("GradualStyleEncoder")
    for name, value in encoder.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(70_000)  # Infinite in half precision.
    path = write_encoder(encoder, latent_avg=torch.zeros(6, 16), opts={"encoder_type": "GradualStyleEncoder"})
    found = load_encoder(rewrite(path, tensors))
    assert found.body[0].res_layer[0].num_batches_tracked.dtype == torch.int64
    torch.testing.assert_close(found(a_face()), encoder.half().float()(a_face()))


def test_tensors_that_are_missing_are_named(build_encoder, write_encoder):
    encoder = build_encoder("GradualStyleEncoder")
    del encoder.body[3].res_layer[1].weight
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(body\.3\.res_layer\.1\.weight\)"):
        load_encoder(write_encoder(encoder, latent_avg=torch.zeros(6, 16)), method="psp")


def test_a_file_without_options_asks_which_of_two_it_is(build_encoder, write_encoder):
    path = write_encoder(build_encoder("GradualStyleEncoder"), latent_avg=torch.zeros(6, 16))
    with pytest.raises(ForeignFile, match="use the method psp or e4e"):
        load_encoder(path)
    assert type(load_encoder(path, method="psp")) is ENCODERS["GradualStyleEncoder"]
    assert type(load_encoder(path, method="e4e")) is ENCODERS["Encoder4Editing"]
    with pytest.raises(ForeignFile, match="not one of restyle-e4e"):
        load_encoder(path, method="restyle-e4e")


def test_a_generators_file_holds_no_encoder(write_encoder, build_encoder, tmp_path, tiny_stylegan2):
    torch.save({"g_ema": generator_to_rosinality(tiny_stylegan2().state_dict())}, tmp_path / "g.pt")
    with pytest.raises(BrokenFile, match="no encoder in it, but g_ema"):
        load_encoder(tmp_path / "g.pt")
    with pytest.raises(UnknownName, match="encoder"):
        load_encoder("no-such-encoder")


@pytest.mark.parametrize("name", ["GradualStyleEncoder", "BackboneEncoder", "ResNetBackboneEncoder"])
def test_a_published_encoder_is_saved_as_safetensors_and_comes_back(name, build_encoder, tmp_path):
    encoder = build_encoder(name)
    encoder.w_avg += 0.5
    save_encoder(tmp_path / "e.safetensors", encoder, Identity("mine", "0" * 64))
    found = load_encoder(tmp_path / "e.safetensors")
    assert type(found) is type(encoder)
    assert found.identity == Identity("mine", "0" * 64)
    with pytest.raises(ForeignFile, match="not of e4e"):
        load_encoder(tmp_path / "e.safetensors", method="e4e")
    for key, value in encoder.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(found.state_dict()[key], expected), key


@pytest.mark.parametrize("name", ["Encoder4Editing", "ResNetBackboneEncoder"])
def test_an_encoder_of_cars_does_not_look_at_the_bars(name, build_encoder, write_encoder, tmp_path):
    encoder = build_encoder(name, bars=32)
    opts = {"encoder_type": name, "dataset_type": "cars_encode", "stylegan_size": 16}
    found = load_encoder(write_encoder(encoder, latent_avg=torch.zeros(6, 16), opts=opts))
    image = a_face(encoder.in_channels)
    assert found.bars == 32
    assert torch.equal(found(image), encoder(image))
    save_encoder(tmp_path / "car.safetensors", found, Identity("mine"))
    assert load_encoder(tmp_path / "car.safetensors").bars == 32


def test_bars_that_leave_nothing_to_see_are_refused(build_encoder, tmp_path):
    save_encoder(tmp_path / "e.safetensors", build_encoder("BackboneEncoder", bars=128), Identity("mine"))
    with pytest.raises(BrokenFile, match=r"e\.safetensors: its bars is '128': expected a number from 0 to 96"):
        load_encoder(tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    ("names", "options", "architecture"),
    [
        (HEADS | {"latlayer1.weight"}, {"encoder_type": "GradualStyleEncoder"}, "GradualStyleEncoder"),
        (HEADS | {"latlayer1.weight"}, {"encoder_type": "Encoder4Editing"}, "Encoder4Editing"),
        (HEADS | {"latlayer1.weight"}, {"delta_norm_lambda": 0.0}, "Encoder4Editing"),
        (HEADS | {"latlayer1.weight"}, {"learn_in_w": False}, "GradualStyleEncoder"),
        (HEADS | {"latlayer1.weight"}, {"encoder_type": 3}, "GradualStyleEncoder or Encoder4Editing"),
        (HEADS, {"encoder_type": "BackboneEncoder"}, "BackboneEncoder"),
        (HEADS, {"n_iters_per_batch": 5}, "BackboneEncoder"),
        (HEADS, {"n_iters_per_batch": 5, "progressive_steps": None}, "ProgressiveBackboneEncoder"),
        (HEADS, {}, "BackboneEncoder or ProgressiveBackboneEncoder"),
        (RESNET, {"encoder_type": "ResNetBackboneEncoder"}, "ResNetBackboneEncoder"),
        (RESNET, {"n_iters_per_batch": 5, "progressive_start": 1}, "ResNetProgressiveBackboneEncoder"),
        (RESNET, {}, "ResNetBackboneEncoder or ResNetProgressiveBackboneEncoder"),
        ({"input_layer.0.weight", "linear.weight"}, {}, "BackboneEncoderUsingLastLayerIntoW"),
        ({"input_layer.0.weight", "output_layer_2.3.weight"}, {}, "BackboneEncoderUsingLastLayerIntoWPlus"),
    ],
)
def test_names_and_options_tell_which_encoder_it_is(names, options, architecture):
    assert encoder_architecture(dict.fromkeys(names), options) == architecture


@pytest.mark.parametrize(("names", "what"), [(RESNET | {"latlayer1.weight"}, "ResNet-34"), ({"a"}, "unknown")])
def test_encoders_of_other_kinds_are_named(names, what):
    with pytest.raises(ForeignFile, match=what):
        encoder_architecture(dict.fromkeys(names), {})


@pytest.mark.parametrize(
    ("candidates", "method"), list(itertools.product([list(ENCODERS)[:1], list(ENCODERS)[3:4]], METHODS))
)
def test_a_method_chooses_only_what_is_of_its_kind(candidates, method):
    if set(candidates) <= set(METHODS[method]):
        assert choose(candidates, method) == candidates[0]
    else:
        with pytest.raises(ForeignFile, match=f"not one of {method}"):
            choose(candidates, method)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"w_avg": torch.zeros(18)},
        {"w_avg": torch.zeros(18, 512)},
        {"w_avg": torch.zeros(18, 512), "input_layer.0.weight": torch.zeros(64)},
        {"w_avg": torch.zeros(0, 512), "input_layer.0.weight": torch.zeros(64, 3, 3, 3)},
        {"w_avg": torch.zeros(65, 1), "input_layer.0.weight": torch.zeros(64, 3, 3, 3)},
    ],
    ids=str,
)
def test_an_encoder_of_impossible_sizes_is_refused_without_building(tensors):
    with pytest.raises(BrokenFile, match="encoder"):
        encoder_arguments(tensors)


def test_a_single_style_takes_its_layers_from_the_generator(build_encoder, write_encoder):
    encoder = build_encoder("BackboneEncoderUsingLastLayerIntoW")
    mean = torch.zeros(1, 16)
    assert load_encoder(write_encoder(encoder, latent_avg=mean)).num_ws == 6
    assert load_encoder(write_encoder(encoder, decoder=False, latent_avg=mean, opts={"output_size": 256})).num_ws == 14
    assert load_encoder(write_encoder(encoder, decoder=False, latent_avg=mean)).num_ws == 18
    for odd in (3, True, "1024", 10**30):
        with pytest.raises(BrokenFile):
            load_encoder(write_encoder(encoder, decoder=False, latent_avg=mean, opts={"output_size": odd}))
