"""Does a name or a file become the network that it holds, and is every misfit named instead of built?"""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from encoders.backbone import IRSEBackbone
from encoders.compact import compact_encoder
from encoders.stylemap import StyleMapEncoder
from generators.base import Identity
from generators.errors import UnknownName
from generators.mobilestylegan import MobileStyleGAN
from pretrained import safetensors, shipped
from pretrained.arguments import mobilestylegan_arguments
from pretrained.cache import sha256
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.errors import BrokenFile, CheckpointMismatch, ForeignFile
from pretrained.loading import build, load_discriminator, load_encoder, load_generator, save_encoder
from pretrained.psp import METHODS
from pretrained.rosinality import generator_to_rosinality

CARD = {"num_ws": 12, "w_dim": 32, "sizes": [2, 4, 1], "pyramid_channels": [16, 12, 8], "width": 16}


@pytest.fixture
def generator_file(tmp_path, tiny_generator):
    safetensors.save(tmp_path / "mine.safetensors", tiny_generator.state_dict(), {})
    return tmp_path / "mine.safetensors"


@pytest.fixture
def encoder_file(tmp_path, tiny_encoder):
    save_encoder(tmp_path / "enc.safetensors", tiny_encoder, tiny_encoder.identity, trained_on="nothing")
    return tmp_path / "enc.safetensors"


def some_codes(generator):
    return generator.mapping(torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(0)))


def build_only_without_memory(monkeypatch, network):
    original = network.__init__

    def guarded(self, *args, **kwargs):
        assert torch.empty(0).device.type == "meta", "it was built in memory"
        original(self, *args, **kwargs)

    monkeypatch.setattr(network, "__init__", guarded)


def test_a_generator_file_is_recognised_and_built_from_its_shapes(generator_file, tiny_generator):
    generator = load_generator(generator_file)
    assert isinstance(generator, MobileStyleGAN)
    assert (generator.img_resolution, generator.num_ws, generator.w_dim, generator.z_dim) == (256, 12, 32, 32)
    codes = some_codes(tiny_generator)
    assert torch.equal(generator.synthesis(codes), tiny_generator.synthesis(codes))
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    assert generator.identity == Identity("mine", sha256(generator_file))


def test_a_name_of_the_catalogue_is_fetched_and_known_by_its_source(entry, cache, tiny_generator):
    tiny, wheel = entry
    shutil.copy(wheel, cache)
    told = []
    generator = load_generator("tiny", notify=told.append)
    assert generator.identity == Identity("tiny", tiny.sha256)
    assert len(told) == 1
    codes = some_codes(tiny_generator)
    assert torch.equal(generator.synthesis(codes), tiny_generator.synthesis(codes))
    assert load_generator(tiny.file).identity == generator.identity, "the file alone says the same"


def test_deduced_arguments_build_the_same_shapes(tiny_generator):
    arguments = mobilestylegan_arguments(tiny_generator.state_dict())
    assert arguments == {
        "channels": [32, 32, 16, 16, 8],
        "const_channels": 32,
        "z_dim": 32,
        "w_dim": 32,
        "mapping_layers": 2,
    }


@pytest.mark.parametrize("load", [load_generator, load_encoder])
def test_an_unknown_name_is_neither_a_name_nor_a_file(load, cache):
    with pytest.raises(UnknownName, match=r"nor is there such a file.*'no-such-thing'"):
        load("no-such-thing")


def test_an_unknown_generator_comes_with_its_close_matches(cache):
    with pytest.raises(UnknownName, match=f"did you mean {DEFAULT_GENERATOR}"):
        load_generator("mobilestylegan-ffhq-512")


@pytest.mark.parametrize("load", [load_generator, load_encoder])
def test_a_pickle_is_refused_unread(load, tmp_path):
    class Harm:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(BrokenFile, match="it looks like a pickle"):
        load(tmp_path / "weights.pkl")


def test_an_encoder_is_no_generator_and_the_other_way_round(encoder_file, generator_file):
    with pytest.raises(BrokenFile, match="no generator that this version can read"):
        load_generator(encoder_file)
    with pytest.raises(BrokenFile, match="does not describe a StyleMap encoder: it is empty"):
        load_encoder(generator_file)


def test_a_checkpoint_that_almost_fits_has_every_misfit_named(tmp_path, tiny_generator):
    tensors = dict(tiny_generator.state_dict())
    del tensors["synthesis.conv1.activation.noise"]
    tensors["synthesis.extra"] = torch.zeros(1)
    tensors["mapping.w_avg"] = torch.zeros(31)
    safetensors.save(tmp_path / "almost", tensors, {})
    with pytest.raises(CheckpointMismatch) as caught:
        load_generator(tmp_path / "almost")
    assert caught.value.missing == ["synthesis.conv1.activation.noise"]
    assert caught.value.unexpected == ["synthesis.extra"]
    assert caught.value.misshapen == ["mapping.w_avg"]
    message = str(caught.value)
    assert str(tmp_path / "almost") in message
    for part in ("1 missing (synthesis.conv1.activation.noise)", "1 unexpected (synthesis.extra)", "1 of another shape"):
        assert part in message


def test_a_long_list_of_misfits_is_cut():
    message = str(CheckpointMismatch("x", [f"t{i}" for i in range(9)], [], []))
    assert message == "x does not fit: tensors 9 missing (t0, t1, t2, t3, t4, ...)"


@pytest.mark.parametrize("name", ["synthesis.const", "mapping.layers.0.weight", "synthesis.blocks.1.conv2.pointwise.weight"])
@pytest.mark.parametrize("value", [None, torch.zeros(()), torch.zeros(0), torch.zeros(0, 0), torch.zeros(3, 1, 1, 1)])
def test_a_generator_with_a_tensor_gone_or_odd_is_refused(tmp_path, tiny_generator, name, value):
    tensors = {key: tensor for key, tensor in tiny_generator.state_dict().items() if key != name}
    if value is not None:
        tensors[name] = value
    safetensors.save(tmp_path / "odd", tensors, {})
    with pytest.raises((BrokenFile, CheckpointMismatch)):
        load_generator(tmp_path / "odd")


@pytest.mark.parametrize("num_blocks", [20, 40, 200])
def test_a_generator_that_asks_for_absurd_sizes_is_refused_without_allocating(tmp_path, num_blocks, monkeypatch):
    tensors = {"synthesis.const": torch.zeros(1, 4096, 0, 0), "mapping.layers.0.weight": torch.zeros(4096, 4096)}
    for k in range(num_blocks):
        tensors[f"synthesis.blocks.{k}.up_modulation.weight"] = torch.zeros(1)
        tensors[f"synthesis.blocks.{k}.conv2.pointwise.weight"] = torch.zeros(4096, 0)
    safetensors.save(tmp_path / "absurd", tensors, {})
    build_only_without_memory(monkeypatch, MobileStyleGAN)
    with pytest.raises((BrokenFile, CheckpointMismatch)):
        load_generator(tmp_path / "absurd")


def test_an_encoder_that_was_saved_comes_back_in_half_precision(encoder_file, tiny_encoder):
    encoder = load_encoder(encoder_file)
    assert encoder.identity == tiny_encoder.identity
    assert (encoder.num_ws, encoder.sizes, encoder.space) == (12, (2, 4, 1), "stylemap")
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, tiny_encoder.state_dict()[name].half().float()), name
    tensors, card = safetensors.load(encoder_file)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert card["trained_on"] == "nothing"
    assert card["arguments"] == CARD | {"deltas": False, "in_channels": 3, "looks": 1, "context": 0}
    with torch.inference_mode():
        face = torch.rand(1, 3, 256, 256) * 2 - 1
        for a, b in zip(encoder(face), tiny_encoder(face), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        "text",
        [1, 2],
        {},
        {name: value for name, value in CARD.items() if name != "width"},
        CARD | {"num_ws": 10**9},
        CARD | {"w_dim": 2**40},
        CARD | {"width": -1},
        CARD | {"width": 0},
        CARD | {"width": 16.5},
        CARD | {"width": None},
        CARD | {"width": True},
        CARD | {"deltas": 1},
        CARD | {"in_channels": 4},
        CARD | {"sizes": [2, 4]},
        CARD | {"sizes": [2, 4, "1"]},
        CARD | {"sizes": [2, 4, 4000]},
        CARD | {"looks": 0},
        CARD | {"looks": 10**9},
        CARD | {"looks": True},
        CARD | {"context": -1},
        CARD | {"context": 10**6},
        CARD | {"context": False},
        CARD | {"sizes": {"a": 1, "b": 2, "c": 3}},
        CARD | {"pyramid_channels": [[16], 12, 8]},
        CARD | {"pyramid_channels": "abc"},
    ],
)
def test_a_card_that_does_not_describe_an_encoder_is_refused_without_building(
    tmp_path, tiny_encoder, arguments, monkeypatch
):
    safetensors.save(tmp_path / "odd", tiny_encoder.state_dict(), {"arguments": arguments})
    monkeypatch.setattr(StyleMapEncoder, "__init__", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(BrokenFile, match="its card does not describe a StyleMap encoder"):
        load_encoder(tmp_path / "odd")


def test_a_card_that_asks_for_more_than_the_file_holds_is_refused_without_allocating(tmp_path, tiny_encoder, monkeypatch):
    arguments = CARD | {"num_ws": 4096, "w_dim": 4096, "width": 4096, "pyramid_channels": [4096, 4096, 4096]}
    safetensors.save(tmp_path / "absurd", tiny_encoder.state_dict(), {"arguments": arguments})
    build_only_without_memory(monkeypatch, StyleMapEncoder)
    with pytest.raises(CheckpointMismatch, match="of another shape"):
        load_encoder(tmp_path / "absurd")


def test_further_entries_of_a_card_do_not_reach_the_constructor(tmp_path, tiny_encoder):
    safetensors.save(tmp_path / "more", tiny_encoder.state_dict(), {"arguments": CARD | {"colour": 3}})
    assert load_encoder(tmp_path / "more").num_ws == 12


@pytest.mark.parametrize("arguments", [{"deltas": True}, {"in_channels": 6}, {"context": 3}])
def test_other_kinds_of_encoders_come_back_as_they_were(tmp_path, arguments):
    encoder = StyleMapEncoder(12, 32, pyramid_channels=(16, 12, 8), width=16, **arguments)
    save_encoder(tmp_path / "e.safetensors", encoder, Identity("mine"))
    found = load_encoder(tmp_path / "e.safetensors")
    assert (found.deltas, found.in_channels, found.context) == (encoder.deltas, encoder.in_channels, encoder.context)


def test_an_encoder_on_another_backbone_comes_back_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(IRSEBackbone, "units", (1, 1, 1, 1))
    encoder = StyleMapEncoder(12, 32, pyramid_channels=(16, 12, 8), width=16, backbone="ir-se50")
    save_encoder(tmp_path / "e.safetensors", encoder, Identity("mine"))
    found = load_encoder(tmp_path / "e.safetensors")
    assert found.backbone_name == "ir-se50"
    for name, value in encoder.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.half().to(value.dtype)), name


@pytest.mark.parametrize("backbone", ["resnet", ["compact"], None])
def test_a_file_that_names_no_known_backbone_is_refused(tmp_path, tiny_encoder, tiny_generator, backbone):
    save_encoder(tmp_path / "e.safetensors", tiny_encoder, tiny_generator.identity, backbone=backbone)
    with pytest.raises(BrokenFile, match=r"its card names the backbone .*: expected compact or ir-se50"):
        load_encoder(tmp_path / "e.safetensors")


def test_a_file_of_before_backbones_were_named_is_on_the_compact_one(encoder_file):
    tensors, card = safetensors.load(encoder_file)
    assert card.pop("backbone") == "compact"
    safetensors.save(encoder_file, tensors, card)
    assert load_encoder(encoder_file).backbone_name == "compact"


@pytest.mark.parametrize(
    ("kind", "methods"),
    [("psp", {"psp"}), ("e4e", {"e4e"}), ("restyle", {"restyle", "restyle-psp"}), ("stylemap", {}), ("stylemap-e", {})],
)
def test_an_own_encoder_of_another_method_is_refused(kind, methods, tmp_path):
    encoder = compact_encoder(kind, 12, 32, pyramid_channels=(16, 12, 8), width=16)
    save_encoder(tmp_path / "e.safetensors", encoder, Identity("mine"))
    for method in METHODS:
        if method in methods:
            load_encoder(tmp_path / "e.safetensors", method=method)
        else:
            found = f"of the method {kind}" if methods else "one of stylemaps"
            with pytest.raises(
                ForeignFile, match=rf"e\.safetensors: its encoder is {found}, not of {method}: name the file"
            ):
                load_encoder(tmp_path / "e.safetensors", method=method)


def test_encoders_that_ship_are_of_their_method():
    for name in shipped.encoder_names().keys() & METHODS.keys():
        load_encoder(name, method=name)
    with pytest.raises(ForeignFile, match="its encoder is one of stylemaps, not of e4e"):
        load_encoder("stylemap", method="e4e")


def test_arguments_that_make_no_network_are_a_broken_file():
    with pytest.raises(BrokenFile, match="its tensors make no network"):
        build(MobileStyleGAN, {"channels": [4] * 200, "const_channels": 4}, {}, "it")
    with pytest.raises(BrokenFile, match="its tensors make no network"):
        build(MobileStyleGAN, {"colour": 3}, {}, "it")


def test_weights_that_ship_are_listed_by_name_and_all_load():
    for name, path in shipped.encoder_names().items():
        assert path.is_file()
        assert path.parent == shipped.weights_folder()
        encoder = load_encoder(name)
        assert encoder.identity.name == DEFAULT_GENERATOR
        assert encoder.w_dim == 512


@pytest.fixture
def three_networks(write_nvidia, tiny_stylegan2, tiny_discriminator):
    trained = tiny_stylegan2()
    trained.synthesis.b4.const.add_(1)
    return write_nvidia(G=trained, D=tiny_discriminator, G_ema=tiny_stylegan2())


def test_one_network_of_several_is_chosen_by_its_name(three_networks, tiny_stylegan2):
    average, trained = (load_generator(three_networks, which=which) for which in (None, "G"))
    assert torch.equal(average.synthesis.b4.const, tiny_stylegan2().synthesis.b4.const)
    assert torch.equal(trained.synthesis.b4.const, tiny_stylegan2().synthesis.b4.const + 1)
    with pytest.raises(
        UnknownName, match=r"unknown network in .*network\.pkl 'G_em': did you mean G_ema.*known: D, G, G_ema"
    ):
        load_generator(three_networks, which="G_em")
    with pytest.raises(BrokenFile, match="no generator, but a StyleGAN2Discriminator"):
        load_generator(three_networks, which="D")


def test_a_discriminator_is_loaded(three_networks, tiny_discriminator, generator_file):
    image = torch.randn(4, 3, 16, 16)
    assert torch.equal(load_discriminator(three_networks)(image), tiny_discriminator(image))
    with pytest.raises(BrokenFile, match="no discriminator, but a StyleGAN2"):
        load_discriminator(three_networks, which="G")
    with pytest.raises(BrokenFile, match="no discriminator in it, but generator"):
        load_discriminator(generator_file)


def test_what_was_made_up_is_told(tmp_path, tiny_stylegan2):
    torch.save({"g_ema": generator_to_rosinality(tiny_stylegan2().state_dict())}, tmp_path / "g.pt")
    told = []
    load_generator(tmp_path / "g.pt", notify=told.append)
    assert len(told) == 1
    assert "latent_avg is absent" in told[0]


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(BrokenFile, match=r"is a folder: expected a file of weights"):
        load_generator(tmp_path)


def test_a_link_is_as_good_as_its_file(tmp_path, generator_file):
    (tmp_path / "link.pt").symlink_to(generator_file)
    assert load_generator(tmp_path / "link.pt").img_resolution == 256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_any_precision_is_read_as_single(tmp_path, tiny_stylegan2, dtype, suffix):
    state = {name: value.to(dtype) for name, value in tiny_stylegan2().state_dict().items()}
    path = tmp_path / f"g.{suffix}"
    torch.save({"G_ema": state}, path) if suffix == "pt" else safetensors.save(path, state, {})
    found = load_generator(path).state_dict()
    assert all(torch.equal(value, state[name].float()) and value.dtype == torch.float32 for name, value in found.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"models": {"G_ema": state}},
        lambda state: {"params_ema": state},
    ],
)
def test_wrapped_weights_are_found(tmp_path, tiny_stylegan2, wrap):
    generator = tiny_stylegan2()
    torch.save(wrap(generator.state_dict()), tmp_path / "g.pt")
    assert torch.equal(load_generator(tmp_path / "g.pt").synthesis.b4.const, generator.synthesis.b4.const)


def test_safetensors_of_others_need_no_card_and_may_name_their_role(tmp_path, tiny_stylegan2):
    generator = tiny_stylegan2()
    theirs = generator_to_rosinality(generator.state_dict())
    tensors = {f"g_ema.{name}": value.contiguous() for name, value in theirs.items()} | {
        "latent_avg": generator.w_avg.clone()
    }
    save_file(tensors, tmp_path / "g.bin")
    found = load_generator(tmp_path / "g.bin").state_dict()
    assert all(torch.equal(value, generator.state_dict()[name]) for name, value in found.items())


def test_weights_are_the_readers_own_and_not_the_files(generator_file):
    generator = load_generator(generator_file)
    before = generator.synthesis.const.clone()
    with generator_file.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    assert torch.equal(generator.synthesis.const, before)
    assert not any(tensor.is_meta for tensor in [*generator.parameters(), *generator.buffers()])


def test_an_encoder_with_weights_that_are_no_numbers_is_neither_written_nor_read(tmp_path, tiny_encoder, tiny_generator):
    file = tmp_path / "e.safetensors"
    save_encoder(file, tiny_encoder, tiny_generator.identity)
    tensors, card = safetensors.load(file)
    tensors["top.weight"][0] = torch.nan
    safetensors.save(file, tensors, card)
    with pytest.raises(BrokenFile, match=r"top\.weight holds what is no finite number"):
        load_encoder(file)
    with torch.no_grad():
        tiny_encoder.top.weight[0] = 1e30
    with pytest.raises(BrokenFile, match=r"not written: top\.weight is not finite in float16"):
        save_encoder(tmp_path / "other.safetensors", tiny_encoder, tiny_generator.identity)
    assert not (tmp_path / "other.safetensors").exists()
