"""How is every face measured by every method, once? Planned by the leader, shared among the workers, kept row by row.

Killed at any moment, a run goes on where it stopped: what is in the manifest is not done again, what is not there is done.
A face's figures depend on the face, the method and its settings alone: each worker computes with a fixed number of threads
(one) in batches of a fixed make-up (one face), because rounding depends on both, and a projector blows rounding up.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from editing.composition import EditSpec
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import select
from invert.dataset import Reader, find_faces
from invert.errors import PhotoError
from invert.evaluation.faces import RESOLUTION, Faces, Kind, hash_faces, kind_of, prefetch, read_face
from invert.evaluation.manifest import Manifest, ManifestBusy, ManifestError, Result, last_written, part_of, parts_of
from invert.evaluation.measures import Measures, check_metrics, load_measures
from invert.evaluation.meter import meter, return_freed_memory
from invert.evaluation.methods import Method, each_once, parse_methods
from invert.evaluation.team import KEPT, Team, WorkerLost
from invert.inversion import Inversion, Inverter, resize
from invert.perceptual import load_perceptual
from invert.photo import to_uint8
from invert.pipeline import versions
from invert.training import from_uint8
from pretrained.loading import load_generator

STRIP_FACES = 4
"""Faces whose edits are drawn: those whose hashes come first, whatever else is in the set."""
PICTURE_PX = 256
DRAWN = "drawn"
"""Label of the picture of an inversion; the others are edits, as written."""
WRITE_PATIENCE_SEC = 6 * 3600.0
"""How long the leader waits for a worker that writes nothing; far longer than the slowest batch takes."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    sources: tuple[Path, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    generator: str
    edits: tuple[EditSpec, ...] = ()
    split: str | None = None
    limit: int | None = None
    kind: Literal["auto", "aligned", "photos"] = "auto"
    steps: int = 100
    space: str = "w_plus"
    seed: int = 0
    threads: int = 1
    """Of each worker."""
    batch: int = 1
    dtype: str = "float32"
    """That the generator computes in."""
    retry_failed: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a worker is with its share of a method."""

    method: str
    done: int
    total: int
    """Faces of its share, as far as can be told: those it was dealt and its part of those that are left."""
    failed: int


@dataclass(frozen=True)
class Column:
    """A method, and what came of it."""

    method: Method
    unavailable: str = ""
    """Why it could not be measured at all."""


@dataclass(frozen=True)
class Run:
    """A finished run: what was to be measured, and where the results are."""

    plan: Plan
    faces: Faces
    kind: Kind
    columns: list[Column]
    measures: Measures
    generator: Generator
    device: torch.device
    team: Team
    lost: str = ""
    """Why some workers' results are not there yet."""

    @cached_property
    def strip_faces(self) -> list[str]:
        """The contents whose edits are drawn; asked for at every face, so found once."""
        return sorted(self.faces.files)[:STRIP_FACES]


def evaluate(
    plan: Plan,
    manifest: Path,
    device: torch.device,
    team: Team | None = None,
    notify: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Measure what is not in the manifest yet.

    Args:
        plan: what to measure.
        manifest: the file that remembers; the same for all workers, and a folder that all of them see.
        device: where to compute.
        team: the processes that share the work; None: this one alone.
        notify: told once what a user should know.
        on_progress: told after every batch.

    Raises:
        UnknownName: no such method, metric or edit.
        PhotoError: nothing to measure.
        ManifestError: the manifest belongs to another version, or to a run that is still going on.
        OutputError: it cannot be written.
        ToolkitError: the workers would not measure the same.
    """
    team = team if team is not None else Team()
    torch.set_num_threads(plan.threads)
    torch.backends.cudnn.deterministic = True
    methods = parse_methods(plan.methods, plan.steps, plan.space)
    check_metrics(plan.metrics)
    listed = find_faces(plan.sources, plan.split, plan.limit)
    with ExitStack() as stack:
        book = _open(manifest, team, stack)
        leaders = book if team.leads else None
        faces = hash_faces(listed, team, leaders)
        if not faces.files:
            raise PhotoError(f"none of {faces.count} files can be read; the first: {faces.unreadable[0][1]}")
        kind = plan.kind if plan.kind != "auto" else team.once(lambda: _decide_kind(faces, book, notify))
        generator = load_generator(plan.generator, device, notify).compute_in(getattr(torch, plan.dtype))
        measures = load_measures(plan.metrics, plan.edits, generator, device)
        loss = load_perceptual(device, notify) if any(method.is_optimised for method in methods) else None
        settings = _settings(plan, kind, generator, device) | ({"loss": loss.name} if loss is not None else {})
        methods = each_once(replace(method.of(generator), settings=settings) for method in methods)
        _check_alike(methods, measures, team)
        run = Run(plan, faces, kind, [], measures, generator, device, team)
        # Planned all at once: from here on no worker needs another; one that dies stops nobody (torchrun may stop the rest).
        pending = team.once(lambda: [_pending(run, method, book) for method in methods])
        for method, groups in zip(methods, pending, strict=True):
            unavailable = ""
            if groups:
                try:
                    inverter = method.load(generator, loss)
                except ToolkitError as error:
                    unavailable = str(error)
                else:
                    return_freed_memory()
                    _Worker(run, method, inverter, book, on_progress).work(groups)
            run.columns.append(Column(method, unavailable))
        team.leave(json.dumps([column.unavailable for column in run.columns]))
    return _with_reasons(replace(run, lost=_collect(manifest, team, notify)))


def _open(manifest: Path, team: Team, stack: ExitStack) -> Manifest:
    """Open the leader's manifest, after taking over what other workers left; every other worker gets a file of its own."""

    def prepare() -> None:
        opened.append(stack.enter_context(Manifest(manifest)))
        for part in parts_of(manifest):
            opened[0].merge(part)

    opened: list[Manifest] = []
    team.once(prepare)
    if not team.leads:
        opened.append(stack.enter_context(Manifest(part_of(manifest, team.rank))))
    team.wait()
    found = team.once(lambda: len(parts_of(manifest)))
    if found < team.size - 1:
        raise ToolkitError(f"the workers do not see one folder: {manifest.parent} must be shared by all machines")
    return opened[0]


def _check_alike(methods: Sequence[Method], measures: Measures, team: Team) -> None:
    """Refuse workers that would not measure what the leader does: their rows would lack figures, or never be looked for.

    Raises:
        ToolkitError: naming what differs; the same for all workers.
    """
    (first, first_lacks), *others = team.gather((_facts(methods, measures), measures.unavailable))
    for number, (other, lacks) in enumerate(others, 2):
        differing = [
            f"{name}: {_told(name, other, lacks)}, not {_told(name, first, first_lacks)}"
            for name in first | other
            if first.get(name) != other.get(name)
        ]
        if differing:
            raise ToolkitError(
                f"worker {number} of {team.size} would not measure what worker 1 does: {'; '.join(differing)}; give all"
                " machines the same command, versions and packages, or leave out what one of them cannot have"
            )


def _facts(methods: Sequence[Method], measures: Measures) -> dict[str, str]:
    """Name all that the keys of methods and of their figures come from."""
    facts: dict[str, str] = {}
    for number, method in enumerate(methods, 1):
        own = method.own_settings
        shared = own.keys() & method.settings.keys()
        # Weights say what a file is; it may be called differently on each machine.
        alone = {n: "encoder" if n == "method" and method.weights_sha256 else own[n] for n in own if n not in shared}
        facts |= {name: json.dumps(own[name]) for name in own if name in shared} | {f"method {number}": json.dumps(alone)}
    return facts | {described.key: described.backbone for described in measures.descriptions}


def _told(name: str, facts: dict[str, str], lacks: dict[str, str]) -> str:
    return f"none ({lacks[name]})" if name in lacks else facts.get(name, "none")


def _collect(manifest: Path, team: Team, notify: Callable[[str], None]) -> str:
    """Wait for the other workers and take over their results; return what is missing, in words."""
    lost = []
    try:
        team.wait()
    except WorkerLost as error:
        lost.append(str(error))
    if team.leads and team.size > 1:
        with Manifest(manifest) as book:
            for part in parts_of(manifest):
                try:
                    _merge_when_free(book, part, notify)
                except ManifestError as error:
                    lost.append(str(error))
    return "; ".join(lost)


def _with_reasons(run: Run) -> Run:
    """Tell the leader's report which methods other workers could not load: whoever could was dealt their faces."""
    said = {rank: json.loads(text) for rank, text in run.team.left().items()} if run.team.leads else {}
    columns, lost = [], [run.lost] if run.lost else []
    for place, column in enumerate(run.columns):
        reasons = {rank: its[place] for rank, its in sorted(said.items())}
        if any(reasons.values()) and not all(reasons.values()):
            lost += [
                f"worker {rank + 1} of {run.team.size} has nothing of {column.method.spec}: {reason}"
                for rank, reason in reasons.items()
                if reason
            ]
            column = replace(column, unavailable="")  # Others have measured it.
        columns.append(column)
    return replace(run, columns=columns, lost="; ".join(lost))


def _merge_when_free(book: Manifest, part: Path, notify: Callable[[str], None]) -> None:
    """Take over a worker's results once it is done: one that died stopped the wait for those that are still at work.

    A worker that writes nothing any more is not waited for: it was stopped, or its machine is gone and left a lock behind.
    """
    seen, since = "", 0.0
    while True:
        try:
            book.merge(part)
        except ManifestBusy as error:
            if not seen:
                notify(f"{part.name}: its worker has not ended yet; its results are waited for")
            now = last_written(part)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= WRITE_PATIENCE_SEC:
                raise ManifestBusy(
                    f"{part}: its worker has not ended, and has written nothing for {WRITE_PATIENCE_SEC / 3600:g} hours:"
                    f" end it; {KEPT}"
                ) from error
        else:
            return


def _decide_kind(faces: Faces, book: Manifest, notify: Callable[[str], None]) -> Kind:
    """Tell aligned faces from photos, once for a set."""
    question = f"kind of {hashlib.sha256(''.join(faces.files).encode()).hexdigest()}"
    decided = book.decision(question)
    if decided is None:
        decided = kind_of(list(faces.files.values()))
        book.decide(question, decided)
    if decided == "photos":
        notify("these look like photos, not like aligned faces: the largest face of each is cut out; see --faces")
    return "photos" if decided == "photos" else "aligned"


def _settings(plan: Plan, kind: Kind, generator: Generator, device: torch.device) -> dict[str, Any]:
    settings = {
        "generator": generator.identity.name,
        "generator_sha256": generator.identity.sha256,
        "faces": kind,
        "resolution": RESOLUTION,
        "seed": plan.seed,
        "threads": plan.threads,
        "batch": plan.batch,
        "device": device.type,
        "versions": {name: version for name, version in versions().items() if name in ("stylegan-invert", "torch")},
    }
    # Named where it is not the usual one, so that manifests from before there was a choice go on.
    return settings if plan.dtype == "float32" else settings | {"dtype": plan.dtype}


def _pending(run: Run, method: Method, book: Manifest) -> list[list[str]]:
    """Return the batches in which something is left to do, always made up alike.

    Those whose edits are drawn come first: they take several times as long, and no worker is to begin one as the last.
    """
    book.add_method(method.key, json.dumps(method.own_settings, sort_keys=True))
    finished = set()
    wanted, labels = run.measures.keys(), {edit.label for edit in run.measures.strip}
    for result in book.results(method.key):
        # What has all its figures is finished, whatever failed when others were asked for.
        again = bool(result.why_not(wanted)) and run.plan.retry_failed
        if (result.has(wanted) or result.reason) and not again:
            finished.add(result.content)
    for content in finished & set(run.strip_faces):
        if book.labels(content, method.key) and not labels <= book.labels(content, method.key):
            finished.discard(content)
    contents = list(run.faces.files)
    batches = [contents[start : start + run.plan.batch] for start in range(0, len(contents), run.plan.batch)]
    left = [batch for batch in batches if not finished.issuperset(batch)]
    return sorted(left, key=lambda batch: -len(set(batch).intersection(run.strip_faces)))


@dataclass(frozen=True)
class _Worker:
    """Measures those faces by one method that the team deals to it."""

    run: Run
    method: Method
    inverter: Inverter
    book: Manifest
    on_progress: Callable[[Progress], None]

    def work(self, groups: Sequence[Sequence[str]]) -> None:
        """Measure batch after batch, each kept before the next is begun, until none is left for any worker."""
        team, done, failed, dealt = self.run.team, 0, 0, 0
        up_to = [0, *accumulate(map(len, groups))]
        left = up_to[-1]

        def own() -> Iterator[Sequence[str]]:
            nonlocal dealt, left
            for place in team.deal(len(groups), self.method.key):
                dealt, left = dealt + len(groups[place]), up_to[-1] - up_to[place + 1]
                yield groups[place]
            left = 0

        def tell() -> None:
            self.on_progress(Progress(self.method.spec, done, dealt + -(-left // team.size), failed))

        tell()
        with Reader() as reader:

            def read(group: Sequence[str]) -> list[UInt8[np.ndarray, "3 256 256"] | Exception]:
                return [self._read(reader, content) for content in group]

            # What a worker of several has read ahead is lost to the others, who may be faster.
            for group, pictures in prefetch(read, own(), ahead=4 if team.size == 1 else 1):
                results = self._measure(group, pictures.result())
                self.book.add(results)
                done, failed = done + len(results), failed + sum(bool(result.reason) for result in results)
                tell()

    def _read(self, reader: Reader, content: str) -> UInt8[np.ndarray, "3 256 256"] | Exception:
        try:
            return read_face(reader, self.run.faces.files[content], self.run.kind, content)
        except Exception as error:  # Whatever one file brings about, the others go on.
            return error

    def _measure(self, group: Sequence[str], pictures: Sequence[UInt8[np.ndarray, "3 256 256"] | Exception]) -> list[Result]:
        read = {c: picture for c, picture in zip(group, pictures, strict=True) if not isinstance(picture, Exception)}
        results = [
            self._failure(c, picture) for c, picture in zip(group, pictures, strict=True) if isinstance(picture, Exception)
        ]
        if not read:
            return results
        images = from_uint8(np.stack(list(read.values()))).to(self.run.device)
        torch.manual_seed(self.run.plan.seed)
        try:
            with meter(self.run.device) as cost:
                inversion = self.inverter(images)
            if inversion.interrupted:  # The projector keeps its best code on Ctrl-C; here it would pass for a finished one.
                raise KeyboardInterrupt
            figures, notes = self.run.measures(self.inverter, inversion, images)
            drawn = self._pictures(list(read), inversion)
        except Exception as error:  # Whatever one face brings about, the others go on.
            if len(read) > 1:
                return results + [alone for content in read for alone in self._measure([content], [read[content]])]
            return results + [self._failure(content, error) for content in read]
        seconds = cost.seconds / len(read)
        return results + [
            Result(c, self.method.key, figure, seconds, cost.peak_bytes, "", note, self.run.team.name, jpegs)
            for c, figure, note, jpegs in zip(read, figures, notes, drawn, strict=True)
        ]

    def _failure(self, content: str, error: Exception) -> Result:
        reason = str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: {error}"
        reason = reason.removeprefix(f"{self.run.faces.files[content].name}: ")  # The row says it already.
        return Result(content, self.method.key, reason=reason, worker=self.run.team.name)

    @torch.no_grad()
    def _pictures(self, contents: Sequence[str], inversion: Inversion) -> list[dict[str, bytes]]:
        pictures = [{DRAWN: jpeg} for jpeg in _jpegs(inversion.image)]
        for number, content in enumerate(contents):
            if content in self.run.strip_faces:
                code = select(inversion.latent, number)
                for edit in self.run.measures.strip:
                    image = (inversion.generator or self.run.generator).synthesis(edit(code))
                    grey = image.nan_to_num(0.0, 0.0, 0.0)  # Where an edit goes too far.
                    pictures[number][edit.label] = _jpegs(grey)[0]
        return pictures


def _jpegs(images: Float[Tensor, "batch 3 height width"]) -> list[bytes]:
    files = []
    for photo in to_uint8(resize(images, PICTURE_PX)):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=90, subsampling=0)
        files.append(file.getvalue())
    return files
