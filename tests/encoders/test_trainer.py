"""Does a training step teach, and does a resumed training go on as if it had never stopped?"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encoders.compact import compact_encoder
from encoders.e4e import Encoder4Editing
from encoders.resize import resize
from encoders.restyle import ProgressiveBackboneEncoder, ResNetProgressiveBackboneEncoder, restyle
from encoders.training.losses import Losses
from encoders.training.trainer import EncoderTrainer, Schedule, mix_neighbours
from generators.errors import ToolkitError
from generators.preview import PreviewHead
from generators.stylegan1 import StyleGAN1


def difference(a, b):
    """Stand in for a perceptual distance."""
    return (a - b).abs().mean((1, 2, 3))


class Constant(nn.Module):
    """An encoder that sees nothing: it gives the same maps for every face, and learns them."""

    def __init__(self, num_ws, w_dim, size, value=0.0):
        super().__init__()
        self.maps = nn.ParameterList(torch.full((w_dim, size, size), float(value)) for _ in range(num_ws))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image):
        self.calls += 1
        return tuple(m.expand(image.shape[0], -1, -1, -1) for m in self.maps)


@pytest.fixture
def data(tiny_generator):
    """Return two real faces, two that the generator drew, and their codes."""
    random = torch.Generator().manual_seed(3)
    codes = tiny_generator.mapping(torch.randn(4, 32, generator=random))
    with torch.no_grad():
        faces = tiny_generator.synthesis(codes).clamp(-1, 1)
    return faces[:2], faces[2:], codes[2:]


@pytest.fixture
def make(tiny_generator):
    """Build a trainer; networks differ with ``seed``, as they would in another process."""

    def build(seed=0, resolution=16, kind="stylemap", **arguments):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = compact_encoder(kind, 12, 32, pyramid_channels=(8, 8, 8), width=8)
            preview = PreviewHead.for_generator(tiny_generator, resolution) if resolution else None
        encoder.w_avg.copy_(tiny_generator.w_avg)
        schedule = Schedule(30, learning_rate=2e-3, warmup=2)
        return EncoderTrainer(encoder, tiny_generator, difference, schedule, preview, **arguments)

    return build


def tensors(state, prefix=""):
    """Flatten a nested state to its tensors and numbers."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in tensors(value, f"{prefix}.{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in tensors(value, f"{prefix}.{i}").items()}
    return {prefix: state}


def assert_same_state(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


def test_the_loss_falls_on_a_handful_of_fixed_faces(make, data):
    trainer = make(losses=Losses(code=1.0))
    terms = [trainer.step(*data) for _ in range(14)]
    for name in ("loss", "code"):
        values = [term[name] for term in terms]
        assert sum(values[-3:]) < 0.9 * sum(values[:3]), name


def test_every_term_is_reported_and_finite(make, data):
    terms = make().step(*data)
    assert terms.keys() == {"l2", "lpips", "code", "w_norm", "delta", "roughness", "gradient", "loss"}
    assert all(math.isfinite(value) for value in terms.values())
    assert terms["loss"] == pytest.approx(weighted(Losses(), terms), rel=1e-5)


def weighted(losses, terms):
    return sum(getattr(losses, name) * value for name, value in terms.items() if hasattr(losses, name))


def test_terms_that_need_more_are_there_when_they_have_it(make, data):
    losses = Losses(identity=0.5, consistency=0.25, adversarial=0.1)
    trainer = make(losses=losses, identity=difference, kind="stylemap-e")
    terms = trainer.step(*data, own=2)
    assert terms.keys() >= {"identity", "consistency", "adversarial", "discriminator", "r1", "preview"}
    assert all(math.isfinite(value) for value in terms.values())
    assert terms["loss"] == pytest.approx(weighted(losses, terms), rel=1e-5)


def test_edits_that_are_taught_are_a_term_of_their_own_which_training_lowers(make, data, tiny_generator):
    edits = 3 * torch.randn(2, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(1))
    trainer = make(kind="stylemap-e", edits=edits, losses=Losses(edits=20.0, lpips=0.0, l2=0.0))
    trainer.schedule = Schedule(30, learning_rate=5e-4, warmup=2)  # The last layer moves every pixel of all maps at once.
    faces, drawn, codes = data
    values = [trainer.step(faces, drawn, codes + edits[0])["edits"] for _ in range(24)]
    assert sum(values[-3:]) < 0.9 * sum(values[:3])
    assert "edits" not in make().step(*data)


@pytest.mark.parametrize(("real", "sampled", "drawn", "parts"), [(2, 2, 2, 2), (4, 3, 2, 2), (3, 2, 1, 3), (0, 3, 3, 2)])
def test_pieces_of_a_step_add_up_to_the_whole_step(make, data, monkeypatch, real, sampled, drawn, parts):
    for change in ("random_flip", "misalign", "relight", "soften", "compress", "patch"):
        # With these, every piece is changed in another way.
        monkeypatch.setattr(f"encoders.training.trainer.{change}", lambda image, *_, **__: image)
    faces, codes = torch.cat([data[0], data[1].flip(3)]), torch.cat([data[2], data[2].flip(1)])
    whole, pieces = make(), make()
    for trainer, count in ((whole, 1), (pieces, parts)):
        trainer.optimizer = torch.optim.SGD(trainer.encoder.parameters())
        terms = trainer.step(faces[:real], faces.flip(0)[:sampled], codes[:sampled], drawn, parts=count)
        trainer.terms = terms
    assert pieces.terms == pytest.approx(whole.terms, rel=1e-3)
    for a, b in zip(whole.encoder.parameters(), pieces.encoder.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("kind", ["psp", "e4e", "restyle", "stylemap", "stylemap-e"])
def test_every_kind_of_encoder_learns_a_handful_of_fixed_faces(make, data, kind):
    trainer = make(kind=kind, losses=Losses(code=1.0, adversarial=0.05, consistency=0.1))
    codes = [trainer.step(*data, own=1)["code"] for _ in range(8)]
    assert sum(codes[-3:]) < 0.97 * sum(codes[:3])


def test_restyle_is_taught_each_look_after_those_before_it(make, data, tiny_generator):
    trainer = make(kind="restyle", resolution=0)
    face = resize(data[0], 256)
    for step, looks in enumerate([1, 2, 3, 1]):
        trainer.step_number = step
        latent = trainer._encode(face)
        with torch.no_grad():
            expected = list(restyle(trainer.encoder, tiny_generator, face, looks))[-1][0]
        torch.testing.assert_close(latent, expected)
    latent.sum().backward()
    assert trainer.encoder.get_parameter("backbone.features.0.weight").grad.abs().sum() > 0


def test_restyle_is_taught_on_what_it_sees_in_use_where_a_generator_draws_less_than_256_px(face):
    generator = StyleGAN1(16, 8, 6, 3, channel_base=128, channel_max=12).eval().requires_grad_(False)
    encoder = compact_encoder("restyle", generator.num_ws, 6, pyramid_channels=(8, 8, 8), width=8)
    encoder.w_avg.copy_(generator.w_avg)
    trainer = EncoderTrainer(encoder, generator, difference, Schedule(30))
    for step in range(3):
        trainer.step_number = step
        with torch.no_grad():
            expected = list(restyle(encoder, generator, face, step + 1))[-1][0]
            torch.testing.assert_close(trainer._encode(face), expected)


def test_what_restyle_draws_at_last_is_what_is_validated(make, data, tiny_generator):
    trainer = make(kind="restyle")
    with torch.no_grad():
        expected = list(restyle(trainer.average, tiny_generator, data[0]))[-1][1]
    assert torch.equal(trainer.invert(data[0]), expected)


def test_deltas_are_turned_on_layer_by_layer(make, data):
    trainer = make(kind="e4e")
    trainer.step(*data)
    assert trainer.encoder.stage == trainer.average.stage == 0
    latent = trainer.average(data[0])
    torch.testing.assert_close(latent, latent[:, :1].expand_as(latent))
    trainer.step_number = 29
    trainer.step(*data)
    assert trainer.encoder.stage is None


def test_deltas_that_were_learnt_stay_on_in_a_run_that_is_made_longer(make, data):
    finished, longer, older = (make(kind="e4e", resolution=0) for _ in range(3))
    finished.step_number = 29
    finished.step(*data)
    state = finished.state_dict()
    of_before = {name: value for name, value in state.items() if name != "stage"}
    for trainer, kept in ((longer, state), (older, of_before)):
        trainer.schedule = replace(trainer.schedule, steps=300)
        trainer.load_state_dict(kept)
        trainer.step(*data)
    assert longer.encoder.stage is longer.average.stage is None
    assert older.encoder.stage == 1, "of a file of before it held the stage"


@pytest.mark.parametrize("network", [Encoder4Editing, ProgressiveBackboneEncoder, ResNetProgressiveBackboneEncoder])
def test_the_published_networks_of_deltas_learn_them_layer_by_layer_too(tiny_generator, data, monkeypatch, network):
    monkeypatch.setattr(network, "units", (1, 1, 1, 1))
    preview = PreviewHead.for_generator(tiny_generator, 16)
    trainer = EncoderTrainer(network(12, 32), tiny_generator, difference, Schedule(100), preview)
    one_of_each = [part[:1] for part in data]  # Published networks are wide.
    for step, stage in ((0, 0), (10, 1), (20, None)):
        trainer.step_number = step
        trainer.step(*one_of_each)
        assert trainer.encoder.stage == trainer.average.stage == stage
        learning = [head.linear.bias.grad is not None for head in trainer.encoder.styles]
        assert sum(learning) == trainer.encoder.active_layers == (12 if stage is None else stage + 1)


def test_the_stages_are_those_of_e4e_in_its_200000_steps():
    schedule = Schedule(200_000)
    assert [schedule.stage(step, 18) for step in (0, 19_999, 20_000, 22_000, 51_999)] == [0, 0, 1, 2, 16]
    assert schedule.stage(54_000, 18) is None


@given(st.integers(1, 5000), st.integers(2, 18))
def test_stages_only_rise_until_all_deltas_are_on(steps, num_ws):
    schedule = Schedule(steps)
    stages = [schedule.stage(step, num_ws) for step in range(0, steps + 1, max(1, steps // 50))]
    numbers = [num_ws if stage is None else stage for stage in stages]
    assert numbers == sorted(numbers)
    assert stages[-1] is None


def test_bfloat16_learns_about_the_same(make, data):
    exact, rough = make(losses=Losses(code=1.0)), make(losses=Losses(code=1.0), precision=torch.bfloat16)
    for _ in range(3):
        a, b = exact.step(*data), rough.step(*data)
    assert b["loss"] == pytest.approx(a["loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in rough.encoder.parameters())


def test_float16_loses_no_gradients(make, data):
    def lost(precision):
        trainer = make(losses=Losses(code=1e-3), precision=precision)
        trainer.step(*data)
        gradients = torch.cat([p.grad.flatten() for p in trainer.encoder.parameters()])
        return float((gradients == 0).float().mean()), trainer.state_dict()["scaler"]

    (exact, unscaled), (halved, scaled) = lost(torch.float32), lost(torch.float16)
    assert halved < exact + 0.1
    assert not unscaled
    assert scaled["scale"] > 1


def test_own_codes_draw_what_is_given_beside_them(make, data, tiny_generator):
    trainer = make(kind="stylemap")
    images, codes = trainer.draw_own(data[0], torch.Generator().manual_seed(5))
    torch.testing.assert_close(images, resize(tiny_generator.synthesis(codes).clamp(-1, 1), 256))
    assert images.shape == (2, 3, 256, 256)
    assert any(not torch.equal(a, b) for a, b in zip(codes, trainer.encoder(data[0]), strict=True))


def test_half_of_the_own_codes_take_known_edits_up_to_their_full_strength(make, tiny_generator):
    edits = torch.randn(3, tiny_generator.num_ws, tiny_generator.w_dim, generator=torch.Generator().manual_seed(1))
    trainer, random = make(kind="psp", edits=edits), torch.Generator().manual_seed(2)
    offsets = trainer._some_edits(torch.full((400, *edits.shape[1:]), 7.0), edits, random)
    taken = [offset for offset in offsets if not bool((offset == 7).all())]
    assert 150 < len(taken) < 250
    strengths = torch.stack([(offset * edits).sum((1, 2)) / edits.square().sum((1, 2)) for offset in taken])
    errors = (torch.stack(taken)[:, None] - strengths[:, :, None, None] * edits).square().mean((2, 3))
    chosen = errors.argmin(1)
    assert float(errors.amin(1).max()) < 1e-8, "every one is a multiple of one edit"
    assert chosen.unique().tolist() == [0, 1, 2]
    used = strengths.gather(1, chosen[:, None])
    assert -1 <= float(used.min()) < -0.9
    assert 0.9 < float(used.max()) <= 1


def test_neighbours_lend_a_side_of_their_maps_and_vectors_stay():
    maps = tuple(torch.arange(40.0).view(40, 1, 1, 1).expand(-1, 3, side, side) for side in (1, 4, 8))
    mixed = mix_neighbours(maps, torch.Generator().manual_seed(0))
    assert torch.equal(mixed[0], maps[0])
    share = (mixed[2] - maps[2]).abs()[1:].amax((1, 2, 3))  # The first one's neighbour is the last, far from it.
    assert (share > 0.5).sum() > 5
    assert (share == 0).sum() > 10
    assert (mixed[2] <= maps[2] + 1e-4)[1:].all()


@pytest.mark.parametrize(("real", "sampled", "drawn"), [(2, 0, None), (0, 2, None), (0, 2, 1), (1, 2, 0), (2, 0, 0)])
def test_a_step_works_with_one_kind_of_faces_only(make, data, real, sampled, drawn):
    faces, drawn_faces, codes = data
    terms = make().step(faces[:real], drawn_faces[:sampled], codes[:sampled], drawn)
    assert all(math.isfinite(value) for value in terms.values())
    assert (terms["w_norm"] == 0) == (real == 0)
    assert (terms["code"] == 0) == (sampled == 0)


def test_a_step_without_any_face_to_look_at_is_refused(make, data):
    faces, drawn_faces, codes = data
    with pytest.raises(ValueError, match="a step needs a real face"):
        make().step(faces[:0], drawn_faces, codes, drawn=0)
    with pytest.raises(ValueError, match="a step needs a real face"):
        make().step(faces[:0], drawn_faces[:0], codes[:0], drawn=4)


def test_own_codes_come_from_sampled_faces_where_there_are_no_real_ones(make, data):
    terms = make(losses=Losses(consistency=0.2)).step(data[0][:0], *data[1:], own=2)
    assert all(math.isfinite(value) for value in terms.values())
    assert terms["consistency"] > 0
    assert terms["preview"] > 0


def test_the_terms_are_what_they_say(tiny_generator, data):
    encoder = Constant(12, 32, 2)
    for m in encoder.maps:
        m.data.copy_(tiny_generator.w_avg[:, None, None].expand(-1, 2, 2))
    trainer = EncoderTrainer(encoder, tiny_generator, difference, Schedule(10))
    real, sampled, codes = data
    terms = trainer.step(real, sampled, codes)
    assert terms["w_norm"] == 0
    assert terms["roughness"] == pytest.approx(0, abs=1e-12)
    expected = (codes - tiny_generator.w_avg).square().mean() / trainer.w_variance
    assert terms["code"] == pytest.approx(expected.item(), rel=1e-4)
    with torch.no_grad():
        encoder.maps[0].copy_(tiny_generator.w_avg[:, None, None].expand(-1, 2, 2))
        for m in encoder.maps[1:]:
            m.copy_(encoder.maps[0])
        for m in encoder.maps:
            m[:, 0, 0] += 2
    terms = trainer.step(real, sampled, codes)
    # A quarter of the pixels is 2 above: mean square 1, mean 0.5, variance 0.75.
    assert terms["w_norm"] == pytest.approx(1 / trainer.w_variance, rel=1e-4)
    assert terms["roughness"] == pytest.approx(0.75 / trainer.w_variance, rel=1e-4)


def test_a_step_changes_the_encoder_and_not_the_generator(make, data, tiny_generator):
    trainer = make()
    generator = {name: value.clone() for name, value in tiny_generator.state_dict().items()}
    encoder = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    preview = {name: value.clone() for name, value in trainer.preview.state_dict().items()}
    trainer.step(*data)
    assert any(not torch.equal(value, encoder[name]) for name, value in trainer.encoder.state_dict().items())
    assert all(torch.equal(value, generator[name]) for name, value in tiny_generator.state_dict().items())
    assert all(torch.equal(value, preview[name]) for name, value in trainer.preview.state_dict().items())


def test_a_run_that_stopped_goes_on_bit_for_bit_as_one_that_did_not(make, data):
    def advance(trainer, steps):
        for _ in range(steps):
            trainer.step(*data, own=1)

    make = functools.partial(make, losses=Losses(adversarial=0.1, consistency=0.2))
    straight = make(seed=1)
    advance(straight, 4)
    stopped = make(seed=1)
    advance(stopped, 2)
    file = io.BytesIO()
    torch.save({"trainer": stopped.state_dict()}, file)
    file.seek(0)
    resumed = make(seed=2)
    resumed.load_state_dict(torch.load(file, weights_only=True)["trainer"])
    assert resumed.step_number == 2
    advance(resumed, 2)
    assert_same_state(resumed.state_dict(), straight.state_dict())


def test_own_faces_serve_until_others_are_drawn(make, data, monkeypatch):
    trainer = make(losses=Losses(consistency=0.2))
    draws = []
    draw = trainer.draw_own
    monkeypatch.setattr(trainer, "draw_own", lambda *given: draws.append(given[0].shape[0]) or draw(*given))
    terms = [trainer.step(*data, own=own) for own in (2, 0, 0, 2, 0)]
    assert draws == [2, 2]
    assert all(term["consistency"] > 0 for term in terms)


def test_without_a_weight_for_consistency_own_faces_only_teach_the_preview(make, data):
    terms = make(losses=Losses(consistency=0.0)).step(*data, own=2)
    assert "consistency" not in terms
    assert terms["preview"] > 0


def test_the_format_of_checkpoints_stays(make):
    state = make().state_dict()
    assert list(state) == [
        "encoder",
        "average",
        "optimizer",
        "preview",
        "preview_optimizer",
        "adversary",
        "own",
        "scaler",
        "stage",
        "step_number",
    ]
    without = make(resolution=0)
    assert without.state_dict()["preview"] is None
    without.load_state_dict(without.state_dict())
    older = {name: value for name, value in without.state_dict().items() if name not in ("scaler", "stage")}
    without.load_state_dict(older)


def test_the_average_follows_fast_at_first_and_keeps_buffers_as_they_are(tiny_generator, data):
    trainer = EncoderTrainer(Constant(12, 32, 1), tiny_generator, difference, Schedule(10, 0.1, warmup=1), ema=0.5)
    for step in range(12):
        before = [m.clone() for m in trainer.average.maps]
        trainer.step(*data)
        decay = min(0.5, (1 + step) / (10 + step))
        for old, new, learnt in zip(before, trainer.average.maps, trainer.encoder.maps, strict=True):
            torch.testing.assert_close(new.data, decay * old + (1 - decay) * learnt.data)
        assert trainer.average.calls == trainer.encoder.calls
    assert not any(p.requires_grad for p in trainer.average.parameters())
    assert not trainer.average.training


@pytest.mark.parametrize("resolution", [0, 16])
def test_faces_are_drawn_by_the_preview_or_by_the_whole_generator(make, data, resolution, tiny_generator):
    trainer, codes = make(resolution=resolution), data[2]
    side = 2 * resolution or 256
    whole = tiny_generator.synthesis(codes) if not resolution else trainer.preview(tiny_generator, codes)
    assert torch.equal(trainer.draw(codes, side), whole)


def test_the_preview_learns_what_the_generator_draws(make, data):
    trainer = make()
    _, sampled, codes = data
    errors = [trainer.fit_preview(codes, sampled) for _ in range(60)]
    assert errors[-1] < 0.5 * errors[0]


def test_the_preview_learns_from_own_faces_while_the_encoder_learns_from_it(make, data):
    trainer = make()
    errors = [trainer.step(*data, own=1)["preview"] for _ in range(10)]
    assert sum(errors[-3:]) < sum(errors[:3])


def test_fitting_the_preview_leaves_the_encoder_alone(make, data):
    trainer = make()
    encoder = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    trainer.fit_preview(data[2], data[1])
    assert all(torch.equal(value, encoder[name]) for name, value in trainer.encoder.state_dict().items())
    assert all(p.grad is None for p in trainer.encoder.parameters())


def test_more_pieces_than_faces_are_refused(make, data):
    with pytest.raises(ValueError, match="2 real and 2 drawn faces make no 3 pieces"):
        make().step(*data, parts=3)


def test_a_trainer_without_a_preview_says_so(make, data):
    with pytest.raises(RuntimeError, match="no preview"):
        make(resolution=0).fit_preview(data[2], data[1])


@given(st.integers(1, 500), st.integers(0, 100))
def test_the_learning_rate_warms_up_and_then_only_falls_to_a_twentieth(steps, warmup):
    schedule = Schedule(steps, learning_rate=1.0, warmup=warmup)
    rates = [schedule.rate(step) for step in range(max(steps, warmup) + 5)]
    peak = min(warmup, len(rates) - 1)
    assert all(a < b for a, b in pairwise(rates[:peak]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    assert all(0 < rate <= 1 for rate in rates)
    assert schedule.rate(10_000) == pytest.approx(0.05)


@pytest.mark.parametrize("side", [8, 16, 48])
def test_resizing_keeps_flat_images_and_gives_the_side_asked_for(side):
    flat = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(resize(flat, side), torch.full((1, 3, side, side), 0.25))
    assert resize(flat, 16) is flat


def test_shrinking_is_an_area_mean_and_growing_is_smooth():
    steps = torch.arange(4.0).expand(1, 3, 4, 4).contiguous()
    torch.testing.assert_close(resize(steps, 2), torch.tensor([0.5, 2.5]).expand(1, 3, 2, 2))
    grown = resize(steps, 8)[0, 0, 0]
    torch.testing.assert_close(grown, torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))


def test_a_step_whose_loss_is_not_finite_stops_the_training_and_changes_nothing(make, data):
    trainer = make()
    before = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    with pytest.raises(ToolkitError, match=r"step 1: the loss is nan, .* lower --lr than 0\.002"):
        trainer.step(data[0] * math.nan, *data[1:])
    assert all(torch.equal(value, before[name]) for name, value in trainer.encoder.state_dict().items())
