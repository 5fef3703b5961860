"""How is an encoder trained, from nothing to a file of weights? ``stylegan-invert train`` as a function.

A run is a folder. Everything in it is written whole, so a run that was killed at any moment goes on from its last
checkpoint when the same command is given again. Under ``torchrun`` the processes share every step's faces; the first one
writes:

    sampled_*.npy             faces that the generator drew, and their codes
    preview.pt                the preview of the generator, as the training began with it
    checkpoint.pt             networks, optimisers, moving average
    log.csv                   every term of the loss, and the validation figures
    best.pt                   the moving average that did best on the validation faces, if there are any
    samples.png               validation faces, else some of the training's, above what the encoder makes of them
    encoder.safetensors       the best moving average, float16: what ships
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from editing.composition import parse_edits
from editing.errors import EditError
from encoders.backbone import BACKBONES, IRSEBackbone
from encoders.base import Encoder
from encoders.psp import PublishedEncoder
from encoders.resize import resize
from encoders.stylemap import StyleMapEncoder, narrowed
from encoders.training.distributed import barrier, broadcast, rank, world_size
from encoders.training.losses import Losses
from encoders.training.trainer import EncoderTrainer, Schedule, random_edits
from generators.base import Generator, Identity
from generators.errors import ToolkitError, UnknownName
from generators.mobilestylegan import MobileStyleGAN
from generators.preview import PreviewHead
from invert.edits import as_edit, check_name, load_directions
from invert.photo import whole_file
from pretrained.checkpoints import read_checkpoint
from pretrained.directions import direction_names
from pretrained.encoders import load_arcface
from pretrained.errors import BrokenFile, ForeignFile
from pretrained.loading import describe_encoder, load_encoder
from pretrained.psp import ENCODERS, METHODS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run does; saved beside it as ``plan.json``. Batches are those of all processes together."""

    steps: int = 3000
    """Optimiser steps."""
    batch_real: int = 8
    """Real faces a step."""
    batch_sampled: int = 8
    """Sampled faces a step, whose codes are supervised."""
    batch_drawn: int = 4
    """How many of the sampled faces get image losses too."""
    own: int = 4
    """How many real faces are drawn by the whole generator from the encoder's own, edited codes every so often: they teach
    the preview, and the encoder consistency."""
    own_every: int = 10
    """Steps between them."""
    parts: int = 1
    """Pieces that a step is worked on in, to save memory."""
    samples: int = 3000
    """Faces that the generator draws before the training; 0: fresh ones at every step, for those with a GPU."""
    preview_resolution: int = 64
    """Features that the preview of the generator reads (its image has twice that side); 0 draws whole images."""
    preview_steps: int = 300
    """Steps that the preview learns alone."""
    learning_rate: float = 3e-4
    precision: str = "float32"
    """Of the networks' products: ``float32``, ``bfloat16`` or, on a GPU, ``float16`` with scaled gradients."""
    seed: int = 0
    every: int = 100
    """Steps between checkpoints and validations."""
    losses: Losses = field(default_factory=Losses)
    """Weights of the terms."""
    edits: tuple[str, ...] = ()
    """What consistency teaches beside random moves, such as ``age=3``: edits up to these strengths, either way."""
    edited: int = 0
    """Faces more than ``samples`` that the generator draws before the training, whose codes are moved by these edits."""


RECIPES: dict[str, Losses] = {
    "psp": Losses(code=0.1, lpips=1.0, roughness=0.0),
    "restyle": Losses(code=0.1, lpips=1.0, roughness=0.0),
    "e4e": Losses(code=0.25, lpips=1.0, delta=0.01, adversarial=0.05, roughness=0.0),
    "stylemap": Losses(code=0.1, lpips=1.0, roughness=0.001),
    "stylemap-e": Losses(code=0.5, lpips=1.0, delta=0.01, consistency=1.0, edits=3.0, roughness=0.01),
}
"""Weights of the terms by kind of encoder; the kinds themselves are in ``encoders.compact``."""
EDIT_STRENGTH = 3
"""Up to which the directions that ship are useful."""


def train_encoder(
    encoder: Encoder,
    generator: Generator,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    real: UInt8[Tensor, "n 3 256 256"],
    validation: UInt8[Tensor, "m 3 256 256"] | None,
    folder: Path,
    plan: Plan,
    report: Callable[[int, dict[str, float]], None] | None = None,
    identity: Callable[[Tensor, Tensor], Tensor] | None = None,
    start: Path | str | None = None,
    faces: Path | None = None,
    notify: Callable[[str], None] = logger.warning,
    wanted: Collection[str] = (),
) -> nn.Module:
    """Train an encoder, or go on with the training that ``folder`` holds, on the device of the generator.

    Args:
        encoder: built, with its starting weights.
        generator: frozen.
        perceptual: per-image distance of two batches in [-1, 1]; a run goes on only with one of the same ``name``, if it has
            one (see ``invert.perceptual``).
        real: aligned faces.
        validation: aligned faces that are never learnt from; drawn by the whole generator every ``plan.every`` steps. None:
            nothing is measured, and a few of the training's are drawn.
        folder: the run.
        plan: what to do.
        report: called after each step with its number and terms.
        identity: per-image 1 - cosine of face embeddings of two batches of 256 px in [-1, 1], named like ``perceptual``;
            None: that term is off.
        start: what this run begins with, where it does not go on: the folder of another one (its moving average, preview
            and sampled faces; of one for another generator its moving average alone), or a file or name that
            ``load_encoder`` takes; or ArcFace's file, for the backbone alone.
        faces: the folder of a run whose sampled faces and preview, as it began, serve this one too: drawing and fitting them
            takes long.
        notify: told where ``start`` was trained for another generator, and which terms that have a weight are off.
        wanted: names of terms that the run is refused without.

    Returns:
        The moving average of the encoder: the one with the best perceptual distance on the validation faces, of all that
        were measured on the same, if there are any, else the last one.

    Raises:
        ToolkitError: the folder holds a run of another plan or cannot be written, the plan does not fit the processes or
            the generator, a term that is wanted would be off, or ``start`` or ``faces`` hold no such encoder, faces or
            preview.
    """
    device = generator.w_avg.device
    # A mistake leaves no folder behind.
    share, offsets = _shares(plan), edit_offsets(plan.edits, generator)
    _check_settings(plan, encoder, generator, len(real))
    off = _terms_off(plan, encoder, perceptual, identity, len(real))
    for term in wanted:
        if term in off:
            raise ToolkitError(f"--loss {term}: that term would be off: it needs {off[term]}")
    preview = _preview(generator, plan.preview_resolution, plan.seed)
    drawn = _faces_folder(plan, folder, start, faces, generator)
    judge = {"validation": None if validation is None else _hash_faces(validation), "perceptual": _name(perceptual)}
    described = _describe(plan, encoder, generator, real) | judge | {"identity": _name(identity), "processes": world_size()}
    described |= {"sampled_faces": _hash_sampled(generator, plan, drawn, offsets), "sampled_in": str(drawn)}
    _check_plan(folder, described, generator)
    for term, need in off.items():
        if rank() == 0 and term != "lpips":  # Whoever could not load that one has said so, and why.
            notify(f"the {term} term is off: it needs {need}")
    checkpoint = folder / "checkpoint.pt"
    resumed = checkpoint.is_file()
    encoder.w_avg.copy_(generator.w_avg)
    encoder.identity = generator.identity
    encoder.to(device)
    fitted = start is not None and not resumed and begin_with(start, encoder, preview, notify)
    barrier()  # The others have read the plan.
    if rank() == 0:
        _write_plan(folder, described)
    trainer = EncoderTrainer(
        encoder, generator, perceptual, Schedule(plan.steps, plan.learning_rate), preview, plan.losses,
        seed=plan.seed, identity=identity, precision=_PRECISIONS[plan.precision], edits=offsets,
    )  # fmt: skip
    if resumed:
        state = _read_state(checkpoint, device)
        with _damage_in_words(checkpoint):
            trainer.load_state_dict(state["trainer"])
        logger.info("going on from step %d", trainer.step_number)
    if rank() == 0:
        cut_rows(folder / "log.csv", trainer.step_number)
    if plan.samples and rank() == 0:
        sample_faces(generator, plan.samples, plan.seed, drawn, edits=offsets, edited=plan.edited)
    barrier()
    sampled = _sampled_batches(generator, plan, drawn, trainer.step_number, share, offsets)
    if preview is not None and not resumed and not fitted:
        _fit_preview(trainer, preview, plan, drawn, report)
        # Of the preview's optimiser, too; before preview.pt, by which a run that begins again skips the fit.
        _save_checkpoint(trainer, folder)
        _keep_preview(preview, drawn)
    shown = _faces_to_show(real, generator, plan, drawn) if rank() == 0 and validation is None else None
    real_rows = batches(len(real), plan.batch_real, plan.seed + 2, skip=trainer.step_number)
    while trainer.step_number < plan.steps:
        began = time.perf_counter()
        photos = from_uint8(real[next(real_rows)[share]].numpy()).to(device)
        images, codes = next(sampled)
        own = plan.own // world_size() if trainer.step_number % plan.own_every == 0 else 0
        terms = trainer.step(photos, images, codes, drawn=plan.batch_drawn // world_size(), own=own, parts=plan.parts)
        terms["seconds"] = time.perf_counter() - began
        is_kept = trainer.step_number % plan.every == 0 or trainer.step_number == plan.steps
        if is_kept and rank() == 0 and validation is not None:
            terms |= _keep_validated(trainer, validation, folder, judge)
        if is_kept and shown is not None:
            draw_sheet(trainer, shown, folder / "samples.png")
        if rank() == 0:  # Before the checkpoint: rows that it does not know of are cut off, those that lack stay away.
            append_row(folder / "log.csv", {"step": trainer.step_number, **terms})
        if is_kept:
            _save_checkpoint(trainer, folder)
        if rank() == 0 and report is not None:
            report(trainer.step_number, terms)
    if best := _read_best(folder, judge, device):
        with _damage_in_words(folder / "best.pt"):
            trainer.average.load_state_dict(best["average"])
    return trainer.average


def default_preview(generator: Generator) -> int:
    """Return the features that the preview of a generator reads where nobody says; 0: it has no preview."""
    return min(Plan.preview_resolution, generator.img_resolution // 2) if isinstance(generator, MobileStyleGAN) else 0


def taught_edits(method: str, generator: Identity) -> tuple[str, ...]:
    """Return the edits that a kind of encoder is taught, where nobody says: ``stylemap-e`` those that ship, to both ends."""
    return tuple(f"{name}={EDIT_STRENGTH}" for name in direction_names(generator)) if method == "stylemap-e" else ()


def edit_offsets(edits: Sequence[str], generator: Generator) -> Float[Tensor, "edits num_ws w_dim"] | None:
    """Return what edits, as a user writes them, add to a code; None for none.

    Raises:
        EditError: an edit is not written like one, is for a part of the face, or does nothing.
        UnknownName: no direction of such a name.
        LatentMismatch: it was learnt for another generator.
    """
    if not edits:
        return None
    specs = [check_name(spec, generator.identity) for spec in parse_edits(edits)]
    directions = load_directions(specs, generator)
    for spec in specs:
        if not spec.strength:
            raise EditError(f"the edit {spec} does nothing: give the strength up to which it is taught, as in {spec.name}=3")
    mean = generator.w_avg.expand(1, generator.num_ws, -1)
    moved = (as_edit(spec, directions[spec.name], generator)(mean, spec.strength) for spec in specs)
    return torch.cat([w_plus - mean for w_plus in moved if isinstance(w_plus, Tensor)])


def begin_with(
    start: Path | str,
    encoder: Encoder,
    preview: PreviewHead | None,
    notify: Callable[[str], None] = logger.warning,
) -> bool:
    """Give an encoder, of any kind on the same backbone, the weights of another: a run's best moving average, or a file's.

    A published file may have heads for more layers than the generator: the first ones serve. Of ArcFace's file the backbone
    alone is taken.

    An encoder of deltas begins with the other's coarse styles in all layers, unless that is one of deltas itself. ReStyle's
    overlooks at first what was drawn, and begins with the strongest channels of the other's heads where its own are
    narrower. Its ``w_avg`` stays: codes are offsets from the mean of its own generator. Where the other encoder is known to
    be for another generator, ``notify`` is told, and a run's preview is left.

    Returns:
        Whether the preview was given a run's.

    Raises:
        ToolkitError: there is no run, or its encoder or preview is of another shape.
    """
    if _begin_with_face(start, encoder):
        return False
    run = Path(start)
    has_deltas, drawn = False, None
    if run.is_dir():
        if not (run / "checkpoint.pt").is_file():
            raise ToolkitError(f"{run} holds no checkpoint.pt: expected the folder of a training run")
        weights, drawn, has_deltas = _read_run(run)
        theirs = _generator_of(run / "plan.json")
    else:
        source = _load_start(start, encoder)
        weights, has_deltas = source.state_dict(), source.deltas
        theirs = source.identity if source.identity.sha256 else None
    if not _fits(theirs, ours := encoder.identity):
        drawn = None
        if rank() == 0:
            notify(f"{start} was trained for the generator {theirs}, not for {ours}: nothing but its weights is taken")
    weights = {**weights, "w_avg": encoder.w_avg}
    if (seen := _backbone_of(weights)) != (own := _backbone_of(encoder.state_dict())):
        raise ToolkitError(f"{start} holds another encoder or preview: its backbone is {seen}, and --backbone {own}")
    if isinstance(encoder, PublishedEncoder):
        if has_deltas and not encoder.deltas:
            raise ToolkitError(f"{start} gives one style and deltas from it: begin with an encoder of whole styles")
        weights = _first_heads(weights, encoder.num_ws)
    if isinstance(encoder, StyleMapEncoder) and encoder.context:
        # An overview begins with adding nothing, where the other encoder has none.
        weights = {f"overview.{name}": value for name, value in encoder.overview.state_dict().items()} | weights
    if isinstance(encoder, StyleMapEncoder) and encoder.in_channels != 3:
        weights = _for_two_images(weights, encoder)
    try:
        encoder.load_state_dict(weights)
        if preview is not None and drawn is not None:
            preview.load_state_dict(drawn)
    except RuntimeError as error:
        raise ToolkitError(f"{start} holds another encoder or preview: {error}") from error
    if encoder.deltas and not has_deltas:
        encoder.styles_to_deltas()
    return preview is not None and drawn is not None


def _read_run(run: Path) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, bool]:
    """Return a run's best moving average or else its last, its preview, and whether its encoder is one of deltas."""
    state = _read_state(run / "checkpoint.pt")
    with _damage_in_words(run / "checkpoint.pt"):
        weights, drawn = dict(state["trainer"]["average"]), state["trainer"]["preview"]
    known = {}
    if (run / "plan.json").is_file():
        with _damage_in_words(run / "plan.json"):
            known = _flat(json.loads((run / "plan.json").read_text()))
    if best := _read_best(run, {name: known[name] for name in ("validation", "perceptual") if name in known}):
        with _damage_in_words(run / "best.pt"):
            weights = dict(best["average"])
    if "encoder.arguments.deltas" not in known and (run / "encoder.safetensors").is_file():  # A run of before that.
        known = _flat(describe_encoder(load_encoder(run / "encoder.safetensors")), "encoder.")
    published = ENCODERS.get(str(known.get("encoder.architecture")))
    return weights, drawn, published.deltas if published else bool(known.get("encoder.arguments.deltas"))


def _load_start(start: Path | str, encoder: Encoder) -> Encoder:
    """Load what a run begins with; where nothing in a file tells which of two encoders it holds, the one to be trained."""
    try:
        return load_encoder(start)
    except ForeignFile:
        methods = [name for name, members in METHODS.items() if type(encoder).__name__ in members]
        if not methods:
            raise
        return load_encoder(start, method=min(methods, key=lambda name: len(METHODS[name])))  # "restyle" means either.


def _begin_with_face(start: Path | str, encoder: Encoder) -> bool:
    """Give an encoder the backbone of a face network, and tell whether ``start`` is a file of one."""
    file = Path(start)
    if not file.is_file() or "face" not in read_checkpoint(file).readers:
        return False
    prefix = "backbone." if isinstance(encoder, StyleMapEncoder) else ""
    parts = ("input_layer.", "body.")
    face = {prefix + name: value for name, value in load_arcface(file).state_dict().items() if name.startswith(parts)}
    state = encoder.state_dict()
    if face.keys() != {name for name in state if name.startswith(tuple(prefix + part for part in parts))}:
        raise ToolkitError(f"{start} holds a face network on another backbone than this run's: ArcFace's is for ir-se50")
    face[prefix + IRSEBackbone.FIRST] = IRSEBackbone.widen(face[prefix + IRSEBackbone.FIRST], encoder.in_channels)
    encoder.load_state_dict(state | face)
    return True


def _backbone_of(weights: Mapping[str, Tensor]) -> str:
    """Name the backbone that an encoder's weights are for."""
    return next((name for first, name in _FIRST.items() if first in weights), "unknown")


_FIRST = {
    **{f"backbone.{network.FIRST}": name for name, network in BACKBONES.items()},
    IRSEBackbone.FIRST: "ir-se50",
    "conv1.weight": "resnet-34",
}
"""Tensors that only one backbone has, of the StyleMap encoder and of published ones."""


def _first_heads(weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Leave out the heads of layers that a smaller generator lacks: its layers are a larger one's first."""
    last = re.compile(r"styles\.(\d+)\.")
    return {name: value for name, value in weights.items() if not (head := last.match(name)) or int(head[1]) < count}


def _for_two_images(weights: Mapping[str, Tensor], encoder: StyleMapEncoder) -> dict[str, Tensor]:
    """Return the weights of an encoder of single images for ReStyle's; those of another architecture as they are."""
    first = f"backbone.{encoder.backbone.FIRST}"
    if first not in weights:
        return dict(weights)
    weights = {**weights, first: encoder.backbone.widen(weights[first], encoder.in_channels)}
    for k in range(len(encoder.heads)):
        prefix = f"heads.{k}."
        head = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if head and head["mix.weight"].shape[0] > encoder.width:
            weights |= {prefix + name: value for name, value in narrowed(head, encoder.width).items()}
    return weights


def _fit_preview(
    trainer: EncoderTrainer,
    preview: PreviewHead,
    plan: Plan,
    folder: Path,
    report: Callable[[int, dict[str, float]], None] | None,
) -> None:
    """Teach the preview what the generator draws, before the encoder leans on it; or take what ``folder`` keeps of it."""
    kept = folder / "preview.pt"
    if kept.is_file():
        state = _read_state(kept, trainer.device)
        try:
            preview.load_state_dict(state)
        except RuntimeError as error:
            raise ToolkitError(f"{kept} is another preview: {error}") from error
        return
    each = replace(plan, batch_sampled=8 * world_size(), seed=plan.seed + 1)
    faces = _sampled_batches(trainer.generator, each, folder, 0, slice(rank(), None, world_size()))
    side = 2 * preview.resolution
    preview.solve(trainer.generator, ((codes, resize(image, side)) for image, codes in itertools.islice(faces, 12)))
    broadcast(preview)  # Each process solved for faces of its own.
    schedule = Schedule(plan.preview_steps, 1e-3, warmup=20)
    for step, (image, codes) in zip(range(plan.preview_steps), faces, strict=False):
        # The perceptual distance is of no use to an image that is still blotchy.
        squared = trainer.fit_preview(codes, image, schedule.rate(step), lpips=0.1 if step >= 50 else 0.0)
        if report is not None and step % 10 == 0:
            report(step - plan.preview_steps, {"preview": squared})


def _keep_preview(preview: PreviewHead, folder: Path) -> None:
    """Write the preview as the training begins with it, unless the folder keeps one."""
    if rank() == 0 and not (folder / "preview.pt").is_file():
        with whole_file(folder / "preview.pt") as temporary:
            torch.save(preview.state_dict(), temporary)


_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _shares(plan: Plan) -> slice:
    """Return which rows of every batch are this process's.

    Raises:
        ToolkitError: the batches cannot be shared evenly, or the precision has no such name.
    """
    count = world_size()
    uneven = [name for name in ("batch_real", "batch_sampled", "batch_drawn", "own") if getattr(plan, name) % count]
    if uneven:
        raise ToolkitError(f"{count} processes cannot share {', '.join(uneven)} evenly: give multiples of {count}")
    if plan.precision not in _PRECISIONS:
        raise UnknownName("precision", plan.precision, _PRECISIONS)
    return slice(rank(), None, count)


def _check_settings(plan: Plan, encoder: Encoder, generator: Generator, real: int) -> None:
    """Refuse settings that no step can be taken with."""
    if encoder.in_channels == 6 and encoder.space != "w_plus":
        raise ToolkitError(
            "an encoder that sees what was drawn so far gives one style a layer, no maps: take --sizes 1,1,1, or "
            "stylemap-e, which looks several times too"
        )
    if encoder.space == "stylemap" and not generator.style_resolutions:
        raise ToolkitError(
            f"{generator.identity} takes one style a layer, no maps, since its features move under the pixels: train psp, "
            "e4e or restyle for it, or take --sizes 1,1,1"
        )
    if getattr(generator, "c_dim", 0):
        raise ToolkitError(f"{generator.identity} draws by labels, which encoders know nothing of: take one without classes")
    if plan.precision == "float16" and generator.w_avg.device.type != "cuda":
        raise ToolkitError("precision float16 is for GPUs alone: use bfloat16, or float32")
    if not 0 < plan.learning_rate < math.inf:
        raise ToolkitError(f"a learning rate of {plan.learning_rate}: expected a number above 0, such as 3e-4")
    if plan.edited and not plan.edits:
        raise ToolkitError(f"--edited {plan.edited}: no edit moves these faces: name some by --edit, or leave --edited out")
    if plan.edited and not plan.samples:
        raise ToolkitError(f"--edited {plan.edited}: no faces are drawn first with --samples 0: leave --edited out")
    sampled = min(plan.batch_sampled, plan.samples + plan.edited) if plan.samples else plan.batch_sampled
    seen = min(plan.batch_real, real) // world_size(), min(plan.batch_drawn, sampled) // world_size()
    if max(seen) < plan.parts:
        raise ToolkitError(
            f"{seen[0]} real and {seen[1]} drawn faces a step make no {plan.parts} pieces, each with a face of one kind: "
            "raise --batch-real or --batch-drawn, or lower --parts"
        )


def _terms_off(
    plan: Plan,
    encoder: Encoder,
    perceptual: Callable[[Tensor, Tensor], Tensor],
    identity: Callable[[Tensor, Tensor], Tensor] | None,
    real: int,
) -> dict[str, str]:
    """Return the terms that have a weight and are off all the same, and what each needs."""
    has_own = plan.own > 0 and plan.losses.consistency > 0  # Without that weight they teach the preview alone.
    needs = {
        "lpips": (_name(perceptual) != "off", "LPIPS's weights"),
        "identity": (identity is not None, "a face network: give --identity FILE"),
        "code": (plan.batch_sampled > 0, "sampled faces: raise --batch-sampled"),
        "consistency": (plan.own > 0, "faces drawn from the encoder's own codes: raise --own"),
        "edits": (
            bool(plan.edits) and (plan.batch_sampled > 0 or has_own),
            "sampled faces: raise --batch-sampled" if plan.edits else "edits that are taught: name some by --edit",
        ),
        "w_norm": (min(plan.batch_real, real) > 0, "real faces: give --data"),
        "roughness": (encoder.space == "stylemap", "style maps, and this encoder gives one style a layer"),
    }
    return {term: need for term, (is_there, need) in needs.items() if getattr(plan.losses, term) and not is_there}


def _faces_folder(plan: Plan, folder: Path, start: Path | str | None, faces: Path | None, generator: Generator) -> Path:
    """Return which run's sampled faces and preview serve: those of ``faces``, of ``start`` if it has some, or its own."""
    needed = "sampled.json" if plan.samples else "preview.pt"
    if faces is not None and not (faces / needed).is_file():
        raise ToolkitError(f"{faces} holds no {needed}: expected the folder of a training run that has faces drawn")
    if faces is None and start is not None and (Path(start) / needed).is_file():
        return Path(start) if _fits(_generator_of(Path(start) / "plan.json"), generator.identity) else folder
    return faces or folder


def _sampled_batches(
    generator: Generator,
    plan: Plan,
    folder: Path,
    skip: int,
    share: slice,
    edits: Float[Tensor, "edits num_ws w_dim"] | None = None,
) -> Iterator[tuple[Float[Tensor, "n 3 256 256"], Float[Tensor, "n num_ws w_dim"]]]:
    """Yield this process's sampled faces and their codes from step ``skip`` on: of the run's files, or fresh ones.

    Of fresh ones the last quarter is moved by edits, where some are taught.
    """
    device = generator.w_avg.device
    if not plan.samples:
        for step in itertools.count(skip):
            seed = plan.seed * 1_000_003 + step
            codes = sample_codes(generator, plan.batch_sampled, seed)
            if edits is not None:
                moved = plan.batch_sampled - plan.batch_sampled // 4
                codes = torch.cat([codes[:moved], move_codes(codes[moved:], edits, seed)])
            codes = codes[share]
            if not len(codes):  # Some ops refuse empty batches.
                yield codes.new_zeros(0, 3, 256, 256), codes
                continue
            with torch.no_grad():  # Not around the yield: it would hold for the caller's gradients too.
                faces = resize(generator.synthesis(codes).clamp(-1, 1), 256)
            yield faces, codes
    count = plan.samples + (plan.edited if edits is not None else 0)
    images, known = (np.load(folder / f"sampled_{what}.npy", mmap_mode="r")[:count] for what in ("images", "codes"))
    for rows in batches(len(images), plan.batch_sampled, plan.seed + 3, skip=skip):
        chosen = rows[share]
        yield from_uint8(images[chosen]).to(device), torch.from_numpy(known[chosen]).float().to(device)


def _save_checkpoint(trainer: EncoderTrainer, folder: Path) -> None:
    """Write all that a resumed run needs; all processes call it together."""
    state = trainer.state_dict()
    if rank() == 0:
        with whole_file(folder / "checkpoint.pt") as temporary:
            torch.save({"trainer": state}, temporary)
    barrier()


def _keep_validated(
    trainer: EncoderTrainer, validation: UInt8[Tensor, "m 3 256 256"], folder: Path, judge: Mapping[str, Any]
) -> dict[str, float]:
    """Measure on the validation faces, and keep the average that does best.

    Raises:
        ToolkitError: the encoder's codes draw no finite images.
    """
    figures = validate(trainer, validation, folder / "samples.png")
    if not all(map(math.isfinite, figures.values())):
        raise ToolkitError(
            f"step {trainer.step_number}: the encoder makes no finite images of the validation faces: begin again "
            f"with a lower --lr than {trainer.schedule.learning_rate:g}"
        )
    if trainer.stage is None:  # An encoder of deltas is used with all of them on.
        _keep_best(folder, trainer, figures, judge)
    return figures


def _keep_best(folder: Path, trainer: EncoderTrainer, figures: Mapping[str, float], judge: Mapping[str, Any]) -> None:
    """Keep the moving average that did best on the validation faces: a training can go astray after it.

    The squared error decides between equal perceptual distances: they are all 0 where that distance is off.
    """
    before = _read_best(folder, judge)
    best = tuple(before.get(name, math.inf) for name in _JUDGED_BY)
    ours = tuple(figures[name] for name in _JUDGED_BY)
    if not (ours < best or any(map(math.isnan, best))):
        return
    with whole_file(folder / "best.pt") as temporary:
        state = {"average": trainer.average.state_dict(), "step_number": trainer.step_number}
        torch.save({**state, **{name: figures[name] for name in _JUDGED_BY}, **judge}, temporary)


_JUDGED_BY = ("val_lpips", "val_mse")


def _read_best(folder: Path, judge: Mapping[str, Any], device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the best average of a run, or nothing where it was judged otherwise: its figures do not compare.

    Args:
        folder: the run.
        judge: the validation faces, None for no such, and the perceptual distance; what is missing is not known.
        device: where its tensors go.
    """
    file = folder / "best.pt"
    if not file.is_file() or judge.get("validation", ...) is None:
        return {}
    best = _read_state(file, device)
    if any(best.get(name, value) != value for name, value in judge.items()):
        return {}
    if "perceptual" in judge and "perceptual" not in best:  # From before it was written down; "off" measures 0.
        with _damage_in_words(file):
            return best if (judge["perceptual"] == "off") == (best["val_lpips"] == 0) else {}
    return best


def _preview(generator: Generator, resolution: int, seed: int) -> PreviewHead | None:
    if not resolution:
        return None
    if not isinstance(generator, MobileStyleGAN):
        raise ToolkitError(f"no preview for {type(generator).__name__}: use --preview-resolution 0")
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # Runs of one plan start alike.
        try:
            return PreviewHead.for_generator(generator, resolution).to(generator.w_avg.device)
        except ValueError as error:
            raise ToolkitError(f"--preview-resolution {resolution}: {error}, or 0 for none") from error


def sample_faces(
    generator: Generator,
    count: int,
    seed: int,
    folder: Path,
    resolution: int = 256,
    edits: Float[Tensor, "edits num_ws w_dim"] | None = None,
    edited: int = 0,
) -> tuple[UInt8[np.ndarray, "n 3 resolution resolution"], Float[np.ndarray, "n num_ws w_dim"]]:
    """Let the generator draw faces into files that stay; a second call goes on where the first one was stopped.

    The first half has one style each; in the other half a second face's style takes over from a random layer on, so that
    layers become independent. Truncation psi is drawn from [0.6, 1] for each face. Behind them come ``edited`` more, each
    moved by two edits: W alone has few faces in which one attribute differs and the others do not. A call without these
    takes its faces from the files of one with them.
    """
    count, plain = count + (edited if edits is not None else 0), count
    image_file, code_file, done_file = folder / "sampled_images.npy", folder / "sampled_codes.npy", folder / "sampled.json"
    known, done = {}, 0
    if done_file.is_file():
        with _damage_in_words(done_file):
            known = dict(json.loads(done_file.read_text()))
            done = int(known["done"])
        _check_generator(done_file, generator)
    if done:
        with _damage_in_words(done_file):  # Without it, the others are drawn again.
            total = min(np.load(file, mmap_mode="r").shape[0] for file in (code_file, image_file))
        if known.get("plain", total) != plain or total < count:
            raise ToolkitError(
                f"{folder} holds another number of sampled faces than the {count} asked for: choose another folder"
            )
    if not done:
        np.save(code_file, _codes_of_faces(generator, plain, seed, edits, edited))
        open_memmap(image_file, mode="w+", dtype=np.uint8, shape=(count, 3, resolution, resolution)).flush()
    images, codes = open_memmap(image_file, mode="r+"), np.load(code_file, mmap_mode="r")
    for start in range(done, count, 4):
        with torch.no_grad():
            some = torch.from_numpy(np.array(codes[start : start + 4])).float().to(generator.w_avg)
            drawn = resize(generator.synthesis(some), resolution)
        images[start : start + 4] = to_uint8(drawn).cpu().numpy()
        if start % 100 == 0 or start + 4 >= count:
            images.flush()
            with whole_file(done_file) as temporary:
                entries = {"done": min(count, start + 4), "seed": seed, "plain": plain, "generator": _known_as(generator)}
                temporary.write_text(json.dumps(entries))
    return images[:count], codes[:count]


def _codes_of_faces(
    generator: Generator, plain: int, seed: int, edits: Float[Tensor, "edits num_ws w_dim"] | None, edited: int
) -> Float[np.ndarray, "n num_ws w_dim"]:
    """Return the codes of ``sample_faces`` as its file has them."""
    codes = sample_codes(generator, plain, seed)
    if edits is not None and edited:
        codes = torch.cat([codes, move_codes(sample_codes(generator, edited, seed + 4), edits, seed + 5)])
    return codes.half().cpu().numpy()


@torch.no_grad()
def sample_codes(generator: Generator, count: int, seed: int) -> Float[Tensor, "n num_ws w_dim"]:
    """Draw the codes of ``sample_faces``."""
    random = torch.Generator().manual_seed(seed)

    def draw(n: int) -> Tensor:
        w = generator.mapping.w(torch.randn(n, generator.z_dim, generator=random).to(generator.w_avg))
        return generator.w_avg.lerp(w, (0.6 + 0.4 * torch.rand(n, 1, generator=random)).to(w))

    codes = draw(count)[:, None].repeat(1, generator.num_ws, 1)
    mixed = count - count // 2
    second = draw(mixed)[:, None]
    crossover = torch.randint(2, max(3, generator.num_ws - 4), (mixed, 1), generator=random)
    behind = (torch.arange(generator.num_ws)[None] >= crossover)[:, :, None].to(codes.device)
    codes[count // 2 :] = torch.where(behind, second, codes[count // 2 :])
    return codes


def move_codes(
    codes: Float[Tensor, "n num_ws w_dim"], edits: Float[Tensor, "edits num_ws w_dim"], seed: int
) -> Float[Tensor, "n num_ws w_dim"]:
    """Move each code by two edits, each up to its full strength either way."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(2):
        codes = codes + random_edits(edits, len(codes), random)
    return codes


@torch.no_grad()
def validate(trainer: EncoderTrainer, faces: UInt8[Tensor, "m 3 256 256"], sheet: Path) -> dict[str, float]:
    """Measure the moving average on faces that it never saw, drawn by the whole generator."""
    errors, distances, pairs = [], [], []
    for target, image in _invert(trainer, faces):
        errors.append((image - target).square().mean((1, 2, 3)))
        distances.append(trainer.perceptual(image, target).flatten())
        pairs.append((target, image))
    _write_sheet(pairs, sheet)
    return {"val_mse": torch.cat(errors).mean().item(), "val_lpips": torch.cat(distances).mean().item()}


def draw_sheet(trainer: EncoderTrainer, faces: UInt8[Tensor, "m 3 256 256"], sheet: Path) -> None:
    """Draw faces above what the moving average makes of them."""
    _write_sheet(list(_invert(trainer, faces)), sheet)


def _invert(
    trainer: EncoderTrainer, faces: UInt8[Tensor, "m 3 256 256"]
) -> Iterator[tuple[Float[Tensor, "n 3 256 256"], Float[Tensor, "n 3 256 256"]]]:
    """Yield some faces at a time, and what the whole generator draws for the moving average's codes of them."""
    for rows in torch.arange(len(faces)).split(4):
        target = from_uint8(faces[rows].numpy()).to(trainer.device)
        yield target, resize(trainer.invert(target), 256)


def _write_sheet(pairs: Sequence[tuple[Tensor, Tensor]], sheet: Path) -> None:
    """Write faces above their drawings, 16 at most."""
    from PIL import Image

    columns = torch.cat([torch.cat([target, image.clamp(-1, 1)], dim=2) for target, image in pairs])[:16]
    with whole_file(sheet) as temporary:
        Image.fromarray(to_uint8(columns).permute(2, 0, 3, 1).flatten(1, 2).cpu().numpy()).save(temporary)


def _faces_to_show(
    real: UInt8[Tensor, "n 3 256 256"], generator: Generator, plan: Plan, drawn: Path
) -> UInt8[Tensor, "m 3 256 256"]:
    """Return the first of the real faces, or else of those that were drawn: the same whenever the run goes on."""
    if len(real):
        return real[:_SHOWN]
    if plan.samples:
        return torch.from_numpy(np.load(drawn / "sampled_images.npy", mmap_mode="r")[:_SHOWN].copy())
    with torch.no_grad():
        faces = generator.synthesis(sample_codes(generator, _SHOWN, plan.seed))
    return to_uint8(resize(faces, 256)).cpu()


_SHOWN = 8


def batches(count: int, size: int, seed: int, skip: int = 0) -> Iterator[np.ndarray]:
    """Yield rows in random order, all of them before any repeats; ``skip`` batches are passed over (to resume)."""
    random = np.random.default_rng(seed)
    size = min(size, count)
    pending = np.empty(0, dtype=np.int64)
    while True:
        if len(pending) < size:
            pending = np.concatenate([pending, random.permutation(count)])
        rows, pending = pending[:size], pending[size:]
        if skip:
            skip -= 1
            continue
        yield np.sort(rows)


def append_row(table: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file of fixed columns; what has none is dropped."""
    new = not table.is_file()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


_TERMS = [term.name for term in fields(Losses)]
_COLUMNS = ["step", "loss", *_TERMS, "discriminator", "preview", "gradient", "seconds", "val_mse", "val_lpips"]


def cut_rows(table: Path, last: int) -> None:
    """Drop the rows of the steps behind a checkpoint, which are about to be done again.

    Raises:
        ToolkitError: it is no log of a training, or one with other columns.
    """
    if not table.is_file():
        return
    with _damage_in_words(table), table.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [_COLUMNS]
        kept = [row for row in rows if row and int(row[0]) <= last]
    if head != _COLUMNS:
        raise ToolkitError(f"{table} has other columns than the log of a training: move it elsewhere to go on")
    with whole_file(table) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *kept])


def from_uint8(images: UInt8[np.ndarray, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Turn bytes into [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def to_uint8(images: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Turn [-1, 1] into bytes."""
    return (images * 127.5 + 127.5).round().clamp(0, 255).byte()


def _describe(plan: Plan, encoder: Encoder, generator: Generator, real: UInt8[Tensor, "n 3 256 256"]) -> dict[str, Any]:
    """Return what makes a run the one it is: ``plan.json``."""
    known = {"encoder": describe_encoder(encoder), "faces": _hash_faces(real), "generator": _known_as(generator)}
    return json.loads(json.dumps(asdict(plan) | known))  # type: ignore[no-any-return]


def _hash_faces(faces: UInt8[Tensor, "n 3 256 256"]) -> list[int | str]:
    """Return what tells faces from others: how many, and a hash of sixteenths of their sides."""
    return [len(faces), hashlib.sha256(faces[:, :, ::16, ::16].contiguous().numpy().tobytes()).hexdigest()]


def _hash_sampled(
    generator: Generator, plan: Plan, folder: Path, edits: Float[Tensor, "edits num_ws w_dim"] | None
) -> list[int | str] | None:
    """Return what tells sampled faces from others: how many, and a hash of their codes, in the files or yet to come."""
    if not plan.samples:
        return None
    count = plan.samples + (plan.edited if edits is not None else 0)
    if (folder / "sampled.json").is_file():
        with _damage_in_words(folder / "sampled_codes.npy"):
            codes = np.load(folder / "sampled_codes.npy", mmap_mode="r")[:count]
    else:
        codes = _codes_of_faces(generator, plan.samples, plan.seed, edits, plan.edited)
    return [len(codes), hashlib.sha256(np.ascontiguousarray(codes).tobytes()).hexdigest()]


def _name(distance: Callable[[Tensor, Tensor], Tensor] | None) -> str:
    """Return what tells a distance from others."""
    return "off" if distance is None else str(getattr(distance, "name", "unnamed"))


def _known_as(generator: Generator) -> list[str]:
    """Return a generator's identity as JSON holds it."""
    return [generator.identity.name, generator.identity.sha256]


def _generator_of(file: Path) -> Identity | None:
    """Return what a run's ``plan.json`` or ``sampled.json`` was made for; None where it does not say, as in old ones."""
    if not file.is_file():
        return None
    with _damage_in_words(file):
        known = json.loads(file.read_text())
        return Identity(*map(str, known["generator"])) if "generator" in known else None


def _fits(theirs: Identity | None, ours: Identity) -> bool:
    """Tell whether something is for our generator, for all that is known."""
    return theirs is None or ours == Identity() or theirs.fits(ours)


def _check_generator(file: Path, generator: Generator) -> None:
    """Refuse what was made for another generator; files from before it was written down are taken."""
    if (theirs := _generator_of(file)) is not None and not theirs.fits(generator.identity):
        raise ToolkitError(
            f"{file.parent} was made for the generator {theirs}, not for {generator.identity}: choose another folder, "
            "or that generator"
        )


def _check_plan(folder: Path, described: dict[str, Any], generator: Generator) -> None:
    """Refuse to go on with a run of another kind; a longer or shorter one, or one validated otherwise, is the same kind."""
    file = folder / "plan.json"
    if not file.is_file():
        return
    with _damage_in_words(file):
        before = _flat(json.loads(file.read_text()))
    _check_generator(file, generator)
    if before.get("encoder.architecture") == "stylemap":  # There was no other backbone before they were named.
        before.setdefault("encoder.backbone", "compact")
    if not (before.get("edits") and before.get("samples")):
        before.pop("edited", None)  # It did nothing, and is refused today.
    free = ("steps", "every", "validation", "generator", "sampled_in")
    now = {key: value for key, value in _flat(described).items() if key not in free}
    changed = [key for key, value in now.items() if before.get(key, value) != value]
    if changed:
        where = f"; its sampled faces are those in {before['sampled_in']}" if "sampled_faces" in changed else ""
        raise ToolkitError(
            f"{folder} holds a run with another {', '.join(changed)}: choose another folder (--start {folder} lets it begin "
            f"with this run's encoder), or the same settings ({', '.join(f'{key}={before[key]}' for key in changed)}){where}"
        )


def _flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of nested objects by names such as ``losses.code``."""
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


@contextmanager
def _damage_in_words(file: Path) -> Iterator[None]:
    """Turn whatever a damaged file of a run makes its readers raise into a message."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise BrokenFile(f"{file}: damaged or of another kind ({reason}): delete it to begin again without it") from error


def _read_state(file: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a file of a run that torch wrote."""
    with _damage_in_words(file):
        state: dict[str, Any] = dict(torch.load(file, weights_only=True, map_location=device))
    return state


def _write_plan(folder: Path, described: Mapping[str, Any]) -> None:
    """Make the folder of a run, with its plan, and clear it of what a killed one was writing.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(folder / "plan.json") as temporary:
        temporary.write_text(json.dumps(described, indent=2))
    for part in folder.glob(f".*-{'[0-9a-f]' * 12}.*"):
        part.unlink()
