"""Do the files of StyleGAN1's two PyTorch ports become networks that draw the same?"""

from __future__ import annotations

import re

import pytest
import torch

from generators.stylegan1 import StyleGAN1
from pretrained.arguments import stylegan1_arguments
from pretrained.checkpoints import read_checkpoint
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.loading import build_weights, load_generator

BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
SIZES = {"z_dim": 8, "w_dim": 6, "mapping_layers": 3, "channel_base": 128, "channel_max": 12}


def network(**arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN1(**({"img_resolution": 32} | SIZES | arguments)).eval().requires_grad_(False)
        for name, value in generator.state_dict().items():
            if name.endswith(("bias", "apply_noise.weight", "w_avg", "const")):
                value.normal_()
    return generator


def genforce(generator):
    """Name the tensors as genforce does."""
    named = {re.sub(r"^mapping\.w_avg", "truncation.w_avg", name): value for name, value in generator.state_dict().items()}
    return named | {"synthesis.layer2.blur.kernel": BLUR.repeat(12, 1, 1, 1)}


def interfacegan(generator):
    """Name the tensors as InterFaceGAN does; kernels of fused layers are those of TensorFlow."""
    named = {"truncation.truncation": torch.ones(1, generator.num_ws, 1)}
    for name, value in genforce(generator).items():
        if match := re.fullmatch(r"synthesis\.(layer\d+)\.weight", name):
            is_fused = generator.synthesis.get_submodule(match[1]).is_fused
            named[name if is_fused else name.replace(".weight", ".conv.weight")] = (
                value.permute(2, 3, 1, 0) if is_fused else value
            )
            continue
        for ours, theirs in (
            (r"mapping\.(dense\d)\.weight", r"mapping.\1.linear.weight"),
            (r"mapping\.(dense\d)\.bias", r"mapping.\1.wscale.bias"),
            (r"synthesis\.layer0\.const", "synthesis.layer0.first_layer"),
            (r"synthesis\.(output\d)\.weight", r"synthesis.\1.conv.weight"),
            (r"synthesis\.(layer\d+)\.style\.weight", r"synthesis.\1.epilogue.style_mod.dense.linear.weight"),
            (r"synthesis\.(layer\d+)\.style\.bias", r"synthesis.\1.epilogue.style_mod.dense.wscale.bias"),
            (r"synthesis\.(layer\d+)\.(bias|apply_noise\..+)", r"synthesis.\1.epilogue.\2"),
        ):
            if re.fullmatch(ours, name):
                name = re.sub(ours, theirs, name)
                break
        named[name] = value
    return named


def assert_same(found, expected):
    assert isinstance(found, StyleGAN1)
    state, wanted = found.state_dict(), expected.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    codes = torch.randn(1, expected.num_ws, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.synthesis(codes), expected.synthesis(codes))


@pytest.mark.parametrize("wrap", [lambda file: file, lambda file: {"models": file, "running_metadata": {"iter": 7}}])
def test_genforces_moving_average_is_preferred(tmp_path, wrap):
    average, trained = network(), network()
    trained.synthesis.layer0.const.add_(1)
    average.synthesis.lod.fill_(0.5)
    file = {"generator": genforce(trained), "discriminator": {"input0.weight": torch.zeros(8, 3, 1, 1)}}
    torch.save(wrap(file | {"generator_smooth": genforce(average)}), tmp_path / "stylegan.pth")
    assert_same(load_generator(tmp_path / "stylegan.pth"), average)
    assert_same(load_generator(tmp_path / "stylegan.pth", which="generator"), trained)
    checkpoint = read_checkpoint(tmp_path / "stylegan.pth")
    assert "genforce's" in checkpoint.kind
    with pytest.raises(ForeignFile, match="discriminator of genforce's"):
        build_weights(checkpoint.read("discriminator"), "it")


@pytest.mark.parametrize("fused_from", [16, 32, 128])
def test_interfacegans_names_tell_which_layers_are_fused(tmp_path, fused_from):
    generator = network(fused_from=fused_from)
    torch.save(interfacegan(generator), tmp_path / "stylegan_ffhq.pth")
    assert_same(load_generator(tmp_path / "stylegan_ffhq.pth"), generator)


def test_published_shapes_give_published_arguments():
    with torch.device("meta"):
        tensors = StyleGAN1().state_dict()
    found = stylegan1_arguments(tensors)
    expected = {"img_resolution": 1024, "z_dim": 512, "w_dim": 512, "mapping_layers": 8}
    assert found == expected | {"channel_base": 16384, "channel_max": 512}


def test_another_blur_is_refused(tmp_path):
    torch.save(genforce(network()) | {"synthesis.layer4.blur.kernel": torch.ones(12, 1, 3, 3) / 9}, tmp_path / "g.pth")
    with pytest.raises(BrokenFile, match=r"the blur synthesis\.layer4\.blur\.kernel is not StyleGAN1's 1-2-1"):
        load_generator(tmp_path / "g.pth")


def test_what_is_missing_is_named(tmp_path):
    state = genforce(network())
    del state["synthesis.layer3.apply_noise.noise"]
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(synthesis\.layer3\.apply_noise\.noise\)"):
        load_generator(tmp_path / "g.pth")


@pytest.mark.parametrize("name", ["synthesis.output0.weight", "mapping.dense2.linear.weight", "synthesis.layer4.weight"])
@pytest.mark.parametrize("value", [None, torch.zeros(()), torch.zeros(0), torch.zeros(3, 1, 1)], ids=str)
def test_tensors_that_are_gone_or_odd_are_refused(tmp_path, name, value):
    state = interfacegan(network(fused_from=16))
    name = name if name in state else name.replace(".weight", ".conv.weight")
    del state[name]
    torch.save(state if value is None else state | {name: value}, tmp_path / "g.pth")
    with pytest.raises((BrokenFile, CheckpointMismatch)):
        load_generator(tmp_path / "g.pth")
