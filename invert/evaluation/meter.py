"""What does an inversion cost? Its seconds and the most memory that was held meanwhile, on a CPU or a GPU."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # From Linux's proc(5).


@dataclass
class Cost:
    """What was measured inside ``meter``; complete when it is left."""

    seconds: float = 0.0
    peak_bytes: int = 0
    """On a GPU of the tensors there, on a CPU of the whole process, networks included; 0 where that cannot be told."""


@contextmanager
def meter(device: torch.device) -> Iterator[Cost]:
    """Measure what happens inside."""
    cost = Cost()
    _reset_peak(device)
    began = time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # Kernels are only queued until then.
    cost.seconds = time.perf_counter() - began
    cost.peak_bytes = _peak(device)


def return_freed_memory() -> None:
    """Give back what an earlier method has freed, so that it does not count as this one's (see ``keep_freed_memory``)."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _can_reset():
        _CLEAR.write_text(_RESET_PEAK)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _can_reset():
        return 0
    line = next((line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _can_reset() -> bool:
    return sys.platform == "linux" and _CLEAR.exists()
