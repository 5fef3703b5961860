"""Measure the evaluation itself: what it adds to the bare calls, what a second worker brings, and whether kills show.

    python tests/benchmarks/evaluation.py FACES [--split val] [--count 60] [--kills 20] [--rounds 5]

FACES is what ``stylegan-invert evaluate`` takes. Each worker has one thread, so the machine needs two idle cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def evaluate(arguments: argparse.Namespace, report: Path, count: int, workers: int = 1) -> list[str]:
    """Return the command of one evaluation by the shipped encoder."""
    command = [sys.executable, "-m", "invert.cli.main", "evaluate", str(arguments.faces), "--methods", "stylemap"]
    command += ["--faces", "aligned", "--device", "cpu", "--limit", str(count), "--workers", str(workers)]
    return [*command, "--report", str(report), *(["--split", arguments.split] if arguments.split else [])]


def say(line: str) -> None:
    """Print a figure at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def seconds(command: list[str]) -> float:
    """Run a command to its end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - began


def workers(arguments: argparse.Namespace, folder: Path) -> None:
    """Compare one worker with two in turn, without what starting takes: the difference of a long and a short run."""
    few, many = max(2, arguments.count // 6), arguments.count
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(arguments.rounds):
        for number, measured in rates.items():
            pages = [folder / f"{number}-{count}-{turn}/report.html" for count in (few, many)]
            short, long = (seconds(evaluate(arguments, p, c, number)) for p, c in zip(pages, (few, many), strict=True))
            measured.append((many - few) / (long - short))
            say(f"{number} worker(s): {measured[-1]:.2f} faces a second (whole run of {many}: {long:.1f} s)")
        same = csv_of(folder / f"1-{many}-{turn}") == csv_of(folder / f"2-{many}-{turn}")
        say(f"two workers: {rates[2][-1] / rates[1][-1]:.2f} times as fast; tables {'equal' if same else 'DIFFER'}")
    one, two = (statistics.median(measured) for measured in rates.values())
    say(f"medians of {arguments.rounds}: {one:.2f} and {two:.2f} faces a second, {two / one:.2f} times as fast")


def kills(arguments: argparse.Namespace, folder: Path) -> None:
    """Kill a run at random moments, finish it, and compare it with the undisturbed one."""
    undisturbed, killed = folder / f"1-{arguments.count}-0", folder / "killed"
    command = evaluate(arguments, killed / "report.html", arguments.count)
    longest = seconds(evaluate(arguments, folder / "start/report.html", max(2, arguments.count // 6)))
    moments = random.Random(0)
    for _ in range(arguments.kills):
        running = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            running.wait(moments.uniform(0, longest))
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
    seconds(command)
    say(f"{arguments.kills} kills: tables {'equal' if csv_of(killed) == csv_of(undisturbed) else 'DIFFER'}")


def csv_of(folder: Path) -> bytes:
    """Return every face's figures."""
    return (folder / "report.csv").read_bytes()


def overhead(arguments: argparse.Namespace, folder: Path) -> None:
    """Compare the runner with the bare calls of encoder, synthesis and metrics on the same faces, by processor time."""
    import torch

    from invert.dataset import read_faces
    from invert.evaluation.runner import Plan
    from invert.evaluation.runner import evaluate as run
    from invert.inverters import load_inverter
    from invert.metrics import load_pair_metric
    from invert.performance import keep_freed_memory
    from invert.training import from_uint8
    from pretrained.catalog import DEFAULT_GENERATOR
    from pretrained.loading import load_generator

    keep_freed_memory()
    torch.set_num_threads(1)
    keys, count = ("mse", "psnr", "ssim", "ms-ssim", "lpips-squeeze", "id-dlib"), max(8, arguments.count // 4)
    inverter = load_inverter("stylemap", load_generator(DEFAULT_GENERATOR))
    metrics = [load_pair_metric(key) for key in keys]
    faces = from_uint8(read_faces(arguments.faces, arguments.split, limit=count)[0].numpy())

    def typical(marks: list[float]) -> float:
        """Take the median face: four faces, however many there are, have strips of edits drawn."""
        return statistics.median(after - before for before, after in itertools.pairwise(marks))

    def bare() -> list[float]:
        marks = [time.process_time()]
        for face in faces.split(1):
            image = inverter(face).image
            for metric in metrics:
                metric.per_image(image, face)
            marks.append(time.process_time())
        return marks

    bare()
    sources, ratios = (arguments.faces,), []
    plan = Plan(sources, ("stylemap",), keys, DEFAULT_GENERATOR, split=arguments.split, limit=count, kind="aligned")
    for turn in range(arguments.rounds):
        expected, marks = typical(bare()), list[float]()
        book = folder / f"overhead-{turn}.sqlite"
        run(plan, book, torch.device("cpu"), on_progress=lambda progress, marks=marks: marks.append(time.process_time()))
        ratios.append(100 * (typical(marks) / expected - 1))
    say(
        f"overhead over the bare calls: {statistics.median(ratios):.1f} % of processor time"
        f" (median of {len(ratios)}: {min(ratios):.1f} to {max(ratios):.1f})"
    )


ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="one worker and two in turn; a busy machine takes more")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        overhead(given, Path(scratch))
        workers(given, Path(scratch))
        kills(given, Path(scratch))
