"""Who works on this? One process, or those that ``torchrun`` started on one machine or several."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from generators.errors import ToolkitError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a worker waits for the others; one that dies is noticed at once."""
PR_SET_PDEATHSIG = 1  # From Linux's prctl.h.
KEPT = "what all of them measured is kept, and the same command goes on"
STORE_PORT = "STYLEGAN_INVERT_STORE_PORT"
"""Environment variable: where ``start_workers`` lets its workers meet; without it they meet as ``torchrun`` says."""
_LOST = f"another worker of this run is gone; {KEPT}"
_HOST, _JOINED, _SAID, _LEFT, _DEALT = "127.0.0.1", "joined", "said: ", "left by ", "dealt: "
_LOOK_SEC = 0.05


class WorkerLost(ToolkitError):
    """Another worker of the run is gone."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them; worker 0 leads."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number on its machine; picks its GPU."""
    store: Store | None = field(default=None, repr=False)
    """That all workers of the run share; None for one alone."""

    @classmethod
    def from_environment(cls) -> Team:
        """Join the others where ``start_workers`` or ``torchrun`` says so in the environment; else work alone.

        Raises:
            ToolkitError: what the environment says makes no sense, or names a meeting place that there is not.
        """
        rank, size, local_rank = numbers_from_environment()
        if size > 1:
            import torch.distributed as dist

            _die_with_parent()
            if STORE_PORT in os.environ:
                store: Store = dist.TCPStore(_HOST, int(os.environ[STORE_PORT]))  # type: ignore[attr-defined]
            else:
                with meeting_in_words():
                    store = next(iter(dist.rendezvous("env://", rank, size)))[0]  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
            store.add(_JOINED, 1)
            return cls(rank, size, local_rank, store)
        return cls(rank, size, local_rank)

    @property
    def leads(self) -> bool:
        """Whether this is the worker that plans and writes the report."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """What to call this worker in progress and rows."""
        return f"worker {self.rank + 1} of {self.size}"

    def is_first_to_say(self, message: str) -> bool:
        """Whether no other worker of the run has said this: what happens to all of them is told once."""
        try:
            return self.store is None or self.store.add(_SAID + message, 1) == 1
        except RuntimeError:  # Whoever kept the store is gone.
            return True

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

    def deal(self, count: int, what: str) -> Iterator[int]:
        """Give this worker the next of ``count`` pieces of work whenever it asks: slow workers get fewer, dead ones no more.

        Where whoever kept the store is gone, this worker goes on with a share of its own of what it knows not to be dealt.

        Args:
            count: how many pieces there are, the same for all workers.
            what: their name, of which each run deals once.
        """
        if self.store is None:
            yield from range(count)
            return
        number = -1
        try:
            while (number := self.store.add(_DEALT + what, 1) - 1) < count:
                yield number
        except RuntimeError:
            yield from (left for left in range(number + 1, count) if left % self.size == self.rank)

    def leave(self, message: str) -> None:
        """Leave a message that outlives this worker; the last one counts."""
        if self.store is not None:
            with suppress(RuntimeError):  # Whoever kept the store is gone.
                self.store.set(f"{_LEFT}{self.rank}", message)

    def left(self) -> dict[int, str]:
        """Return what workers have left so far, by their ranks; this waits for nobody."""
        found: dict[int, str] = {}
        if self.store is not None:
            with suppress(RuntimeError):
                for rank in range(self.size):
                    if self.store.check([f"{_LEFT}{rank}"]):
                        found[rank] = self.store.get(f"{_LEFT}{rank}").decode()
        return found

    def _talk(self, exchange: Callable[[Any], Any]) -> None:
        import torch.distributed as dist

        try:
            exchange(dist)
        except RuntimeError as error:
            raise WorkerLost(_LOST) from error


def numbers_from_environment() -> tuple[int, int, int]:
    """Return RANK, WORLD_SIZE and LOCAL_RANK; 0, 1 and 0 where they are not set.

    Raises:
        ToolkitError: they are no numbers, or do not belong together.
    """
    given = {name: os.environ.get(name) or default for name, default in _VARIABLES.items()}
    try:
        rank, size, local_rank = (int(value) for value in given.values())
        if 0 <= rank < size and local_rank >= 0:
            return rank, size, local_rank
    except ValueError:
        pass
    values = ", ".join(f"{name}={value}" for name, value in given.items())
    raise ToolkitError(f"environment variables {values}: expected 0 <= RANK < WORLD_SIZE, 0 <= LOCAL_RANK: {_ADVICE}")


@contextmanager
def meeting_in_words() -> Iterator[None]:
    """Turn what torch raises where the processes of a run cannot meet into a ``ToolkitError``."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ToolkitError(f"the workers cannot meet ({reason}): {_ADVICE}") from error


def start_workers(command: Sequence[str], workers: int, notify: Callable[[str], None]) -> int:
    """Run a command as several processes of this machine, of which one that is killed leaves the others at work.

    Args:
        command: whose processes join by ``Team.from_environment``.
        workers: how many processes.
        notify: told at once of a worker that was killed.

    Returns:
        The leader's exit code; 1 if it was killed.
    """
    import torch.distributed as dist

    # Kept here, not by the leader, so that it outlives any of them.
    store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    shared = {"OMP_NUM_THREADS": "1"} | os.environ | {"WORLD_SIZE": str(workers), STORE_PORT: str(store.port)}
    numbers = [str(rank) for rank in range(workers)]
    processes = [subprocess.Popen(command, env=shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in numbers]
    try:
        _watch(dict(enumerate(processes)), store, notify)
    except KeyboardInterrupt:  # The workers get it, too, and say so.
        return max(process.wait() for process in processes)
    codes = [process.wait() for process in processes]
    return codes[0] if codes[0] >= 0 else 1


def _watch(running: dict[int, subprocess.Popen[bytes]], store: Store, notify: Callable[[str], None]) -> None:
    """Wait until all have ended; those that would wait for one that ended too early are ended, too."""
    workers = len(running)
    while running:
        time.sleep(_LOOK_SEC)
        ended = {rank: code for rank, process in running.items() if (code := process.poll()) is not None}
        for rank, code in ended.items():
            del running[rank]
            if code < 0:
                store.add(_SAID + _LOST, 1)
                notify(f"worker {rank + 1} of {workers} was ended by {signal.Signals(-code).name}; {KEPT}")
        if any(ended.values()) and store.add(_JOINED, 0) < workers:
            for process in running.values():
                process.terminate()
            return


_ADVICE = "torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; unset them all to work alone"
_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _die_with_parent() -> None:
    """End this worker when ``torchrun`` is killed: an orphan would hold its files against the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
