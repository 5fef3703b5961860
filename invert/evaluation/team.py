"""Who works on this? One process, or those that ``torchrun`` started on one machine or several."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from generators.errors import ToolkitError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a worker waits for the others; one that dies is noticed at once."""
PR_SET_PDEATHSIG = 1  # From Linux's prctl.h.


class WorkerLost(ToolkitError):
    """Another worker of the run is gone."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them; worker 0 leads."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number on its machine; picks its GPU."""

    @classmethod
    def from_environment(cls) -> Team:
        """Join the other processes where ``torchrun`` says so in the environment; else work alone."""
        rank, size, local_rank = (int(os.environ.get(name, default)) for name, default in _VARIABLES.items())
        if size > 1:
            import torch.distributed as dist

            _die_with_parent()
            dist.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)
        return cls(rank, size, local_rank)

    @property
    def leads(self) -> bool:
        """Whether this is the worker that plans and writes the report."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """What to call this worker in progress and rows."""
        return f"worker {self.rank + 1} of {self.size}"

    def once(self, function: Callable[[], T]) -> T:
        """Let the leader call a function, and give its result, or its error, to all.

        Raises:
            ToolkitError: the leader's.
            WorkerLost: the leader is gone.
        """
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome = [function(), None]
            except ToolkitError as error:
                outcome = [None, str(error)]
        self._talk(lambda dist: dist.broadcast_object_list(outcome))
        if outcome[1] is not None:
            raise ToolkitError(outcome[1])
        return outcome[0]

    def gather(self, value: T) -> list[T]:
        """Give every worker what each of them has, in the order of their ranks.

        Raises:
            WorkerLost: one of them is gone.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._talk(lambda dist: dist.all_gather_object(values, value))
        return values

    def wait(self) -> None:
        """Wait until all have come this far.

        Raises:
            WorkerLost: one of them is gone.
        """
        if self.size > 1:
            self._talk(lambda dist: dist.barrier())

    def _talk(self, exchange: Callable[[Any], Any]) -> None:
        import torch.distributed as dist

        try:
            exchange(dist)
        except RuntimeError as error:
            raise WorkerLost(
                "another worker of this run is gone; what all of them measured is kept, and the same command goes on"
            ) from error


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _die_with_parent() -> None:
    """End this worker when ``torchrun`` is killed: an orphan would hold its files against the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
