"""Are these codes like those of the mapping network? e4e's game between an encoder and a discriminator of latent codes.

Codes that look like W can be edited as codes of W are; the discriminator tells how far an encoder has left it. It sees
single style vectors, so it serves every space: a w_plus gives one a layer, a stylemap one a pixel of each layer's map.

Reference: Tov et al. 2021, arXiv:2102.02766, section 4.2; the pool of former codes is that of Shrivastava et al. 2017,
arXiv:1612.07828, section 2.3.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.latent import Latent, as_stylemaps

Codes: TypeAlias = Float[Tensor, "n w_dim"]
"""Style vectors of any layers, pixels and faces."""


class LatentCodesDiscriminator(nn.Module):
    """Tell codes of the mapping network from an encoder's; tensor names are those of e4e's files (``mlp.N``)."""

    def __init__(
        self,
        w_dim: int = 512,  # Width of a style.
        num_layers: int = 4,  # Linear layers.
    ) -> None:
        super().__init__()
        hidden = [layer for _ in range(num_layers - 1) for layer in (nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2))]
        self.mlp = nn.Sequential(*hidden, nn.Linear(w_dim, 1))

    def forward(self, codes: Codes) -> Float[Tensor, " n"]:
        """Return one logit a vector: positive where it looks like the mapping network's."""
        logits: Tensor = self.mlp(codes)
        return logits[:, 0]


class LatentCodesPool:
    """Former codes, so that the discriminator also remembers what the encoder made some steps ago.

    A query keeps what comes until the pool is full; from then on each vector is, with even odds, handed through or exchanged
    for a former one, whose place it takes.
    """

    def __init__(
        self,
        size: int = 50,  # Vectors; 0 hands everything through.
    ) -> None:
        self.size = size
        self.codes: Tensor | None = None

    def query(self, codes: Codes, random: torch.Generator) -> Codes:
        """Return as many vectors as are given, some of them former ones; without gradients.

        Args:
            codes: new ones.
            random: source of randomness, on the CPU.
        """
        codes = codes.detach()
        if self.size == 0:
            return codes
        pool = codes[:0].clone() if self.codes is None else self.codes.clone()
        free = self.size - pool.shape[0]
        kept, later = codes[:free], codes[free:].clone()
        self.codes = pool = torch.cat([pool, kept])
        exchanged = (torch.rand(later.shape[0], generator=random) < 0.5).nonzero().flatten().tolist()
        places = torch.randint(self.size, (len(exchanged),), generator=random).tolist()
        for row, place in zip(exchanged, places, strict=True):
            former = pool[place].clone()
            pool[place], later[row] = later[row], former
        return torch.cat([kept, later])


class LatentAdversary:
    """The discriminator with its optimiser and pools: all of the game but the encoder."""

    def __init__(
        self,
        w_dim: int = 512,  # Width of a style.
        learning_rate: float = 2e-5,  # As e4e has it.
        r1_weight: float = 10.0,  # gamma of R1 (Mescheder et al. 2018).
        r1_every: int = 16,  # R1 is taken at every so manieth step, and counts so many times as much.
        pool_size: int = 50,  # Vectors that each of the two pools holds.
        device: str | torch.device = "cpu",
    ) -> None:
        self.discriminator = LatentCodesDiscriminator(w_dim).to(device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=learning_rate)
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.real_pool, self.fake_pool = LatentCodesPool(pool_size), LatentCodesPool(pool_size)
        self.step_number = 0

    def step(self, real: Codes, fake: Float[Tensor, "m w_dim"], random: torch.Generator) -> dict[str, float]:
        """Teach the discriminator once.

        Args:
            real: codes of the mapping network.
            fake: an encoder's codes, as ``style_vectors`` lists them; they get no gradients.
            random: source of randomness, on the CPU.

        Returns:
            ``discriminator`` (its loss), ``real`` and ``fake`` (mean logits), and ``r1`` at the steps that take it.
        """
        real, fake = self.real_pool.query(real, random), self.fake_pool.query(fake, random)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = discriminator_loss(real_logits, fake_logits)
        terms = {"discriminator": loss.item(), "real": real_logits.mean().item(), "fake": fake_logits.mean().item()}
        if self.step_number % self.r1_every == 0:
            penalty = r1_penalty(self.discriminator, real)
            terms["r1"] = penalty.item()
            loss = loss + penalty * (self.r1_weight / 2 * self.r1_every)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step_number += 1
        return terms

    def encoder_loss(self, latent: Latent) -> Float[Tensor, ""]:
        """Return what an encoder minimises so that its codes pass: gradients reach the codes, not the discriminator."""
        self.discriminator.requires_grad_(False)
        loss = encoder_loss(self.discriminator, latent)
        self.discriminator.requires_grad_(True)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs to go on exactly as if it had never stopped."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "real_pool": self.real_pool.codes,
            "fake_pool": self.fake_pool.codes,
            "step_number": self.step_number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.real_pool.codes, self.fake_pool.codes = state["real_pool"], state["fake_pool"]
        self.step_number = state["step_number"]


def style_vectors(latent: Latent) -> Codes:
    """List a latent's style vectors, layer by layer: of every layer, or of every pixel of every map."""
    return torch.cat([_pixels(style_map) for style_map in as_stylemaps(latent)])


def discriminator_loss(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Return the logistic loss of the logits of true and encoded codes (Goodfellow et al. 2014); 2 log 2 knows nothing."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def encoder_loss(discriminator: LatentCodesDiscriminator, latent: Latent) -> Float[Tensor, ""]:
    """Return the non-saturating loss of encoded codes: a mean over layers, whatever the sizes of their maps."""
    return torch.stack([F.softplus(-discriminator(_pixels(style_map))).mean() for style_map in as_stylemaps(latent)]).mean()


def r1_penalty(discriminator: LatentCodesDiscriminator, real: Codes) -> Float[Tensor, ""]:
    """Return the mean squared norm of the logits' gradient at true codes (Mescheder et al. 2018, arXiv:1801.04406)."""
    codes = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(codes).sum(), codes, create_graph=True)
    return gradient.square().sum(1).mean()


def _pixels(style_map: Float[Tensor, "batch w_dim h w"]) -> Codes:
    return style_map.permute(0, 2, 3, 1).flatten(0, 2)
