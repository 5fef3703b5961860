from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from invert.cli.main import cli
from invert.evaluation.methods import parse_methods
from invert.evaluation.statistics import Estimate
from invert.metrics import Description
from invert.report.chart import Spread, distribution
from invert.report.export import latex, number
from invert.report.page import _in_order
from invert.report.summary import MethodSummary, _compare, digits_of, shown

HOSTILE = "<script>alert(1)<!--\"'&.png"


class Page(html.parser.HTMLParser):
    """Collects the tags of a page, with their attributes, and its text."""

    VOID = frozenset({"meta", "img", "line", "circle", "path", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    random = np.random.default_rng(0)
    for number_ in range(4):
        pixels = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(faces / f"{number_}.png")
    shutil.copy(faces / "0.png", faces / HOSTILE)
    (faces / "1.png").rename(faces / ("renamed " + HOSTILE))
    (faces / "torn.png").write_bytes((faces / "0.png").read_bytes()[:50])
    shutil.copy(faces / "2.png", faces / os.fsdecode(b"no-unicode-\xff.png"))
    return faces


@pytest.fixture
def evaluated(folder, generator_file, encoder_file, monkeypatch, cheap_distance, tmp_path):
    """Run the command over a folder with hostile names; returns its result and the report."""
    monkeypatch.setattr("invert.evaluation.runner.load_perceptual", lambda *_: cheap_distance)
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)

    def call(*extra):
        report = tmp_path / "out" / "report.html"
        arguments = ["evaluate", folder, "--methods", f"{encoder_file},projector", "--steps", 1, "--metrics", "mse,psnr"]
        arguments += ["--generator", generator_file, "--faces", "aligned", "--device", "cpu", "--report", report, *extra]
        return CliRunner().invoke(cli, [str(argument) for argument in arguments]), report

    return call


def test_a_report_holds_everything_and_asks_nobody(evaluated):
    result, report = evaluated()
    assert result.exit_code == 1, result.output  # A file is torn.
    page = Page(report.read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in page.of("img"))
    assert not re.search(r"(?:src|href)=.?(?:https?:|//)", report.read_text(encoding="utf-8"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    headings = ["Results", "Distributions", "Best, median and worst faces", "Edits", "Remarks", "How to do it again"]
    assert all(heading in page.text for heading in headings)
    assert "tiny-encoder.safetensors" in page.text
    assert "projector" in page.text


def test_a_report_names_the_weights_that_judged():
    from invert.report.summary import weights_of

    metrics = [Description("mse", "MSE", False, 0.0, 4.0), Description("id-a", "identity (a)", True, -1.0, 1.0, "A", "ab12")]
    assert weights_of(metrics) == {"identity (a)": "ab12"}


def test_hostile_names_stay_text(evaluated):
    _, report = evaluated()
    page = Page(report.read_text(encoding="utf-8"))
    assert HOSTILE in page.text
    assert r"no-unicode-\xff.png" in page.text
    rows = list(csv.reader(io.StringIO(report.with_suffix(".csv").read_text(encoding="utf-8"))))
    assert f"renamed {HOSTILE}" in {row[0] for row in rows}
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("name", [b"enc\xe9.safetensors", b"two\nlines.safetensors"])
def test_methods_and_folders_of_any_name_come_into_every_file(evaluated, encoder_file, folder, monkeypatch, name):
    odd = encoder_file.rename(encoder_file.with_name(os.fsdecode(name)))
    elsewhere = folder.with_name(os.fsdecode(b"fold\xe9"))
    elsewhere.mkdir()
    shutil.copy(folder / "2.png", elsewhere)
    report, label = elsewhere / "report.html", shown(odd.name)
    monkeypatch.setattr("sys.argv", ["stylegan-invert", "evaluate", "--report", str(report)])
    result, _ = evaluated(elsewhere, "--methods", odd, "--report", report)
    assert result.stdout.splitlines()[0] == f"| | {label} |"
    assert label in Page(report.read_text(encoding="utf-8")).text
    assert latex(label) in report.with_suffix(".tex").read_text(encoding="utf-8")
    data = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    assert data["methods"][0]["method"] == label
    assert r"fold\xe9" in data["run"]["command"]


@pytest.mark.parametrize("name", ["=cmd|calc!A0.png", "+1.png", "@SUM(1).png", "-2.png"])
def test_no_name_becomes_a_formula_of_a_spreadsheet(evaluated, folder, name):
    (folder / "0.png").rename(folder / name)
    _, report = evaluated()
    rows = list(csv.DictReader(io.StringIO(report.with_suffix(".csv").read_text(encoding="utf-8"))))
    assert f"'{name}" in {row["face"] for row in rows}
    assert name not in {row["face"] for row in rows}
    assert all(float(row["mse"]) > 0 for row in rows if row["status"] == "measured")


def test_csv_and_json_say_what_the_table_says(evaluated):
    result, report = evaluated("--json")
    data = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == data
    assert data["faces"]["files"] == 7
    assert data["faces"]["different"] == 5
    rows = list(csv.DictReader(io.StringIO(report.with_suffix(".csv").read_text(encoding="utf-8"))))
    for method in data["methods"]:
        values = [float(row["mse"]) for row in rows if row["method"] == method["method"] and row["status"] == "measured"]
        assert method["figures"]["mse"]["mean"] == pytest.approx(np.mean(values))
        low, high = method["figures"]["mse"]["interval"]
        assert low <= method["figures"]["mse"]["mean"] <= high
        assert len(values) == method["measured"] == 4
    assert {row["status"] for row in rows} == {"measured", "failed", "duplicate"}
    assert {metric["key"]: metric["range"][1] for metric in data["metrics"]} == {"mse": 4.0, "psnr": None}
    assert data["methods"][0]["settings"]["weights_sha256"] in report.read_text(encoding="utf-8")


def test_the_table_in_the_terminal_has_methods_as_columns(evaluated):
    result, _ = evaluated()
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert lines[0] == "| | tiny-encoder.safetensors | projector |"
    assert lines[2] == "| faces | 4 | 4 |"
    assert lines[3].startswith("| MSE ↓ | ")
    assert "1 of 5 faces failed, the first: torn.png" in result.stderr


def test_the_same_faces_give_the_same_files_again(evaluated):
    _, report = evaluated()
    before = report.with_suffix(".csv").read_bytes()
    report.with_suffix(".csv").unlink()
    evaluated()
    assert report.with_suffix(".csv").read_bytes() == before


def test_published_tables_stand_beside_and_say_so(evaluated):
    result, report = evaluated("--published", "ganinverter")
    page = Page(report.read_text(encoding="utf-8"))
    assert "Published figures" in page.text
    assert "Figures of another protocol do not compare" in page.text
    assert "20.5940" in page.text
    assert "(published)" in result.stdout
    assert json.loads(report.with_suffix(".json").read_text())["published"][0]["key"] == "ganinverter"
    assert evaluated("--published", "gan")[0].exit_code == 1


def test_a_report_that_cannot_be_written_is_an_error_in_words(evaluated, tmp_path):
    (tmp_path / "file").touch()
    result, _ = evaluated("--report", tmp_path / "file" / "report.html", "--manifest", tmp_path / "m.sqlite")
    assert "cannot be written" in str(result.exception)


def test_a_report_must_be_a_page(evaluated):
    result, _ = evaluated("--report", "report.pdf")
    assert result.exit_code == 2
    assert "ends in .html" in result.output


@pytest.mark.parametrize("suffix", [".html", ".csv", ".json", ".tex"])
def test_no_file_of_the_report_takes_the_place_of_the_manifest(evaluated, tmp_path, suffix):
    manifest = tmp_path / "out" / f"report{suffix}"
    result, _ = evaluated("--manifest", manifest)
    assert result.exit_code == 2
    assert "would overwrite it" in " ".join(result.output.split())
    assert not manifest.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--space", "foo"], "'foo' is not one of 'w', 'w_plus'"), (["--edit", "x=2@mouth"], "leave @mouth out")],
)
def test_what_no_method_can_do_is_refused_before_any_work(evaluated, arguments, words):
    result, report = evaluated(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not report.parent.exists()


def compare(*rows, higher_is_better=False):
    """Mark methods by their figures of each face; returns the marks, and why there are none."""
    metric = Description("m", "metric", higher_is_better, 0.0, 1.0)
    (method,) = parse_methods(["projector"])
    methods = [MethodSummary(method, str(row), np.array([row], float), np.zeros(0), 0) for row in rows]
    found, unmarked = _compare(methods, [metric], seed=0)
    return [method.marks[0] for method in found], unmarked


NONE = np.nan


def test_methods_are_compared_on_the_faces_that_both_have():
    assert compare([0.2, 0.2, 0.9, 0.9], [0.1, 0.1, 0.8, 0.8]) == (["", "best"], {})
    # The mean of the first is lower, since it failed on the hard faces; the second is better on each that both have.
    assert compare([0.2, 0.2, NONE, NONE], [0.1, 0.1, 0.8, 0.8]) == (["", "best"], {})
    assert compare([0.2, 0.2, NONE, NONE], [0.1, 0.1, 0.8, 0.8], higher_is_better=True) == (["best", ""], {})
    assert compare([0.2, 0.1, NONE, NONE], [0.1, 0.2, 0.1, 0.1], [0.5, 0.5, 0.6, NONE]) == (["best", "tied", ""], {})
    assert compare([np.inf, 30.0, 20.0], [25.0, 30.0, 20.0], higher_is_better=True)[0][0] == "best"


def test_methods_with_too_few_faces_in_common_are_not_marked():
    assert compare([0.2], [0.1]) == (["", ""], {"metric": "methods have fewer than two faces in common"})
    assert compare([0.2, 0.2, NONE], [NONE, 0.1, 0.8])[0] == ["", ""]
    assert compare([0.2, 0.2], [NONE, NONE]) == (["", ""], {})
    circle = ([1.0, 1.0, NONE, NONE, 3.0, 3.0], [2.0, 2.0, 1.0, 1.0, NONE, NONE], [NONE, NONE, 2.0, 2.0, 1.0, 1.0])
    assert compare(*circle)[0] == ["", "", ""]
    assert "no method is the best in every pair" in compare(*circle)[1]["metric"]


def test_faces_without_a_value_have_no_place_and_infinite_ones_the_first():
    assert _in_order(np.array([np.inf, 30.0, np.nan, 20.0]), higher_is_better=True) == [0, 1, 3]
    assert _in_order(np.array([0.2, np.nan, 0.1]), higher_is_better=False) == [2, 0]


def test_latex_is_escaped():
    assert latex(r"a_b & 50% {x} \ ~ ^ ↓ #1 $") == (
        r"a\_b \& 50\% \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} $\downarrow$ \#1 \$"
    )


def test_a_quotation_mark_needs_no_package_of_latex():
    assert latex('a"b') == r"a\char34{}b"


def test_numbers_have_four_digits_that_count():
    assert [digits_of([value]) for value in (14.2, 0.05, 0.9, 297.0, 0.0)] == [2, 5, 4, 1, 4]
    assert number(float("nan"), 3) == "n/a"
    assert number(float("inf"), 3) == "∞"


def test_what_cannot_be_printed_is_escaped():
    assert shown(os.fsdecode(b"a\xff\n\x1b[31m.png")) == r"a\xff\n\x1b[31m.png"


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0], [0.0, 1e-9], [-5e6, 5e6], list(range(40))])
def test_charts_draw_any_values(values):
    values = np.array(values, dtype=float)
    spread = Spread("<b>", values, Estimate(float(values.mean()), float(values.min()), float(values.max()), len(values)))
    text = distribution("t", "u", [spread, Spread("none", np.empty(0), Estimate(np.nan, np.nan, np.nan, 0))], 3)
    page = Page(text)
    assert page.open == []
    assert "nan" not in re.sub(r'aria-label="[^"]*"', "", text)
    assert not page.of("b")


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_report_as_it_should_be(evaluated, tmp_path):
    _, report = evaluated()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"]
    flags += ["--disable-background-networking", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    picture = tmp_path / "page.png"
    for theme, background in (("light", 255), ("dark", 22)):
        extra = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
        command = [BROWSER, *flags, *extra, "--window-size=1000,800", f"--screenshot={picture}", report.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        assert abs(int(pixels[4, 4].max()) - background) < 8, theme
        assert pixels.std() > 5
    dom = subprocess.run(
        [BROWSER, *flags, "--dump-dom", report.as_uri()], check=True, capture_output=True, timeout=120
    ).stdout
    page = Page(dom.decode())
    assert not page.of("script")
    assert HOSTILE in page.text
