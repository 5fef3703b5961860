"""Do ReStyle's encoders have the published tensors, and does each look start from what was drawn before?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encoders.compact import compact_encoder
from encoders.psp import IRSEEncoder
from encoders.restyle import (
    BackboneEncoder,
    ProgressiveBackboneEncoder,
    ResNetBackboneEncoder,
    ResNetEncoder,
    ResNetProgressiveBackboneEncoder,
    restyle,
)
from generators.errors import LatentMismatch

NETWORKS = {
    "restyle_BackboneEncoder_n18.tsv": BackboneEncoder,
    "restyle_ProgressiveBackboneEncoder_n18.tsv": ProgressiveBackboneEncoder,
}


@pytest.fixture
def encoder(tiny_generator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = compact_encoder("restyle", tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8)
    encoder.w_avg.copy_(tiny_generator.w_avg)
    return encoder.eval().requires_grad_(False)


@pytest.mark.shared
@pytest.mark.parametrize("file", NETWORKS)
def test_the_tensors_are_the_published_ones(file, published_shapes, own_shapes):
    with torch.device("meta"):
        assert own_shapes(NETWORKS[file]()) == published_shapes(file)


@pytest.mark.shared
@pytest.mark.parametrize("network", [ResNetBackboneEncoder, ResNetProgressiveBackboneEncoder])
def test_the_tensors_on_resnet_34_are_the_published_ones(network, published_shapes, own_shapes):
    # HyperStyle has the same backbone, and ReStyle's own encoder of faces the same heads.
    backbone = published_shapes("hyperstyle_SharedWeightsHyperNetResNet_26.tsv")
    heads = published_shapes("restyle_BackboneEncoder_n18.tsv")
    expected = {name: shape for name, shape in backbone.items() if name.split(".")[0] in ("conv1", "bn1", "relu", "body")}
    expected |= {name: shape for name, shape in heads.items() if name.startswith("styles.")}
    with torch.device("meta"):
        assert own_shapes(network()) == expected


def test_resnet_34_computes_what_its_tensors_mean(face, recipe_state):
    encoder = ResNetBackboneEncoder(2, 6).eval().requires_grad_(False)
    state = recipe_state(encoder.state_dict())
    encoder.load_state_dict(state)

    def norm(x, name):
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    def unit(x, name, stride):
        y = norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").relu()
        y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if stride > 1:
            x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        return (x + y).relu()

    both = torch.cat([face, -face], dim=1)
    x = norm(F.conv2d(both, state["conv1.weight"], stride=2, padding=3), "bn1")
    x = F.prelu(x, state["relu.weight"])
    for number in range(16):
        x = unit(x, f"body.{number}", stride=2 if number in (3, 7, 13) else 1)
    assert x.shape == (1, 512, 16, 16)
    torch.testing.assert_close(encoder.features(both), x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
    expected = torch.stack([head(x) for head in encoder.styles], dim=1) + encoder.w_avg
    torch.testing.assert_close(encoder(both), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("network", "deltas"),
    [(BackboneEncoder, ProgressiveBackboneEncoder), (ResNetBackboneEncoder, ResNetProgressiveBackboneEncoder)],
)
def test_progressive_deltas_are_counted_from_the_first_style(network, deltas, face, monkeypatch):
    for backbone in (IRSEEncoder, ResNetEncoder):
        monkeypatch.setattr(backbone, "units", (1, 1, 1, 1))
    plain = network(4, 6).eval().requires_grad_(False)
    progressive = deltas(4, 6).eval().requires_grad_(False)
    progressive.load_state_dict(plain.state_dict())
    both = torch.cat([face, -face], dim=1)
    outputs = plain(both)
    expected = torch.cat([outputs[:, :1], outputs[:, :1] + outputs[:, 1:]], dim=1)
    torch.testing.assert_close(progressive(both), expected, rtol=1e-4, atol=1e-5)
    progressive.stage = 1
    expected[:, 2:] = expected[:, :1]
    torch.testing.assert_close(progressive(both), expected, rtol=1e-4, atol=1e-5)


def test_every_look_adds_to_the_code_and_sees_what_was_drawn(encoder, tiny_generator, face):
    face = torch.cat([face, -face])
    w_avg = tiny_generator.w_avg
    latent, drawn = w_avg.expand(2, encoder.num_ws, -1), tiny_generator.synthesis(w_avg.expand(2, encoder.num_ws, -1))
    steps = list(restyle(encoder, tiny_generator, face, steps=3))
    assert len(steps) == 3
    for found, image in steps:
        latent = latent + encoder(torch.cat([face, F.adaptive_avg_pool2d(drawn, 256)], dim=1)) - w_avg
        drawn = tiny_generator.synthesis(latent)
        torch.testing.assert_close(found, latent, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(image, drawn, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(steps[0][0] - w_avg, steps[1][0] - steps[0][0])


@pytest.mark.parametrize("kind", ["psp", "stylemap"])
def test_an_encoder_for_single_images_is_refused(kind, tiny_generator, face):
    other = compact_encoder(kind, tiny_generator.num_ws, 32, pyramid_channels=(8, 8, 8), width=8)
    with pytest.raises(LatentMismatch, match="6 input channels"):
        next(restyle(other, tiny_generator, face))
