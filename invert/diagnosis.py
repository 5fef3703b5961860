"""What should a bug report say? What is installed, what runs where, and what is at hand; nothing here ever fails."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from generators.ops import in_use
from invert.performance import compare_compiled, keep_freed_memory

PACKAGES = (
    *("stylegan-invert", "torch", "triton", "torchvision", "numpy", "opencv-python-headless", "facenet-pytorch"),
    *("dlib-bin", "openvino"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    text: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


def diagnose(device: torch.device, benchmark: bool = False) -> Iterator[Finding]:
    """Look at this machine, line by line; what cannot be had says why.

    Args:
        device: where the generators would run.
        benchmark: draw with the default generator, if it is cached, to measure what ``torch.compile`` costs and gains.
    """
    for topic, look in TOPICS.items():
        yield Finding(topic, _try(look, device))
    yield Finding("torch.compile", _try(_measure if benchmark else _how_to_measure, device))


def _try(look: Callable[[torch.device], str], device: torch.device) -> str:
    try:
        return look(device)
    except Exception as error:
        # Whatever is broken is what the report is for.
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return f"not known: {type(error).__name__}: {reason}"


def _versions(device: torch.device) -> str:
    found = {name: next(iter(metadata.Distribution.discover(name=name)), None) for name in PACKAGES}
    told = (f"{name} {package.version if package else 'not installed'}" for name, package in found.items())
    return ", ".join([f"python {platform.python_version()}", *told])


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    capability = f"compute capability {properties.major}.{properties.minor}"
    return f"{device}, {properties.name}, {properties.total_memory / 2**30:.0f} GB, {capability}, CUDA {torch.version.cuda}"


def _processor(device: torch.device) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads used, {torch.backends.cpu.get_cpu_capability()}"


def _memory(device: torch.device) -> str:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    return f"{page * pages / 2**30:.1f} GB, of which {free / 2**30:.1f} GB can be had"


def _allocator(device: torch.device) -> str:
    return "kept for reuse by the commands" if keep_freed_memory() else "given back (this C library has no such setting)"


def _cache(device: torch.device) -> str:
    from pretrained.cache import cache_folder

    return str(cache_folder())


def _generators(device: torch.device) -> str:
    from pretrained.catalog import CATALOG

    cached = [name for name, entry in CATALOG.items() if entry.is_cached()]
    return f"{', '.join(cached) or 'none'} cached, {len(CATALOG) - len(cached)} more in `stylegan-invert models list`"


def _encoders(device: torch.device) -> str:
    from pretrained.shipped import encoder_names

    return ", ".join(encoder_names()) or "none"


def _lpips(device: torch.device) -> str:
    from pretrained.lpips import lpips_backbone_file

    return str(lpips_backbone_file() or "not here yet: fetched on first use")


def _landmarks(device: torch.device) -> str:
    from invert.landmarks import find_predictor

    return str(find_predictor() or "none (pip install face_recognition_models); five points are used")


TOPICS: dict[str, Callable[[torch.device], str]] = {
    "versions": _versions,
    "device": _device,
    "processor": _processor,
    "memory": _memory,
    "freed memory": _allocator,
    "ops": in_use,
    "cache": _cache,
    "generators": _generators,
    "encoders": _encoders,
    "LPIPS backbone": _lpips,
    "68-point landmarks": _landmarks,
}


def _how_to_measure(device: torch.device) -> str:
    compiler = next((name for name in ("c++", "g++", "clang++", "cl") if shutil.which(name)), None)
    if device.type == "cpu" and compiler is None:
        return "not possible: it needs a C++ compiler on a CPU, and there is none"
    return "possible; `stylegan-invert doctor --benchmark` measures its cost and gain in about a minute"


def _measure(device: torch.device) -> str:
    from pretrained.catalog import CATALOG, DEFAULT_GENERATOR
    from pretrained.loading import load_generator

    if not CATALOG[DEFAULT_GENERATOR].is_cached():
        return f"not measured: `stylegan-invert models fetch {DEFAULT_GENERATOR}` first"
    return str(compare_compiled(load_generator().to(device)))
