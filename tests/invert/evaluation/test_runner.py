from __future__ import annotations

import csv
import io
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import invert.evaluation.runner
from generators.errors import ToolkitError, UnknownName
from invert.cli.evaluate import remarks
from invert.errors import MetricUnavailable, PhotoError
from invert.evaluation.manifest import Manifest, Result, part_of
from invert.evaluation.methods import Method
from invert.evaluation.runner import DRAWN, STRIP_FACES, Progress, _pending, _Worker, evaluate
from invert.evaluation.team import Team, WorkerLost, start_workers
from invert.inversion import Inversion
from invert.report import as_csv, as_latex, summarise

CPU = torch.device("cpu")


@pytest.fixture
def run(make_plan, tmp_path):
    """Evaluate on the CPU; returns the summary and the inversions that were made."""

    def call(manifest=tmp_path / "manifest.sqlite", on_progress=None, **changes):
        told: list[Progress] = []
        finished = evaluate(make_plan(**changes), manifest, CPU, on_progress=on_progress or told.append)
        with Manifest(manifest) as book:
            return summarise(finished, book), sum(progress.done > 0 for progress in told)

    return call


@pytest.fixture
def broken_inverter(monkeypatch):
    """Let every method's inverter fail on a batch with a face that is bright on average."""
    load = Method.load

    def loaded(self, generator, perceptual):
        inverter = load(self, generator, perceptual)

        def moody(image):
            if image.flatten(1).mean(1).max() > 0:
                raise RuntimeError("too bright")
            return inverter(image)

        return moody

    monkeypatch.setattr(Method, "load", loaded)
    return lambda: monkeypatch.setattr(Method, "load", load)


def test_every_face_is_measured_by_every_method_once(run, encoder_file):
    methods = (str(encoder_file), "projector")
    summary, inverted = run(methods=methods, steps=1)
    assert inverted == 12
    assert [method.label for method in summary.methods] == ["tiny-encoder.safetensors", "projector"]
    assert all(np.isfinite(method.values).all() for method in summary.methods)
    assert summary.is_complete
    again, inverted = run(methods=methods, steps=1)
    assert inverted == 0
    assert as_csv(again) == as_csv(summary)


def test_figures_are_those_of_the_bare_calls(run, tiny_encoder, tiny_generator, faces_folder, encoder_file):
    from invert.dataset import read_faces
    from invert.inverters import load_inverter
    from invert.metrics import load_pair_metric
    from invert.training import from_uint8

    summary, _ = run()
    inverter = load_inverter(str(encoder_file), tiny_generator)
    for place, pixels in enumerate(read_faces(faces_folder)[0]):
        image = from_uint8(pixels[None].numpy())
        expected = [load_pair_metric(key).per_image(inverter(image).image, image).item() for key in ("mse", "ssim")]
        assert summary.methods[0].values[:, place].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_faces_whose_edits_are_drawn_come_first_so_that_every_worker_has_some(make_plan, tmp_path):
    finished = evaluate(make_plan(batch=1), tmp_path / "first.sqlite", CPU)
    with Manifest(tmp_path / "second.sqlite") as book:
        batches = _pending(finished, finished.columns[0].method, book)
    assert len(batches) == 6
    assert {content for batch in batches[:STRIP_FACES] for content in batch} == set(finished.strip_faces)


def test_a_run_goes_on_where_it_was_killed(make_plan, tmp_path, run):
    undisturbed, _ = run(tmp_path / "undisturbed.sqlite")
    script = (
        "import os, pickle, signal, sys, torch; from invert.evaluation.runner import evaluate\n"
        "plan, manifest, kill_at = pickle.load(sys.stdin.buffer)\n"
        "def told(progress):\n"
        "    if progress.done == kill_at: os.kill(os.getpid(), signal.SIGKILL)\n"
        "evaluate(plan, manifest, torch.device('cpu'), on_progress=told)\n"
    )
    for _ in range(2):
        given = pickle.dumps((make_plan(), tmp_path / "killed.sqlite", 2))
        killed = subprocess.run([sys.executable, "-c", script], input=given, check=False, env=_environment())
        assert killed.returncode == -signal.SIGKILL
    summary, inverted = run(tmp_path / "killed.sqlite")
    assert inverted == 2
    assert as_csv(summary) == as_csv(undisturbed)
    assert as_latex(summary).split(r"\end{table}")[0] == as_latex(undisturbed).split(r"\end{table}")[0]


def _environment():
    root = Path(__file__).resolve().parents[3]
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(faces_folder, generator_file, encoder_file, tmp_path):
    """Start the command with two workers over the tiny networks, in a process of its own."""

    def call(*extra):
        command = [sys.executable, "-m", "invert.cli.main", "evaluate", faces_folder, "--workers", 2]
        command += ["--methods", encoder_file, "--metrics", "mse,ssim", "--generator", generator_file]
        command += ["--faces", "aligned", "--device", "cpu", "--report", tmp_path / "by-2/report.html", *extra]
        pipe = subprocess.PIPE
        text = [str(part) for part in command]
        return subprocess.Popen(text, stdout=pipe, stderr=pipe, text=True, env=_environment(), cwd=tmp_path)

    return call


@pytest.mark.slow
def test_two_workers_give_the_table_of_one(run, start, tmp_path):
    alone, _ = run(tmp_path / "alone.sqlite")
    done = start()
    _, told = done.communicate()
    assert done.returncode == 0, told
    shares = [int(share) for share in re.findall(r"worker \d of 2, \S+: 100%\|\S+\| *(\d+)/\1 ", told)]
    assert sum(shares) == 6
    assert (tmp_path / "by-2/report.csv").read_text() == as_csv(alone)
    assert {path.suffix for path in (tmp_path / "by-2").iterdir()} == {".html", ".csv", ".json", ".tex", ".sqlite"}
    assert "worker 2 of 2" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--metrics", "bogus"], "unknown metric 'bogus'"),
        (["--generator", "bogus"], "bogus"),
        (["--edit", "bogus=1"], "unknown edit 'bogus'"),
    ],
)
def test_two_workers_say_a_mistake_once_and_in_words(start, extra, words):
    done = start(*extra)
    _, told = done.communicate()
    assert done.returncode == 2
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_face_that_fails_is_a_line_of_the_report_whoever_had_it(start, faces_folder, tmp_path):
    (faces_folder / "torn.png").write_bytes((faces_folder / "0.png").read_bytes()[:60])
    done = start()
    _, told = done.communicate()
    assert done.returncode == 1
    assert "1 of 7 faces failed, the first: torn.png" in told
    assert "Traceback" not in told
    assert (tmp_path / "by-2/report.csv").read_text().count(",measured,") == 6


def test_a_worker_that_died_ends_no_wait_for_those_at_work(tmp_path, monkeypatch):
    """Worker 2 has died, worker 3 works on for longer than a lock is waited for, and worker 4's file is none."""
    monkeypatch.setattr("invert.evaluation.manifest.BUSY_SEC", 0.05)
    manifest = tmp_path / "m.sqlite"
    part_of(manifest, 3).write_text("some notes of mine, long enough to be a header")
    opened = threading.Event()

    def work():
        with Manifest(part_of(manifest, 2)) as book:
            opened.set()
            time.sleep(0.3)
            book.add([Result("late", "m", {"a": 1.0})])

    def gone(self):
        raise WorkerLost("worker 2 is gone")

    monkeypatch.setattr(Team, "wait", gone)
    worker = threading.Thread(target=work)
    worker.start()
    opened.wait()
    told = []
    lost = invert.evaluation.runner._collect(manifest, Team(size=4), told.append)
    worker.join()
    assert told == ["m.worker-2.sqlite: its worker has not ended yet; its results are waited for"]
    assert lost.startswith("worker 2 is gone; ")
    assert "m.worker-3.sqlite: no manifest" in lost
    with Manifest(manifest) as book:
        assert [result.content for result in book.results("m")] == ["late"]


def test_a_worker_that_neither_ends_nor_writes_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("invert.evaluation.manifest.BUSY_SEC", 0.01)
    monkeypatch.setattr("invert.evaluation.runner.WRITE_PATIENCE_SEC", 0.0)
    monkeypatch.setattr(Team, "wait", lambda self: None)
    manifest = tmp_path / "m.sqlite"
    with Manifest(part_of(manifest, 1)) as book:
        book.add([Result("kept", "m", {"a": 1.0})])
        lost = invert.evaluation.runner._collect(manifest, Team(size=2), lambda message: None)
    assert "m.worker-1.sqlite: its worker has not ended, and has written nothing for 0 hours: end it" in lost
    assert invert.evaluation.runner._collect(manifest, Team(size=2), lambda message: None) == ""
    with Manifest(manifest) as book:
        assert [result.content for result in book.results("m")] == ["kept"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": '"cuda"'}, 'device: "cuda", not "cpu"'),
        ({"method 1": "psp"}, 'method 1: psp, not {"method": "encoder", '),
        ({"ssim": None}, "ssim: none (no such package), not "),
    ],
)
def test_workers_that_would_not_measure_the_same_are_refused_and_told_what_differs(run, monkeypatch, changed, words):
    def gather(self, value):
        if isinstance(value, dict):
            return [value]
        facts, _ = value
        other = {name: text for name, text in (facts | changed).items() if text is not None}
        return [value, (facts, {}), (other, {"ssim": "no such package"} if "ssim" in changed else {})]

    monkeypatch.setattr(Team, "gather", gather)
    with pytest.raises(ToolkitError, match="worker 3 of 1 would not measure what worker 1 does: ") as told:
        run()
    assert words in str(told.value)
    assert str(told.value).count(", not ") == 1


def test_what_one_worker_could_not_load_is_told_and_what_none_could_has_no_column(run):
    finished = run()[0].run
    store = torch.distributed.HashStore()
    leader, other = (Team(rank, 2, store=store) for rank in range(2))
    leader.leave('[""]')
    told = invert.evaluation.runner._with_reasons(replace(finished, team=leader))
    assert (told.lost, told.columns) == ("", finished.columns)
    other.leave('["no backbone"]')
    told = invert.evaluation.runner._with_reasons(replace(finished, team=leader, lost="worker 3 is gone"))
    assert told.lost == f"worker 3 is gone; worker 2 of 2 has nothing of {finished.columns[0].method.spec}: no backbone"
    leader.leave('["none here, either"]')
    unavailable = [replace(finished.columns[0], unavailable="none here, either")]
    told = invert.evaluation.runner._with_reasons(replace(finished, columns=unavailable, team=leader))
    assert (told.lost, told.columns) == ("", unavailable)


@pytest.mark.slow
def test_a_method_that_one_worker_cannot_load_is_told_and_its_faces_are_the_others(
    faces_folder, generator_file, encoder_file, tmp_path, capfd, monkeypatch
):
    script = (
        "import os; from generators.errors import ToolkitError; from invert.cli.main import main\n"
        "from invert.evaluation.methods import Method\n"
        "def load(*_): raise ToolkitError('no backbone')\n"
        "if os.environ['RANK'] == '1': Method.load = load\n"
        "main()\n"
    )
    arguments = [faces_folder, "--methods", encoder_file, "--metrics", "mse", "--generator", generator_file]
    arguments += ["--faces", "aligned", "--device", "cpu", "--report", tmp_path / "report.html"]
    monkeypatch.setenv("PYTHONPATH", _environment()["PYTHONPATH"])
    assert start_workers([sys.executable, "-c", script, "evaluate", *map(str, arguments)], 2, print) == 0
    text = (tmp_path / "report.csv").read_text()
    assert (text.count(",measured,"), text.count(",missing,")) == (6, 0)
    assert f"worker 2 of 2 has nothing of {encoder_file}: no backbone" in " ".join(capfd.readouterr().err.split())


def test_a_worker_tells_how_many_faces_its_share_will_come_to(make_plan, tmp_path, monkeypatch):
    """Of six, worker 2 of 3 gets the first, the third and the last."""
    told = []
    places = lambda self, count, what: iter((0, 2, 5))  # noqa: E731
    finished = evaluate(make_plan(limit=1), tmp_path / "m.sqlite", CPU)
    monkeypatch.setattr(Team, "deal", places)
    team = Team(1, 3)
    monkeypatch.setattr(_Worker, "_measure", lambda self, group, pictures: [Result(content, "m") for content in group])
    with Manifest(tmp_path / "other.sqlite") as book:
        method = finished.columns[0].method
        worker = _Worker(replace(finished, team=team), method, method.load(finished.generator, None), book, told.append)
        worker.work([[content] for content in list(finished.faces.files) * 6])
    assert [(progress.done, progress.total) for progress in told] == [(0, 2), (1, 3), (2, 3), (3, 3)]


def test_what_stopped_in_the_middle_of_a_method_is_not_lost(run):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.done == 4:
            raise Stop

    with pytest.raises(Stop):
        run(on_progress=stop)
    assert run()[1] == 2


def test_faces_count_as_measured_where_no_metric_can_be_had(run):
    summary, _ = run(metrics=())
    assert as_csv(summary).count(",measured,") == 6


def test_the_caption_of_one_face_without_backbones_is_a_sentence(run):
    summary, _ = run(limit=1)
    caption = next(line for line in as_latex(summary).splitlines() if "caption" in line)
    assert "Means over 1 face at" in caption
    assert caption.endswith("by the paired interval.}")


def test_the_faces_whose_edits_are_drawn_are_found_once(run):
    found = run()[0].run
    assert found.strip_faces == sorted(found.faces.files)[:4]
    assert found.strip_faces is found.strip_faces


def test_latex_counts_the_faces_that_each_method_has(run, broken_inverter, faces_folder):
    (faces_folder / "torn.png").write_bytes((faces_folder / "0.png").read_bytes()[:60])
    summary, _ = run()
    count = summary.methods[0].measured
    assert 0 < count < 6
    assert f"Means over {count} faces at" in as_latex(summary)
    assert rf"    faces & {count} \\" in as_latex(summary).splitlines()
    other = replace(summary.methods[0], seconds=np.zeros(1234))
    text = as_latex(replace(summary, methods=[*summary.methods, other]))
    assert "Means over the faces measured at" in text
    assert rf"    faces & {count} & 1{{,}}234 \\" in text.splitlines()
    assert rf"{{\scriptsize ({count} faces)}}" in text


def test_duplicates_count_once_and_are_named(run, faces_folder):
    shutil.copy(faces_folder / "0.png", faces_folder / "copy.png")
    os.link(faces_folder / "1.png", faces_folder / "link.png")
    summary, inverted = run()
    assert inverted == 6
    assert [(a.name, b.name) for a, b in summary.run.faces.duplicates] == [("copy.png", "0.png"), ("link.png", "1.png")]
    assert "copy.png,,,duplicate,same content as 0.png" in as_csv(summary)


def test_a_renamed_file_is_not_measured_again(run, faces_folder):
    run()
    (faces_folder / "0.png").rename(faces_folder / "zero.png")
    summary, inverted = run()
    assert inverted == 0
    assert summary.names[-1] == "zero.png"


def test_a_changed_file_is_measured_again(run, faces_folder):
    run()
    shutil.copy(faces_folder / "1.png", faces_folder / "spare.png")
    (faces_folder / "0.png").write_bytes((faces_folder / "0.png").read_bytes() + b"\0")
    assert run()[1] == 1


def test_a_file_that_changes_while_a_run_is_on_does_not_pass_for_what_it_was(run, faces_folder, monkeypatch):
    listed = invert.evaluation.runner.hash_faces

    def then_changed(*given):
        faces = listed(*given)
        (faces_folder / "0.png").write_bytes((faces_folder / "1.png").read_bytes() + b"\0")
        return faces

    with monkeypatch.context() as patch:
        patch.setattr(invert.evaluation.runner, "hash_faces", then_changed)
        summary, _ = run()
    (reason,) = summary.methods[0].failures.values()
    assert reason.startswith("changed since it was listed")
    again, inverted = run()
    assert inverted == 1
    assert again.is_complete


def test_broken_files_are_rows_with_a_reason(run, faces_folder):
    (faces_folder / "torn.png").write_bytes((faces_folder / "0.png").read_bytes()[:60])
    (faces_folder / "empty.png").touch()
    summary, _ = run()
    assert not summary.is_complete
    assert len(summary.methods[0].failures) == 1
    text = as_csv(summary)
    assert "torn.png" in text.split("failed")[0].splitlines()[-1]
    assert "empty.png,,,unreadable," in text
    assert summary.methods[0].estimates[0].count == 6


def test_a_disk_that_fails_while_a_run_is_on_costs_its_faces_alone(run, faces_folder, monkeypatch):
    read = invert.evaluation.runner.read_face

    def failing(reader, face, *rest):
        if face.name == "3.png":
            raise OSError(5, "Input/output error", str(face.path))
        return read(reader, face, *rest)

    monkeypatch.setattr(invert.evaluation.runner, "read_face", failing)
    summary, _ = run()
    assert summary.methods[0].measured == 5
    assert "Input/output error" in summary.methods[0].failures[3]


def test_failures_are_kept_until_they_are_retried(run, broken_inverter):
    first, inverted = run()
    failed = len(first.methods[0].failures)
    assert 0 < failed < 6
    assert set(first.methods[0].failures.values()) == {"RuntimeError: too bright"}
    assert run()[1] == 0
    broken_inverter()
    assert run()[1] == 0
    summary, inverted = run(retry_failed=True)
    assert inverted == failed
    assert summary.is_complete


def test_a_face_that_fails_costs_the_others_of_its_batch_nothing(run, broken_inverter):
    summary, _ = run(batch=6)
    alone, _ = run()
    assert summary.methods[0].failures == alone.methods[0].failures
    assert summary.methods[0].values == pytest.approx(alone.methods[0].values, nan_ok=True)


def test_other_settings_are_measured_anew(run):
    run(methods=("projector",), steps=1)
    assert run(methods=("projector",), steps=2)[1] == 6
    assert run(methods=("projector",), steps=1, seed=1)[1] == 6
    assert run(methods=("projector",), steps=1)[1] == 0


def test_figures_in_half_precision_are_of_their_own(run):
    exact, _ = run()
    halved, inverted = run(dtype="bfloat16")
    assert inverted == 6
    assert halved.provenance["Settings"]["features"] == "bfloat16"
    assert not np.array_equal(exact.methods[0].values, halved.methods[0].values)
    np.testing.assert_allclose(exact.methods[0].values, halved.methods[0].values, rtol=0.05)
    assert run()[1] == run(dtype="bfloat16")[1] == 0


def test_a_metric_that_is_added_later_joins_the_others(run):
    run()
    summary, inverted = run(metrics=("mse", "ssim", "psnr"))
    assert inverted == 6
    assert np.isfinite(summary.methods[0].values).all()
    assert run()[1] == 0


def test_faces_that_lack_a_metric_that_was_added_are_missing_and_keep_their_other_figures(run, make_plan, tmp_path):
    """Of two workers that add it to what is there, one dies."""
    manifest = tmp_path / "manifest.sqlite"
    run(metrics=("mse",))
    run(limit=2)
    planned = evaluate(make_plan(limit=2), manifest, CPU)
    faces = evaluate(make_plan(metrics=("mse",)), manifest, CPU).faces
    with Manifest(manifest) as book:
        summary = summarise(replace(planned, faces=faces), book)
        assert summarise(replace(planned, lost="worker 2 of 2 is gone"), book).is_complete
    (method,) = summary.methods
    assert np.isfinite(method.values[0]).all()
    assert np.isfinite(method.values[1]).tolist() == [True, True, False, False, False, False]
    assert (method.measured, summary.missing, summary.is_complete) == (2, {method.label: 4}, False)
    rows = [line.split(",") for line in as_csv(summary).splitlines()[1:]]
    assert [row[3] for row in rows] == ["measured"] * 2 + ["missing"] * 4
    assert all(row[5] for row in rows)
    assert f"{method.label}: 4 faces are left; the same command goes on" in remarks(summary)


def test_figures_stay_when_a_later_metric_fails(run):
    exact, _ = run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Method, "load", lambda *_: fail)
        assert len(run(metrics=("mse", "ssim", "psnr"))[0].methods[0].failures) == 6
    again, inverted = run()
    assert inverted == 0
    assert not again.methods[0].failures
    np.testing.assert_array_equal(exact.methods[0].values, again.methods[0].values)
    assert run(metrics=("mse", "ssim", "psnr"), retry_failed=True)[0].is_complete


def fail(image):
    raise RuntimeError("out of memory")


def test_a_face_without_a_figure_is_told_and_tried_again_on_request(run, monkeypatch):
    from invert.metrics.pixels import SSIM

    with monkeypatch.context() as patch:
        patch.setattr(type(SSIM), "per_image", lambda self, image, target: fail(image))
        summary, _ = run(metrics=("ssim",))
    assert set(summary.methods[0].notes.values()) == {"SSIM: out of memory"}
    assert as_csv(summary).count(",measured,SSIM: out of memory,") == 6
    assert remarks(summary) == [
        f"{summary.methods[0].label}: 6 of 6 faces lack a figure, the first: {summary.names[0]}: SSIM: out of memory"
        " (--retry-failed tries them again)"
    ]
    assert run(metrics=("ssim",))[1] == 0
    summary, inverted = run(metrics=("ssim",), retry_failed=True)
    assert inverted == 6
    assert not summary.methods[0].notes
    assert np.isfinite(summary.methods[0].values).all()


def test_a_metric_that_cannot_be_had_leaves_the_others(run, monkeypatch):
    from invert.evaluation import measures

    load = measures.load_pair_metric

    def offline(key, device):
        if key == "lpips-vgg":
            raise MetricUnavailable("no network")
        return load(key, device)

    monkeypatch.setattr(measures, "load_pair_metric", offline)
    summary, _ = run(metrics=("mse", "lpips-vgg"))
    assert summary.run.measures.unavailable == {"lpips-vgg": "no network"}
    assert summary.is_complete
    assert [metric.key for metric in summary.metrics] == ["mse"]
    rows = list(csv.DictReader(io.StringIO(as_csv(summary))))
    assert {(row["status"], row["lpips-vgg"], row["reason"]) for row in rows} == {("measured", "", "lpips-vgg: no network")}
    assert all(row["mse"] for row in rows)
    text = as_latex(summary)
    assert r"    lpips-vgg & -- \\" in text.splitlines()
    assert " Not measured: lpips-vgg: no network." in text


def test_a_method_that_cannot_be_had_leaves_the_others(run, encoder_file, tmp_path):
    alien = tmp_path / "alien.safetensors"
    alien.write_bytes(b"not an encoder")
    summary, _ = run(methods=(str(alien), str(encoder_file)))
    assert "alien.safetensors" in summary.methods[0].unavailable
    assert summary.methods[1].measured == 6
    assert not summary.is_complete
    assert as_csv(summary).count("failed") == 6


def test_unknown_names_are_refused_with_close_ones(run):
    with pytest.raises(UnknownName, match="did you mean projector"):
        run(methods=("projectr",))
    with pytest.raises(UnknownName, match="did you mean ssim"):
        run(metrics=("sim",))


def test_an_empty_folder_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match="expected images"):
        run(sources=(tmp_path / "empty",))


def test_an_interrupted_projection_does_not_pass_for_a_finished_one(run, monkeypatch):
    def interrupted(self, generator, perceptual):
        return lambda image: Inversion(torch.zeros(1, 2, 3), image, [], interrupted=True)

    with monkeypatch.context() as patch:
        patch.setattr(Method, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert run()[1] == 6


def test_edits_are_measured_and_drawn(run, tiny_generator, tmp_path, encoder_file):
    from editing.composition import parse_edits
    from editing.directions import Direction
    from pretrained.directions import save_direction

    file = tmp_path / "wider.safetensors"
    save_direction(file, Direction.of("wider", torch.eye(tiny_generator.w_dim)[0], tiny_generator.identity))
    edits = tuple(parse_edits([f"{file}=+2"]))
    summary, _ = run(edits=edits, methods=(str(encoder_file), "projector"), steps=1)
    keys = [metric.key.split()[0] for metric in summary.metrics]
    assert keys == ["mse", "ssim", "lec-avg", "lec-min", "lec-max"]
    encoder, projector = summary.methods
    assert not encoder.notes
    assert not encoder.failures
    average, smallest, largest = encoder.values[2:]
    assert (smallest <= average + 1e-5).all()
    assert (average <= largest + 1e-5).all()
    assert np.isnan(projector.values[2:]).all()
    assert not projector.notes
    with Manifest(tmp_path / "manifest.sqlite") as book:
        labels = [book.labels(content, encoder.method.key) for content in summary.contents]
    assert sum(labels == {DRAWN, summary.run.measures.strip[0].label} for labels in labels) == 4


def test_an_edit_that_no_generator_can_draw_is_told_and_costs_no_other_figure(run, tiny_generator, tmp_path):
    from editing.composition import parse_edits
    from editing.directions import Direction
    from pretrained.directions import save_direction

    file = tmp_path / "wider.safetensors"
    save_direction(file, Direction.of("wider", torch.eye(tiny_generator.w_dim)[0], tiny_generator.identity))
    summary, _ = run(edits=tuple(parse_edits([f"{file}=1e30"])), batch=3)
    (method,) = summary.methods
    assert not method.failures
    assert np.isfinite(method.values[:2]).all()
    assert np.isnan(method.values[2:]).all()
    assert len(method.notes) == 6
    assert all("wider.safetensors=+1e+30, avg: no value for this face (" in note for note in method.notes.values())
    assert run(edits=summary.run.plan.edits, batch=3)[1] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_edit_that_no_generator_can_draw_is_shown_grey(run, tiny_generator, tmp_path, monkeypatch, value):
    from editing.composition import parse_edits
    from editing.directions import Direction
    from pretrained.directions import save_direction

    def load(*_):
        tiny_generator.synthesis.register_forward_hook(
            lambda module, given, image: image if image.abs().max() < 1e6 else torch.full_like(image, value)
        )
        return tiny_generator

    monkeypatch.setattr("invert.evaluation.runner.load_generator", load)
    file = tmp_path / "wider.safetensors"
    save_direction(file, Direction.of("wider", torch.eye(tiny_generator.w_dim)[0], tiny_generator.identity))
    summary, _ = run(edits=tuple(parse_edits([f"{file}=1e30"])))
    (edit,) = summary.run.measures.strip
    with Manifest(tmp_path / "manifest.sqlite") as book:
        jpeg = book.picture(summary.run.strip_faces[0], summary.methods[0].method.key, edit.label)
    assert set(np.asarray(Image.open(io.BytesIO(jpeg))).ravel()) == {128}


def test_batches_keep_their_make_up_and_measure_the_same_faces(run):
    alone, _ = run()
    together, batches = run(batch=4)
    assert batches == 2
    assert together.methods[0].values == pytest.approx(alone.methods[0].values, rel=1e-3)
