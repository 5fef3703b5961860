"""How does an encoder learn? One step of it: losses on real faces, and codes and losses on faces that the generator drew.

The trainer holds networks, optimisers and moving average, and gives its whole state as one dict; where the data come from
and where checkpoints go is its caller's business. Under ``torchrun`` every process calls it with faces of its own.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.base import Encoder
from encoders.psp import PublishedEncoder
from encoders.resize import resize
from encoders.restyle import change, restyle
from encoders.training.augment import compress, misalign, one_side, patch, random_flip, relight, soften
from encoders.training.discriminator import LatentAdversary, style_vectors
from encoders.training.distributed import average_gradients, average_terms, gather, parallel, rank, world_size
from encoders.training.losses import Losses, code_error, delta_norm, edit_error, roughness
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import AnyBatch, Latent, StyleMaps, as_stylemaps, map_layers, select
from generators.ops import resize_style
from generators.preview import PreviewHead

Image = Float[Tensor, "batch 3 height width"]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the run: linear warm-up, then a cosine down to a twentieth."""

    steps: int
    learning_rate: float = 3e-4
    warmup: int = 50

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))

    def stage(self, step: int, num_ws: int) -> int | None:
        """Return the last layer whose delta is on, for encoders that add deltas to one style; None: all are.

        A tenth of the run has no deltas, then every hundredth turns on one more: e4e's 20,000 and 2,000 of 200,000 steps.
        """
        stage = max(0, 100 * step // self.steps - 9)
        return None if stage >= num_ws - 1 else stage


class EncoderTrainer:
    """Teach an encoder to invert a frozen generator.

    Image losses are taken on a preview of the generator (see ``generators.preview``), which goes on learning from what the
    whole generator draws for the encoder's own codes; without a preview, on the whole generator's image.
    """

    def __init__(
        self,
        encoder: nn.Module,
        generator: Generator,
        perceptual: Distance,
        schedule: Schedule,
        preview: PreviewHead | None = None,
        losses: Losses | None = None,
        ema: float = 0.99,
        seed: int = 0,
        identity: Distance | None = None,  # 1 - cosine of face embeddings of two batches of 256 px images.
        precision: torch.dtype = torch.float32,  # Of the networks' products: bfloat16 where the device has it.
        edits: Float[Tensor, "edits num_ws w_dim"] | None = None,  # What known edits add to a code at full strength.
    ) -> None:
        self.generator, self.perceptual, self.preview, self.identity = generator, perceptual, preview, identity
        self.schedule, self.losses, self.ema, self.seed = schedule, losses or Losses(), ema, seed
        self.precision = precision
        self.edits = None if edits is None else edits.to(generator.w_avg)
        self.device = next(encoder.parameters()).device
        if precision != torch.float32:
            encoder.to(memory_format=torch.channels_last)  # twice as fast in bfloat16 on a CPU
        has_deltas = isinstance(encoder, Encoder) and encoder.deltas
        self.stage: int | None = 0 if has_deltas else None  # Last layer whose delta is on; None: all are, or there are none.
        # A compact encoder's deltas share heads, and are multiplied by 0; e4e's heads wait for their stage.
        self.encoder, self.parallel = encoder, parallel(encoder, has_deltas and isinstance(encoder, PublishedEncoder))
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(encoder.parameters(), betas=(0.9, 0.99), fused=True)
        # Most gradients of an encoder are too small for float16 unless they are scaled up; bfloat16 has float32's range.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        self.preview_optimizer = None
        if preview is not None:
            preview.requires_grad_(False)  # Only while it is fitted: the encoder's steps need no gradient of it.
            # Adam moves each weight as far, so layers that read thousands of numbers move too far at the others' rate.
            wide = [*preview.affine.parameters(), *preview.linear.parameters()]
            rest = [p for p in preview.parameters() if not any(p is parameter for parameter in wide)]
            groups = [{"params": wide, "scale": 0.2}, {"params": rest, "scale": 1.0}]
            self.preview_optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # Every process has to start with the same discriminator.
            self.adversary = LatentAdversary(generator.w_dim, device=self.device) if self.losses.adversarial else None
        self.step_number = 0
        # ReStyle's encoders look at a drawing, too: of the mean face first.
        self.looks = encoder.looks if isinstance(encoder, Encoder) and encoder.in_channels == 6 else 0
        if self.looks:
            with torch.no_grad():
                self._mean_face = resize(generator.synthesis(self._w_avg(1)), 256)
        self._own: tuple[Tensor, AnyBatch] | None = None  # Faces drawn from own codes last; they serve until the next ones.
        self.w_variance = generator.w_variance()

    def draw(self, latent: Latent, resolution: int) -> Image:
        """Draw codes the way the image losses see them."""
        with self._autocast():
            image: Tensor = (
                self.generator.synthesis(latent) if self.preview is None else self.preview(self.generator, latent)
            )
        return resize(image.float(), resolution)

    def fit_preview(self, latent: AnyBatch, image: Image, learning_rate: float = 2e-4, lpips: float = 0.1) -> float:
        """Take one step of the preview towards what the whole generator drew.

        Args:
            latent: codes.
            image: what the whole generator drew for them.
            learning_rate: of the head; small by default, since a few faces now and then must not shake a preview that the
                encoder leans on (once, its error rose fivefold and the encoder followed it astray).
            lpips: weight of the perceptual distance beside the squared error.

        Returns:
            The squared error.
        """
        if self.preview is None or self.preview_optimizer is None:
            raise RuntimeError("this trainer has no preview to fit")
        for group in self.preview_optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.preview.requires_grad_(True)
        with self._autocast():
            drawn = self.preview(self.generator, latent).float()
        target = resize(image, drawn.shape[-1])
        error = F.mse_loss(drawn, target)
        loss = error + (lpips * self.perceptual(drawn, target).mean() if lpips else 0)
        self.preview_optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        average_gradients(self.preview.parameters())
        self.scaler.step(self.preview_optimizer)
        self.scaler.update()
        self.preview.requires_grad_(False)
        return error.item()

    def step(
        self,
        real: Float[Tensor, "real 3 256 256"],
        sampled: Float[Tensor, "sampled 3 256 256"],
        codes: AnyBatch,
        drawn: int | None = None,
        own: int = 0,
        parts: int = 1,
    ) -> dict[str, float]:
        """Take one step.

        Args:
            real: aligned faces in [-1, 1] whose codes nobody knows.
            sampled: faces that the generator drew.
            codes: their codes.
            drawn: how many of the sampled faces get image losses too (None: all); the codes of all are supervised.
            own: how many of the faces, real ones first, are encoded, edited and drawn by the whole generator before. The
                preview learns from them; their codes are supervised (``consistency``), in this step and, half of them at a
                time, in all that follow until others are drawn.
            parts: in how many pieces the faces are worked on, to save memory; gradients add up.

        Returns:
            Every term's value, before weighting; a mean over the faces of all pieces and processes.

        Raises:
            ValueError: there is no face that gets image losses, or none for some of the pieces.
            ToolkitError: the loss or its gradient is not finite; no weight has changed.
        """
        drawn = sampled.shape[0] if drawn is None else min(drawn, sampled.shape[0])
        if real.shape[0] + drawn == 0:
            raise ValueError("a step needs a real face, or a sampled one that is drawn")
        if max(real.shape[0], drawn) < parts:
            raise ValueError(
                f"{real.shape[0]} real and {drawn} drawn faces make no {parts} pieces: each needs one of a kind"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step_number)
        if self.stage is not None:
            stage = self.schedule.stage(self.step_number, self.generator.num_ws)
            # A run that was made longer while it lay still does not turn off again what it has learnt.
            self.stage = None if stage is None else max(stage, self.stage)
        self.encoder.stage = self.average.stage = self.stage  # type: ignore[assignment]
        random = self._random(rank())
        if own:
            self._own = self.draw_own(torch.cat([real, sampled])[:own], random)
        drawn_own, drawn_codes = self._own or (real[:0], select(codes, slice(0)))
        again = slice(None) if own else slice(self.step_number % 2, None, 2)
        supervised = again if self.losses.consistency else slice(0)
        own_faces, own_codes = drawn_own[supervised], select(drawn_codes, supervised)
        self.encoder.train()
        self.optimizer.zero_grad()
        sums: dict[str, float] = {}
        vectors = []
        whole = _faces_of_terms(real.shape[0], sampled.shape[0], drawn, own_faces.shape[0])
        for part in range(parts):
            rows = slice(part, None, parts)
            last = part == parts - 1
            with contextlib.nullcontext() if last or self.parallel is self.encoder else self.parallel.no_sync():  # type: ignore[operator]
                drawn_here = len(range(drawn)[rows])
                terms, latent = self._terms(
                    real[rows], sampled[rows], select(codes, rows), drawn_here,
                    own_faces[rows], select(own_codes, rows), random,
                )  # fmt: skip
                here = _faces_of_terms(len(real[rows]), len(sampled[rows]), drawn_here, len(own_faces[rows]))
                # A mean over the faces of a piece counts as many times as there are faces in it.
                terms = {name: value * (here[name] / max(1, whole[name])) for name, value in terms.items()}
                loss = torch.stack([getattr(self.losses, name) * value for name, value in terms.items()]).sum()
                self.scaler.scale(loss).backward()
            vectors.append(style_vectors(latent).detach())
            for name, value in (terms | {"loss": loss}).items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        self.scaler.unscale_(self.optimizer)
        sums["gradient"] = float(nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0))
        self._check_finite(sums)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.adversary is not None:
            sums |= self._step_adversary(self.adversary, torch.cat(vectors))
        self._update_average()
        self.step_number += 1
        if own and self.preview is not None:
            sums["preview"] = self.fit_preview(drawn_codes, drawn_own)
        return average_terms(sums, self.device)

    def _check_finite(self, terms: dict[str, float]) -> None:
        """Stop a training that has gone astray, before it spoils weights that are kept."""
        # A scaled gradient may overflow: that step is left out, and the scale lowered.
        is_known = math.isfinite(terms["gradient"]) or self.scaler.is_enabled()
        if not math.isfinite(terms["loss"]) or not is_known:
            raise ToolkitError(
                f"step {self.step_number + 1}: the loss is {terms['loss']:.3g}, its gradient {terms['gradient']:.3g} long; "
                f"expected finite numbers: begin again with a lower --lr than {self.schedule.learning_rate:g}"
            )

    def _encode(self, image: Image) -> AnyBatch:
        """Encode faces; ReStyle's encoders are taught one of their looks at a step, after the looks before it.

        As in Alaluf et al. 2021, section 3.2, no gradient flows from one look into another.
        """
        if not self.looks:
            return self.parallel(image)
        side, latent = image.shape[-1], self._w_avg(image.shape[0])
        drawn = resize(self._mean_face, side).expand_as(image)
        with torch.no_grad():
            for _ in range(self.step_number % self.looks):
                latent = latent + change(self.encoder, image, drawn, self.generator.w_avg)
                drawn = self.draw(latent, side)
        return latent + change(self.parallel, image, drawn, self.generator.w_avg)

    @torch.no_grad()
    def invert(self, image: Image) -> Float[Tensor, "batch 3 out_height out_width"]:
        """Return what the whole generator draws for the moving average's codes of faces."""
        if self.looks:
            return deque(restyle(cast("Encoder", self.average), self.generator, image), maxlen=1)[0][1]
        return self.generator.synthesis(self.average(image))

    @torch.no_grad()
    def draw_own(self, image: Image, random: torch.Generator) -> tuple[Float[Tensor, "batch 3 256 256"], AnyBatch]:
        """Encode faces, edit the codes, and let the whole generator draw them.

        What it teaches is the consistency that LEC measures: an edited code must be found again in its image. Three of four
        codes move along random differences of W, half of these in some layers only, as edits do; where edits are known, half
        of all codes take one of them instead, up to its full strength either way. Half of all maps take a part of another's.

        Returns:
            The images, and the codes that drew them.
        """
        latent: AnyBatch = self._encode(image)
        if image.shape[0] == 0:  # Nothing to draw, and some ops refuse empty batches.
            return image, latent
        offset = self._random_moves(image.shape[0], random)
        if not isinstance(latent, Tensor):
            latent = mix_neighbours(latent, random)
        if self.edits is not None:
            offset = self._some_edits(offset, self.edits, random)
        latent = map_layers(latent, lambda k, style_map: style_map + offset[:, k, :, None, None])
        return resize(self.generator.synthesis(latent).clamp(-1, 1), 256), latent

    def _random_moves(self, batch: int, random: torch.Generator) -> Float[Tensor, "{batch} num_ws w_dim"]:
        """Return parts of random differences of W, half of them for some layers only, and nothing for a quarter."""
        num_ws = self.generator.num_ws
        z = torch.randn(2, batch, self.generator.z_dim, generator=random).to(self.device)
        # 0.4 of the difference of two faces is as long as an edit of age by three standard deviations.
        strength = 0.8 * torch.rand(batch, generator=random) * (torch.rand(batch, generator=random) < 0.75)
        first, last = torch.randint(num_ws, (2, batch, 1), generator=random).sort(0).values
        layer = torch.arange(num_ws)
        moved = (first <= layer) & (layer <= last) | (torch.rand(batch, 1, generator=random) < 0.5)
        share = (strength[:, None] * moved).to(self.device)
        away = self.generator.mapping.w(z[0]) - self.generator.mapping.w(z[1])
        return share[:, :, None] * away[:, None]

    def _some_edits(
        self,
        offset: Float[Tensor, "batch num_ws w_dim"],
        edits: Float[Tensor, "edits num_ws w_dim"],
        random: torch.Generator,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Put known edits in the place of half of the moves."""
        moves = random_edits(edits, offset.shape[0], random)
        instead = torch.rand(offset.shape[0], 1, 1, generator=random) < 0.5
        return torch.where(instead.to(self.device), moves, offset)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs to go on as if it had never stopped; all processes call it together."""
        return {
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "preview": None if self.preview is None else self.preview.state_dict(),
            "preview_optimizer": None if self.preview_optimizer is None else self.preview_optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            "own": None if self._own is None else [gather(rows) for rows in (self._own[0], *as_stylemaps(self._own[1]))],
            "scaler": self.scaler.state_dict(),
            "stage": self.stage,
            "step_number": self.step_number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.preview is not None and self.preview_optimizer is not None:
            self.preview.load_state_dict(state["preview"])
            self.preview_optimizer.load_state_dict(state["preview_optimizer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        if state.get("scaler"):  # Runs from before it had none.
            self.scaler.load_state_dict(state["scaler"])
        self.stage = state.get("stage", self.stage)  # Runs from before it follow the schedule alone.
        if state["own"] is not None:
            each = len(state["own"][0]) // world_size()
            faces, *maps = (rows[rank() * each :][:each] for rows in state["own"])
            self._own = faces, tuple(maps)
        self.step_number = state["step_number"]

    def _terms(
        self,
        real: Float[Tensor, "real 3 256 256"],
        sampled: Float[Tensor, "sampled 3 256 256"],
        codes: AnyBatch,
        drawn: int,
        own: Float[Tensor, "own 3 256 256"],
        own_codes: AnyBatch,
        random: torch.Generator,
    ) -> tuple[dict[str, Tensor], AnyBatch]:
        """Return every term, and the codes of real and sampled faces."""
        # Real faces change as a whole (any face is a fair target); drawn ones move a little, and their codes stay.
        real = relight(patch(misalign(random_flip(real, random), random), sampled, random), random)
        known = misalign(torch.cat([sampled, own]), random, shift=0.01, scale=0.015, roll_deg=1.0)
        seen = compress(soften(torch.cat([real, known]), random), random)
        with self._autocast():
            latent = self._encode(seen)
        latent = map_layers(latent, lambda _, style_map: style_map.float())
        counts = (real.shape[0], sampled.shape[0])
        of_real, of_sampled = select(latent, slice(0, counts[0])), select(latent, slice(counts[0], sum(counts)))
        of_own, trusted = select(latent, slice(sum(counts), None)), select(latent, slice(0, sum(counts)))
        resolution = 256 if self.preview is None else 2 * self.preview.resolution
        target = resize(torch.cat([real, known[:drawn]]), resolution)
        image = self.draw(select(latent, slice(0, counts[0] + drawn)), resolution)
        terms = {
            "l2": F.mse_loss(image, target),
            "lpips": self.perceptual(image, target).mean(),
            "code": _mean(code_error(of_sampled, codes)) / self.w_variance,
            "w_norm": _mean(code_error(of_real, self._w_avg(counts[0]))) / self.w_variance,
            "delta": _mean(delta_norm(trusted)) / self.w_variance,
            "roughness": _mean(roughness(trusted)) / self.w_variance,
        }
        if self.identity is not None:
            terms["identity"] = self.identity(resize(image, 256), resize(target, 256)).mean()
        if own.shape[0]:
            terms["consistency"] = code_error(of_own, own_codes).mean() / self.w_variance
        if self.edits is not None:
            of_known = [edit_error(of_sampled, codes, self.edits), edit_error(of_own, own_codes, self.edits)]
            terms["edits"] = _mean(torch.cat(of_known))
        if self.adversary is not None:
            terms["adversarial"] = self.adversary.encoder_loss(trusted)
        return terms, trusted

    def _step_adversary(self, adversary: LatentAdversary, fake: Float[Tensor, "n w_dim"]) -> dict[str, float]:
        """Teach the discriminator; every process teaches its own the same, with the codes of all."""
        random = self._random(world_size())
        count = 16 * self.generator.num_ws
        chosen = torch.randint(fake.shape[0], (count,), generator=random).to(fake.device)
        z = torch.randn(count, self.generator.z_dim, generator=random).to(self.device)
        with torch.no_grad():
            codes = self.generator.mapping.w(z)
        return adversary.step(codes, gather(fake[chosen])[:: world_size()], random)

    def _random(self, stream: int) -> torch.Generator:
        """Return this step's randomness: it follows from the step, so a resumed run needs no state of it."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step_number) * 4099 + stream)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _w_avg(self, batch: int) -> Float[Tensor, "batch num_ws w_dim"]:
        return self.generator.w_avg.expand(batch, self.generator.num_ws, -1)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average would be full of the first weights: let it follow faster at first.
        decay = min(self.ema, (1 + self.step_number) / (10 + self.step_number))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.encoder.parameters()), 1 - decay)
        for kept, current in zip(self.average.buffers(), self.encoder.buffers(), strict=True):
            kept.copy_(current)


def _faces_of_terms(real: int, sampled: int, drawn: int, own: int) -> dict[str, int]:
    """Return of how many faces each term is a mean."""
    images = dict.fromkeys(("l2", "lpips", "identity"), real + drawn)
    trusted = dict.fromkeys(("delta", "roughness", "adversarial"), real + sampled)
    return images | trusted | {"code": sampled, "w_norm": real, "consistency": own, "edits": sampled + own}


def random_edits(
    edits: Float[Tensor, "edits num_ws w_dim"], count: int, random: torch.Generator
) -> Float[Tensor, "{count} num_ws w_dim"]:
    """Choose an edit for each of some codes, and up to its full strength either way how much of it is added."""
    chosen = edits[torch.randint(len(edits), (count,), generator=random).to(edits.device)]
    strength = 2 * torch.rand(count, 1, 1, generator=random) - 1
    return strength.to(edits) * chosen


def mix_neighbours(maps: StyleMaps, random: torch.Generator) -> StyleMaps:
    """Give half of the faces, on one side of a random line, the styles of the next face in the batch."""
    batch = maps[0].shape[0]
    mask = (one_side(batch, 16, random) * (torch.rand(batch, 1, 1, 1, generator=random) < 0.5)).to(maps[0])
    return tuple(torch.lerp(m, m.roll(1, 0), resize_style(mask, *m.shape[2:])) if m.shape[2] > 1 else m for m in maps)


def _mean(values: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return the mean, or 0 for no values: no faces have no error."""
    return values.mean() if values.shape[0] else values.sum()
