"""Measure the main job on this machine: ``python tests/benchmarks/job.py``. Prints a table; nothing is asserted.

Whole commands are timed from outside, with their peak memory; single steps are timed inside one process. Needs the default
generator (fetched if it is not cached).
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5


def main() -> None:
    rows = [*steps(), *commands()]
    sys.stdout.write("| what | median | spread |\n| --- | --- | --- |\n")
    for name, value, spread in rows:
        sys.stdout.write(f"| {name} | {value} | {spread} |\n")


def steps() -> list[tuple[str, str, str]]:
    """Time the pieces in a process of their own, so that its memory settings stay there."""
    output = subprocess.run([sys.executable, __file__, "--steps"], capture_output=True, text=True, check=True).stdout
    return [(name, f"{median:.3f} s", f"{low:.3f} to {high:.3f} s") for name, low, median, high in json.loads(output)]


def time_steps() -> None:
    import torch

    from invert.inversion import resize
    from invert.perceptual import load_perceptual
    from invert.performance import keep_freed_memory
    from invert.projector import Projector
    from pretrained.loading import load_encoder, load_generator

    rows = []

    def measure(name, call):
        call()
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        times.sort()
        rows.append((name, times[0], times[REPEATS // 2], times[-1]))

    generator, encoder = load_generator(), load_encoder("stylemap")
    w_plus = generator.w_avg.repeat(1, generator.num_ws, 1)
    with torch.inference_mode():
        measure("synthesis, 1024 px, memory returned to the system", lambda: generator.synthesis(w_plus))
    keep_freed_memory()
    with torch.inference_mode():
        measure("synthesis, 1024 px, freed memory kept", lambda: generator.synthesis(w_plus))
        image = resize(generator.synthesis(w_plus), 256).clamp(-1, 1)
        measure("encoder, one face", lambda: encoder(image))
        stylemap = encoder(image)
        measure("synthesis from a stylemap", lambda: generator.synthesis(stylemap))
    perceptual = load_perceptual()
    began: list[float] = []
    projector = Projector(generator, perceptual, steps=REPEATS + 2, on_step=lambda *_: began.append(time.perf_counter()))
    projector(image)
    times = sorted(b - a for a, b in itertools.pairwise(began[1:]))
    rows.append((f"projector step with {perceptual.name}", times[0], times[len(times) // 2], times[-1]))
    sys.stdout.write(json.dumps(rows))


def commands() -> list[tuple[str, str, str]]:
    rows = []
    for preset, *edits in (["fast"], ["better", "--edit", "age=+2", "--edit", "smile=-1"], ["best"]):
        options = ["--preset", preset, *edits]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "invert.cli.main", "--demo", *options, "-o", folder]
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            report = json.loads((Path(folder) / "astronaut/report.json").read_text())
        metrics = report["metrics"]
        figures = (
            f"{metrics['perceptual']['backbone']} {metrics['perceptual']['value']:.4f}, MSE {metrics['mse']['value']:.4f}"
        )
        rows.append(
            (f"stylegan-invert --demo {' '.join(options)}", f"{seconds:.1f} s, {usage.ru_maxrss / 2**20:.2f} GB", figures)
        )
    return rows


if __name__ == "__main__":
    time_steps() if "--steps" in sys.argv else main()
