"""Which directions does a generator have, without anybody naming an attribute? GANSpace asks its codes, SeFa its weights.

References: Härkönen et al. 2020, "GANSpace", arXiv:2004.02546: principal components of W. Shen and Zhou 2021, "SeFa",
arXiv:2007.06600: what the first step of every layer, its style modulation, amplifies most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from editing.directions import Direction
from editing.errors import EditError, TrainingDataError
from generators.base import Generator, Identity
from generators.errors import LatentMismatch
from generators.latent import Latent, StyleMap, map_layers


class ComponentEdit(NamedTuple):
    """An edit as GANSpace and e4e write it: a component, the layers [start, end) and where to go along it, in sigmas."""

    component: int
    start: int
    end: int
    strength: float


@dataclass(frozen=True, eq=False)
class Components:
    """Orthogonal directions of W, the most important first.

    Attributes:
        vectors: unit vectors, orthogonal to each other.
        deviations: of codes along each, in latent units: one sigma.
        mean: where sigmas are counted from.
        generator: the weights in whose W they lie.
        layers: those that they were found for; None for all.
        learnt: how, in words.

    Raises:
        TrainingDataError: numbers that are NaN, vectors of no length, negative deviations, or shapes that contradict.
    """

    vectors: Float[Tensor, "k w_dim"]
    deviations: Float[Tensor, " k2"]
    mean: Float[Tensor, " w_dim2"]
    generator: Identity
    layers: tuple[int, ...] | None = None
    learnt: str = "unknown"

    def __post_init__(self) -> None:
        if len(self.deviations) != len(self.vectors) or len(self.mean) != self.vectors.shape[1]:
            raise TrainingDataError(
                f"components of shape {tuple(self.vectors.shape)} do not go with {len(self.deviations)} deviations"
                f" and a mean of {len(self.mean)}"
            )
        if not all(bool(torch.isfinite(part).all()) for part in (self.vectors, self.deviations, self.mean)):
            raise TrainingDataError("some components, deviations or means are NaN or infinite")
        if bool((self.deviations < 0).any()) or not bool((self.vectors.norm(dim=1) > 0).all()):
            raise TrainingDataError("expected components that point somewhere, and deviations that are not negative")

    def __len__(self) -> int:
        return len(self.vectors)

    def direction(self, index: int, name: str | None = None, layers: tuple[int, ...] | None = None) -> Direction:
        """Make one component a direction whose strength 1 is one sigma of the codes.

        Args:
            index: of the component, from 0.
            name: of the direction; by default ``component`` and the number.
            layers: that it moves; None for those that the components were found for.

        Raises:
            EditError: there is no such component.
        """
        self._check(index)
        return Direction.of(
            name or f"component{index}",
            self.vectors[index],
            self.generator,
            layers=self.layers if layers is None else layers,
            unit=float(self.deviations[index]) or 1.0,
            sign="not known: look at its preview",
            learnt=f"{self.learnt}, component {index}",
        )

    def coordinates(self, w: Float[Tensor, "n w_dim"]) -> Float[Tensor, "n k"]:
        """Tell where codes of W lie along every component, in sigmas from the mean."""
        return (w - self.mean.to(w)) @ self.vectors.T.to(w) / self.deviations.to(w)

    def move_to(self, latent: Latent, edits: Sequence[ComponentEdit | tuple[int, int, int, float]]) -> Latent:
        """Edit as GANSpace and e4e do: bring each component of some layers *to* a place, in sigmas from the mean.

        Unlike a ``Direction``, whose strength is added to where a code stands, this measures where its first layer stands
        and adds the rest of the way: strength 0 therefore moves it to the mean.

        Args:
            latent: to edit; of a stylemap, the mean of the first layer's map is measured.
            edits: (component, first layer, one past the last layer, sigmas), all measured on the latent that is given.

        Raises:
            EditError: there is no such component, the range of layers is empty, or the strength is no finite number.
            LatentMismatch: the latent is of another width, or has fewer layers.

        Reference: Tov et al. 2021, arXiv:2102.02766, released code (``apply_ganspace``).
        """
        first = latent[:, 0] if isinstance(latent, Tensor) else latent[0].mean((2, 3))
        num_ws = latent.shape[1] if isinstance(latent, Tensor) else len(latent)
        if first.shape[1] != self.vectors.shape[1]:
            raise LatentMismatch(
                f"components of {self.generator} are {self.vectors.shape[1]} wide, the latent {first.shape[1]}"
            )
        places = self.coordinates(first)
        offsets: dict[int, Tensor] = {}
        for edit in (ComponentEdit(*edit) for edit in edits):
            self._check(edit.component)
            _check_range(edit, num_ws)
            way = (edit.strength - places[:, edit.component]) * self.deviations[edit.component].to(first)
            for layer in range(edit.start, edit.end):
                moved = way[:, None] * self.vectors[edit.component].to(first)
                offsets[layer] = offsets[layer] + moved if layer in offsets else moved

        def move(layer: int, style_map: StyleMap) -> StyleMap:
            return style_map + offsets[layer][:, :, None, None] if layer in offsets else style_map

        return map_layers(latent, move)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise EditError(f"component {index}: there are {len(self)}, numbered 0 to {len(self) - 1}")


def _check_range(edit: ComponentEdit, num_ws: int) -> None:
    if not math.isfinite(edit.strength):
        raise EditError(f"component {edit.component}: the strength is {edit.strength}, expected a finite number of sigmas")
    if not 0 <= edit.start < edit.end <= num_ws:
        raise EditError(
            f"component {edit.component}: layers [{edit.start}, {edit.end}): expected a first below the end, and the end"
            f" at most {num_ws}, the number of layers"
        )


def ganspace(
    codes: Float[Tensor, "n w_dim"], generator: Identity, count: int = 20, layers: tuple[int, ...] | None = None
) -> Components:
    """Find the directions in which codes of W vary most: their principal components.

    Args:
        codes: of W, without truncation; GANSpace takes a million, some ten thousand give the first dozens.
        generator: whose codes they are.
        count: how many components, at most the width of W.
        layers: that the directions are to move; the components are those of all of W in any case.

    Raises:
        TrainingDataError: fewer codes than components, or codes that are NaN or do not differ.

    Reference: Härkönen et al. 2020, arXiv:2004.02546, section 2.2.
    """
    n, w_dim = codes.shape
    if not 0 < count <= min(n - 1, w_dim):
        raise TrainingDataError(f"{count} components of {n} codes of {w_dim} numbers: expected 1 to {min(n - 1, w_dim)}")
    if not bool(torch.isfinite(codes).all()):
        raise TrainingDataError("some codes are NaN or infinite")
    mean = codes.double().mean(0)
    spread = codes.double() - mean
    values, vectors = torch.linalg.eigh(spread.T @ spread / (n - 1))
    if not values[-1] > 1e-12:
        raise TrainingDataError(f"all {n} codes are the same: there is nothing that varies")
    chosen = vectors.flip(1)[:, :count].T
    learnt = f"GANSpace: principal components of {n} codes of W"
    return Components(
        _with_sign(chosen), values.flip(0)[:count].clamp(min=0).sqrt().float(), mean.float(), generator, layers, learnt
    )


def sefa(
    weights: Sequence[Float[Tensor, "_ w_dim"]],
    codes: Float[Tensor, "n w_dim"],
    generator: Identity,
    count: int = 20,
    layers: tuple[int, ...] | None = None,
) -> Components:
    """Find the directions that some layers' style modulations amplify most: eigenvectors of their weights.

    Rows are brought to unit length first, as in the released code; else a few loud channels decide alone.

    Args:
        weights: of every modulation that is asked, see ``style_weights``.
        codes: of W; give the mean and the sigma along each direction, the directions themselves need none.
        generator: whose weights they are.
        count: how many directions, at most the width of W.
        layers: that these modulations belong to, and that the directions move; None for all.

    Raises:
        TrainingDataError: no weights, more directions than the width of W, or weights that are NaN.

    Reference: Shen and Zhou 2021, arXiv:2007.06600, eq. 8.
    """
    rows = torch.cat([weight.double().cpu() for weight in weights]) if weights else torch.zeros(0, codes.shape[1])
    if not len(rows) or not 0 < count <= rows.shape[1]:
        raise TrainingDataError(
            f"{count} directions of {len(rows)} rows of weights: expected rows, and 1 to {codes.shape[1]} directions"
        )
    if not bool(torch.isfinite(rows).all()):
        raise TrainingDataError("some weights are NaN or infinite")
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    chosen = _with_sign(vectors.flip(1)[:, :count].T)
    learnt = f"SeFa: eigenvectors of {len(weights)} style modulations"
    return Components(chosen, (codes.cpu() @ chosen.T).std(0), codes.cpu().mean(0), generator, layers, learnt)


def _with_sign(vectors: Float[Tensor, "k w_dim"]) -> Float[Tensor, "k w_dim"]:
    """Let the largest entry of each be positive: eigenvectors have no sign, and results should not depend on the machine."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).float()


@torch.no_grad()
def style_weights(generator: Generator) -> list[list[Float[Tensor, "_ w_dim"]]]:
    """Find the weights of the style modulations that each layer feeds.

    They are found by looking: one picture is drawn with a number of its own as the style of each layer, and every module
    that is handed such a style and has a matrix of weights for it is one. So it works for any architecture.

    Returns:
        For each layer its matrices (channels, w_dim), in the order of use.
    """
    found: list[list[Tensor]] = [[] for _ in range(generator.num_ws)]

    def note(module: nn.Module, inputs: tuple[object, ...]) -> None:
        style, weight = inputs[0] if inputs else None, getattr(module, "weight", None)
        if not isinstance(style, Tensor) or not isinstance(weight, Tensor) or style.ndim not in (2, 4):
            return
        layer = int(style.flatten()[0].round()) if style.numel() == generator.w_dim else -1
        is_style = 0 <= layer < generator.num_ws and bool((style == layer).all())
        if is_style and weight.ndim == 2 and weight.shape[1] == generator.w_dim:
            found[layer].append(weight.detach().float().cpu())

    synthesis = generator.synthesis
    modules = synthesis.modules() if isinstance(synthesis, nn.Module) else iter(())
    # Leaves only: a whole layer may have weights, too, that are of something else.
    leaves = [module for module in modules if next(module.children(), None) is None]
    handles = [module.register_forward_pre_hook(note) for module in leaves]
    try:
        numbers = torch.arange(generator.num_ws, dtype=torch.float32, device=generator.w_avg.device)
        generator.synthesis(numbers[None, :, None].repeat(1, 1, generator.w_dim))
    finally:
        for handle in handles:
            handle.remove()
    return found
