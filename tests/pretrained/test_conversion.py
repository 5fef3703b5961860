"""Do weights survive a change of format to the last bit, and does the toolkit say what a file is?"""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from generators.stylegan1 import StyleGAN1
from generators.stylegan2 import StyleGAN2Discriminator
from generators.stylegan3 import StyleGAN3
from invert.cli.models import command
from pretrained import conversion, safetensors
from pretrained.cache import sha256
from pretrained.checkpoints import read_checkpoint
from pretrained.conversion import convert, describe
from pretrained.errors import CannotConvert, ForeignFile
from pretrained.loading import build_weights, load_generator


def assert_same(network, expected):
    found, wanted = network.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.fixture
def pickle_file(write_nvidia, tiny_stylegan2, tiny_discriminator):
    return write_nvidia(G_ema=tiny_stylegan2(), D=tiny_discriminator)


@pytest.mark.parametrize("way", [["a.safetensors"], ["a.pt"], ["a.pt", "b.safetensors", "c.pt"], ["a.safetensors", "b.pt"]])
def test_every_way_through_the_formats_keeps_every_bit(pickle_file, tiny_stylegan2, tiny_discriminator, tmp_path, way):
    path = pickle_file
    for name in way:
        result = convert(path, tmp_path / name)
        assert (result.out, result.difference, result.notes) == (tmp_path / name, 0.0, ())
        path = result.out
    assert_same(load_generator(path), tiny_stylegan2())
    checkpoint = read_checkpoint(path)
    role = "discriminator" if path.suffix == ".safetensors" else "d"
    assert_same(build_weights(checkpoint.read(role), role), tiny_discriminator)


def test_codes_of_the_source_stay_codes_of_the_result(pickle_file, tmp_path):
    convert(pickle_file, tmp_path / "a.safetensors")
    assert load_generator(tmp_path / "a.safetensors").identity == load_generator(pickle_file).identity


def test_a_clamp_is_kept_in_safetensors_and_named_where_it_is_lost(write_nvidia, tiny_stylegan2, tmp_path):
    path = write_nvidia(extra={"conv_clamp": 256.0}, G_ema=tiny_stylegan2())
    convert(path, tmp_path / "a.safetensors")
    assert load_generator(tmp_path / "a.safetensors").conv_clamp == 256
    assert "has no conv_clamp=256" in convert(path, tmp_path / "a.pt").notes[0]


def test_images_that_differ_are_not_written(write_nvidia, tiny_stylegan2, tmp_path):
    path = write_nvidia(extra={"conv_clamp": 0.01}, G_ema=tiny_stylegan2())
    with pytest.raises(CannotConvert, match=r"a\.pt is not written: its images are .* off"):
        convert(path, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def test_labels_stay_in_safetensors_and_have_no_place_in_rosinality(write_nvidia, tiny_stylegan2, tmp_path):
    path = write_nvidia(G_ema=tiny_stylegan2(c_dim=3))
    assert convert(path, tmp_path / "a.safetensors").difference == 0
    assert_same(load_generator(tmp_path / "a.safetensors"), tiny_stylegan2(c_dim=3))
    with pytest.raises(CannotConvert, match="no place for"):
        convert(path, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def test_the_default_architecture_converts_too_but_not_to_rosinality(tiny_generator, tmp_path):
    safetensors.save(tmp_path / "m.safetensors", tiny_generator.state_dict(), {"name": "tiny", "licence": "CC0"})
    convert(tmp_path / "m.safetensors", tmp_path / "copy.safetensors")
    assert safetensors.load(tmp_path / "copy.safetensors")[1]["licence"] == "CC0"
    with pytest.raises(CannotConvert, match="draws with StyleGAN2 alone, and this is MobileStyleGAN"):
        convert(tmp_path / "m.safetensors", tmp_path / "m.pt")


def test_another_suffix_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(CannotConvert, match=r"expected a name that ends in \.safetensors or \.pt"):
        convert(tmp_path / "none.pkl", tmp_path / "out.bin")
    with pytest.raises(CannotConvert, match=r"hold the source code .* name a \.safetensors"):
        convert(tmp_path / "none.pt", tmp_path / "out.pkl")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"z_dim": 8}, r"one width for z, W and all between, and these are \[8, 16\]"),
        ({"mapping_features": 5}, r"these are \[5, 16\]"),
        ({"mapping_lr_multiplier": 0.1}, "at the learning rate 0.01, and this network at 0.1"),
        ({"architecture": "orig"}, "no place for"),
        ({"architecture": "resnet"}, "no place for"),
    ],
)
def test_a_generator_that_rosinalitys_code_cannot_express_is_refused(
    write_nvidia, tiny_stylegan2, tmp_path, arguments, words
):
    rate = arguments.get("mapping_lr_multiplier", 0.01)
    path = write_nvidia(extra={"bias_gain": rate, "conv_clamp": None}, G_ema=tiny_stylegan2(**arguments))
    with pytest.raises(CannotConvert, match=words):
        convert(path, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
    assert convert(path, tmp_path / "a.safetensors").difference == 0


@pytest.mark.parametrize("architecture", ["skip", "orig"])
def test_a_discriminator_that_rosinalitys_code_cannot_express_is_left_out(
    write_nvidia, tiny_stylegan2, tmp_path, architecture
):
    judge = StyleGAN2Discriminator(16, 0, 128, 16, architecture=architecture).eval()
    path = write_nvidia(G_ema=tiny_stylegan2(), D=judge)
    assert "the discriminator is left out: rosinality's code" in convert(path, tmp_path / "a.pt").notes[0]
    assert convert(path, tmp_path / "a.safetensors").notes == ()
    assert_same(build_weights(read_checkpoint(tmp_path / "a.safetensors").read("discriminator"), "it"), judge)


def test_stylegan1_and_stylegan3_become_safetensors_that_say_all(write_nvidia, tmp_path):
    sizes = {"z_dim": 8, "w_dim": 8, "margin_size": 4, "num_layers": 6, "channel_base": 256, "channel_max": 12}
    generator = StyleGAN3(32, **sizes, output_scale=0.5).eval().requires_grad_(False)
    path = write_nvidia(extra={"output_scale": 0.5, "num_critical": 2, "conv_clamp": 256.0}, G_ema=generator)
    assert convert(path, tmp_path / "3.safetensors").difference == 0
    assert load_generator(tmp_path / "3.safetensors").synthesis.output_scale == 0.5
    stylegan1 = StyleGAN1(32, 8, 8, 2, 128, 8, fused_from=16).eval().requires_grad_(False)
    arguments = {"arguments": {"fused_from": 16}}
    safetensors.save(tmp_path / "1.safetensors", stylegan1.state_dict(), arguments)
    assert convert(tmp_path / "1.safetensors", tmp_path / "again.safetensors").difference == 0
    assert load_generator(tmp_path / "again.safetensors").synthesis.layer4.is_fused
    with pytest.raises(CannotConvert, match="draws with StyleGAN2 alone, and this is StyleGAN1"):
        convert(tmp_path / "1.safetensors", tmp_path / "1.pt")


def test_a_discriminator_that_judges_otherwise_is_not_written(pickle_file, tmp_path, monkeypatch):
    write = conversion._write_safetensors

    def spoil(part, weights, discriminator, card):
        changed = {name: value + 0.1 for name, value in discriminator.tensors.items()}
        write(part, weights, conversion.Weights(discriminator.architecture, changed), card)

    monkeypatch.setattr(conversion, "_write_safetensors", spoil)
    with pytest.raises(CannotConvert, match="is not written"):
        convert(pickle_file, tmp_path / "a.safetensors")


def test_a_discriminator_that_does_not_fit_is_left_out_in_words(write_nvidia, tiny_stylegan2, tiny_discriminator, tmp_path):
    del tiny_discriminator.b4.out.bias
    result = convert(write_nvidia(G_ema=tiny_stylegan2(), D=tiny_discriminator), tmp_path / "a.safetensors")
    assert "the discriminator is left out" in result.notes[0]
    assert "b4.out.bias" in result.notes[0]
    assert list(read_checkpoint(tmp_path / "a.safetensors").readers) == ["generator"]


def test_a_check_that_finds_nothing_cannot_pass_by_itself(pickle_file, tmp_path, monkeypatch):
    write = conversion._write_safetensors

    def spoil(part, weights, discriminator, card):
        weights.tensors["synthesis.b16.torgb.bias"].add_(0.1)
        write(part, weights, discriminator, card)

    monkeypatch.setattr(conversion, "_write_safetensors", spoil)
    with pytest.raises(CannotConvert, match="is not written"):
        convert(pickle_file, tmp_path / "a.safetensors")


def test_a_file_is_described(pickle_file, tiny_stylegan2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    description = describe(pickle_file)
    assert (description.kind, description.licence) == ("pickle, NVIDIA's", "unknown")
    assert description.sha256 == sha256(pickle_file)
    generator, judge = description.networks
    assert (generator.role, generator.architecture, generator.resolution) == ("G_ema", "StyleGAN2", 16)
    assert (generator.num_ws, generator.w_dim, generator.c_dim, generator.problem) == (6, 16, 0, "")
    assert generator.parameters == sum(p.numel() for p in tiny_stylegan2().parameters())
    assert (judge.role, judge.architecture) == ("D", "StyleGAN2 discriminator")
    told = {"architecture": "skip", "z_dim": 16, "mapping_layers": 3, "channel_base": 128, "channel_max": 16}
    assert generator.arguments == told
    assert description.contents["training_set_kwargs"] == "1 entries"
    assert json.loads(json.dumps(description.json()))["networks"][0]["arguments"] == told
    assert "NVIDIA Source Code License" in describe(pickle_file.rename("stylegan2-ffhq-256x256.pkl")).licence


PROGAN = {"layer0.weight": torch.zeros(8, 8, 4, 4), "output0.weight": torch.zeros(3, 8, 1, 1)}
GENFORCE_SG2 = {"synthesis.early_layer.const": torch.zeros(1, 8, 4, 4), "truncation.w_avg": torch.zeros(8)}
UNUSABLE = {"ProGAN": PROGAN, "StyleGAN2 of genforce's": GENFORCE_SG2}


def test_what_is_missing_is_listed(write_nvidia, tiny_stylegan2):
    generator = tiny_stylegan2()
    del generator.synthesis.b8.conv0.noise_const
    problem = describe(write_nvidia(G_ema=generator)).networks[0].problem
    assert "1 missing (synthesis.b8.conv0.noise_const)" in problem


@pytest.mark.parametrize("is_wrapped", [True, False])
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_network_that_this_toolkit_does_not_have_is_named(tmp_path, name, is_wrapped):
    torch.save({"generator_smooth": UNUSABLE[name]} if is_wrapped else UNUSABLE[name], tmp_path / "g.pth")
    (network,) = describe(tmp_path / "g.pth").networks
    assert f"it is {name}" in network.problem
    with pytest.raises(ForeignFile, match=name):
        load_generator(tmp_path / "g.pth")


def test_the_command_shows_and_converts(pickle_file, tmp_path):
    shown = CliRunner().invoke(command, ["show", str(pickle_file)], catch_exceptions=False)
    assert "pickle, NVIDIA's" in shown.output
    assert "G_ema  StyleGAN2, 16 px, 6 styles of 16, " in shown.output
    assert "licence unknown" in shown.output
    assert "holds D: a network" in shown.output
    assert "holds augment_pipe: nothing" in shown.output
    assert "mapping layers 3, channel base 128, channel max 16" in shown.output
    as_json = CliRunner().invoke(command, ["show", str(pickle_file), "--json"], catch_exceptions=False)
    assert json.loads(as_json.output)["networks"][0]["role"] == "G_ema"
    out = tmp_path / "out.safetensors"
    done = CliRunner().invoke(command, ["convert", str(pickle_file), str(out)], catch_exceptions=False)
    assert "draws the same: largest difference 0.0e+00" in done.output
    assert out.is_file()


def test_the_command_shows_what_cannot_be_used(tmp_path):
    torch.save(PROGAN, tmp_path / "sg.pth")
    shown = CliRunner().invoke(command, ["show", str(tmp_path / "sg.pth")], catch_exceptions=False)
    assert "generator  ProGAN of genforce's, cannot be used: " in shown.output
