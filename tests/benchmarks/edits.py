"""Measure what an ``Editor`` costs: ``python tests/benchmarks/edits.py``. Prints a table; nothing is asserted.

One face is inverted, then edited a hundred times at 1024 px: by one direction, by three, under a mask. Every edit is timed
beside a bare ``synthesis`` of the same code, in turns, so that both see the same machine. Needs the default generator.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from invert.editor import Editor
from invert.performance import keep_freed_memory
from invert.photo import demo_photo, read_photo
from pretrained.loading import load_generator

EDITS = 100
KINDS = (["age={}"], ["age={}", "smile@coarse={}", "pose=raw:{}"], ["smile={}@mouth"])


def main() -> None:
    keep_freed_memory()
    generator = load_generator()
    began = time.perf_counter()
    editor = Editor(generator).set_photo(read_photo(demo_photo()))
    sys.stdout.write(f"set_photo (find, align, invert, draw): {time.perf_counter() - began:.2f} s\n\n")
    sys.stdout.write(f"| {EDITS} edits at {generator.img_resolution} px | Editor | bare synthesis | ratio |\n")
    sys.stdout.write("| --- | --- | --- | --- |\n")
    for kind in KINDS:
        edited, bare = measure(editor, kind)
        name = ", ".join(kind).format(*["S"] * len(kind))
        ratio = statistics.median(a / b for a, b in zip(edited, bare, strict=True))
        sys.stdout.write(f"| {name} | {sum(edited):.1f} s | {sum(bare):.1f} s | {sum(edited) / sum(bare):.3f}")
        sys.stdout.write(f" (median of pairs {ratio:.3f}) |\n")
        sys.stdout.flush()


def measure(editor: Editor, kind: list[str]) -> tuple[list[float], list[float]]:
    edited, bare = [], []
    for number in range(-2, EDITS):  # Two to warm up.
        strength = 3 * (2 * number / EDITS - 1)
        edits = [text.format(strength) for text in kind]
        latent = editor.edited_latent(edits)
        began = time.perf_counter()
        with torch.no_grad():
            editor.generator.synthesis(latent)
        between = time.perf_counter()
        editor.edited_face(edits)
        ended = time.perf_counter()
        if number >= 0:
            bare.append(between - began)
            edited.append(ended - between)
    return edited, bare


if __name__ == "__main__":
    main()
