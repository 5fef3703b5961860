"""Does the StyleMap encoder give a generator's codes: in its sizes, for its layers, near its mean face from the start?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encoders.backbone import IRSEBackbone
from encoders.stylemap import Map2Map, StyleMapEncoder, narrowed
from generators.errors import UnknownName
from generators.latent import as_stylemaps, check_latent, space_of


@pytest.fixture
def small():
    def build(num_ws=12, w_dim=6, **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = StyleMapEncoder(num_ws, w_dim, pyramid_channels=(8, 8, 8), width=8, **arguments)
        encoder.w_avg.copy_(torch.linspace(-1, 1, w_dim))
        return encoder.eval()

    return build


def faces(batch=1):
    return torch.rand(batch, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1


def spatial_sizes(latent):
    return [m.shape[2] for m in as_stylemaps(latent) if m.shape[2] == m.shape[3]]


def test_the_encoder_states_what_it_takes_and_gives(small):
    assert StyleMapEncoder.input_resolution == 256
    assert small().space == "stylemap"
    assert small(sizes=(1, 1, 1)).space == "w_plus"


def test_coarse_and_middle_layers_are_maps_and_fine_layers_are_vectors(small):
    latent = small()(faces(2))
    assert space_of(latent) == "stylemap"
    assert spatial_sizes(latent) == [2] * 4 + [4] * 4 + [1] * 4
    assert all(m.shape[:2] == (2, 6) for m in latent)


def test_sizes_of_1_give_a_w_plus(small):
    latent = small(sizes=(1, 1, 1))(faces(2))
    assert space_of(latent) == "w_plus"
    assert latent.shape == (2, 12, 6)


@pytest.mark.parametrize("sizes", [(1, 2, 1), (4, 8, 2), (2, 4, 8), (3, 5, 1)])
def test_maps_come_in_any_size(small, sizes):
    coarse, middle, fine = sizes
    assert spatial_sizes(small(sizes=sizes)(faces())) == [coarse] * 4 + [middle] * 4 + [fine] * 4


@pytest.mark.parametrize("num_ws", [1, 2, 4, 6, 8, 9, 16, 18])
def test_any_number_of_layers_is_served(small, num_ws):
    expected = ([2] * 4 + [4] * 4 + [1] * 10)[:num_ws]
    assert spatial_sizes(small(num_ws)(faces())) == expected


def test_an_untrained_encoder_returns_about_w_avg(small):
    encoder = small()
    for style_map in encoder(faces(2)):
        assert (style_map - encoder.w_avg[:, None, None]).abs().max() < 0.3


def test_w_avg_is_added_by_the_encoder_itself(small):
    encoder = small()
    before = encoder(faces())
    encoder.w_avg.add_(2)
    for a, b in zip(encoder(faces()), before, strict=True):
        torch.testing.assert_close(a, b + 2)
    assert "w_avg" in encoder.state_dict()


def test_a_code_does_not_depend_on_the_rest_of_the_batch(small):
    encoder, images = small(), faces(2)
    for both, alone in zip(encoder(images), encoder(images[1:]), strict=True):
        torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_code_keeps_where_things_are(small):
    encoder, face = small(), faces()
    changed = face.clone()
    changed[..., 192:] = 0
    before, after = encoder(face), encoder(changed)
    change = (after[4] - before[4]).abs().mean((0, 1, 2))
    assert change[3] > change[0]


def test_features_are_those_of_the_backbone(small):
    encoder = small()
    assert all(torch.equal(a, b) for a, b in zip(encoder.features(faces()), encoder.backbone(faces()), strict=True))


def test_gradients_reach_the_image_and_every_weight(small):
    encoder, image = small(), faces().requires_grad_(True)
    for head in encoder.heads:  # The second convolutions start at zero, which holds gradients back.
        for block in head.down:
            torch.nn.init.normal_(block.conv2.weight, std=0.1)
    sum((m - 1).square().mean() for m in encoder(image)).backward()
    assert image.grad.abs().sum() > 0
    without = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    assert without == []


def test_its_codes_fit_the_generator_that_they_are_for(tiny_encoder, tiny_generator):
    with torch.inference_mode():
        latent = tiny_encoder(faces())
        check_latent(latent, tiny_generator.num_ws, tiny_generator.w_dim)
        assert tiny_generator.synthesis(latent).shape == (1, 3, 256, 256)
    assert tiny_encoder.identity.fits(tiny_generator.identity)


def test_a_look_at_the_whole_face_adds_nothing_at_first_and_then_the_same_to_every_pixel(small):
    plain, wide = small(sizes=(2, 4, 4)), small(sizes=(2, 4, 4), context=5)
    wide.load_state_dict(wide.state_dict() | plain.state_dict())
    images = torch.cat([faces(), torch.ones(1, 3, 256, 256)])
    before = wide(images)
    assert all(torch.equal(a, b) for a, b in zip(before, plain(images), strict=True))
    torch.nn.init.normal_(wide.overview.to_styles.weight, std=10.0)
    offsets = [(after - first).detach() for after, first in zip(wide(images), before, strict=True)]
    for offset in offsets:
        torch.testing.assert_close(offset, offset[:, :, :1, :1].expand_as(offset), rtol=1e-4, atol=1e-5)
    assert float((offsets[0] - offsets[-1][:, :, :1, :1]).abs().max()) > 0.01, "every layer has its own"
    first, second = wide.overview(torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)))[0]
    assert float((first - second).detach().abs().max()) > 0.01, "every face has its own"


def test_a_state_dict_fills_a_second_encoder(small):
    first, second = small(), StyleMapEncoder(12, 6, pyramid_channels=(8, 8, 8), width=8)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first(faces()), second(faces()), strict=True))


def test_it_sees_with_ir_se50_too_and_all_else_stays_the_same(small, monkeypatch):
    monkeypatch.setattr(IRSEBackbone, "units", (1, 1, 1, 1))
    compact, other = small(sizes=(2, 4, 8)), small(sizes=(2, 4, 8), backbone="ir-se50")
    assert (compact.backbone_name, other.backbone_name) == ("compact", "ir-se50")
    assert isinstance(other.backbone, IRSEBackbone)
    assert spatial_sizes(other(faces())) == [2] * 4 + [4] * 4 + [8] * 4

    def heads(encoder):
        return {name: value.shape for name, value in encoder.state_dict().items() if not name.startswith("backbone.")}

    assert heads(other) == heads(compact)
    with pytest.raises(UnknownName, match="known: compact, ir-se50"):
        small(backbone="resnet")


def test_the_names_of_its_tensors_stay_those_of_the_weights_that_ship():
    with torch.device("meta"):
        names = {name.split(".")[0] for name in StyleMapEncoder().state_dict()}
    assert names == {"backbone", "top", "lateral2", "lateral1", "down2", "down1", "heads", "w_avg"}


@pytest.fixture
def head():
    """A head of eight channels, all of them in use."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Map2Map(6, num_layers=2, size=2, w_dim=4, width=8, in_resolution=16)
        for block in head.down:
            nn.init.normal_(block.conv2.weight)
    return head.requires_grad_(False)


def test_a_head_that_is_not_narrowed_stays_the_same(head):
    state = narrowed(head.state_dict(), width=8)
    assert state.keys() == head.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_a_narrowed_head_keeps_the_channels_that_are_read(head):
    x = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    unread = [1, 2, 5, 7]
    readers = [block.conv2 for block in head.down[1:]] + [block.shortcut for block in head.down[2:]]
    for layer in (*readers, head.down[2].conv1, head.mix, head.to_styles):
        layer.weight[:, unread] = 0
    for layer in (head.down[0].conv2, head.down[1].conv1, head.down[1].shortcut):
        layer.weight[:, unread[:2]] = 0
    small = Map2Map(6, num_layers=2, size=2, w_dim=4, width=4, in_resolution=16)
    small.load_state_dict(narrowed(head.state_dict(), width=4))
    for ours, theirs in zip(small(x), head(x), strict=True):
        torch.testing.assert_close(ours, theirs)
