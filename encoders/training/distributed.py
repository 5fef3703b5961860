"""How do several processes train one network? The little that is needed beside DistributedDataParallel.

Without ``torchrun`` there is one process, and every function here does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_on() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _is_on() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if _is_on():
        dist.barrier()


def parallel(module: nn.Module, has_unused: bool = False) -> nn.Module:
    """Wrap a network so that its gradients are averaged over the processes while they are computed.

    Args:
        module: the network.
        has_unused: some of its parameters are left out of some steps; in every process of the same ones.
    """
    if not _is_on():
        return module
    device = next(module.parameters()).device
    return nn.parallel.DistributedDataParallel(
        module, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=has_unused
    )


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the processes: for small networks that are not wrapped by ``parallel``."""
    if not _is_on():
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def gather(rows: Float[Tensor, "n ..."]) -> Float[Tensor, "all ..."]:
    """Return the rows of all processes, in their order; every process gives equally many."""
    if not _is_on():
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def broadcast(module: nn.Module) -> None:
    """Give a network of every process the weights of the first one's."""
    if not _is_on():
        return
    for value in module.state_dict().values():
        dist.broadcast(value, 0)


def average_terms(terms: dict[str, float], device: torch.device) -> dict[str, float]:
    """Return numbers as a mean over the processes; all of them name the same ones."""
    if not _is_on():
        return terms
    values = torch.tensor(list(terms.values()), dtype=torch.float32, device=device)
    dist.all_reduce(values)
    return dict(zip(terms, (values / world_size()).tolist(), strict=True))


def _is_on() -> bool:
    return dist.is_available() and dist.is_initialized()
