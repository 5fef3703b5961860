"""Does the README tell the truth? Its commands are parsed, its names looked up, and its Python examples run."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest


@pytest.fixture
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def blocks(readme, language):
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def test_the_test_command_is_where_ci_looks_for_it(readme, repository):
    script = (repository / ".ci/run").read_text()
    extract = re.search(r"command=\$\((sed .*)\)$", script, re.MULTILINE).group(1)
    command = subprocess.run(["bash", "-c", extract], capture_output=True, text=True, check=True, cwd=repository).stdout
    assert command.strip() == "pip install '.[test]' && python -m pytest"


def test_every_command_that_it_shows_exists(readme):
    from invert.cli.main import VERBS

    table = re.findall(r"^\| `stylegan-invert (?:\[run\]|([a-z]+))", readme, re.MULTILINE)
    assert set(table) == (VERBS.keys() - {"run"}) | {""}


def test_every_link_leads_somewhere(readme, repository):
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        if not re.match(r"https://arxiv\.org/abs/\d{4}\.\d{5}$", target):
            assert (repository / target).exists(), target


def test_every_command_in_its_blocks_is_understood(readme):
    from invert.cli.main import VERBS, cli

    lines = [
        line.split("stylegan-invert ")[1]
        for line in "".join(blocks(readme, "bash")).splitlines()
        if "stylegan-invert " in line
    ]
    assert len(lines) > 8
    for line in lines:
        first, *others = arguments = shlex.split(line, comments=True)
        name, arguments = (first, others) if first in VERBS else ("run", arguments)
        command = cli.get_command(click.Context(cli), name)
        command.make_context(name, arguments)


def test_the_edits_in_its_table_are_those_that_ship(readme):
    from pretrained.directions import direction_names

    table = readme.split("## Edits")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == sorted(direction_names(), key=table.index)


def test_only_public_names_are_imported_in_its_example(readme):
    import invert

    example = "".join(blocks(readme, "python"))
    names = re.search(r"from invert import (.*)", example).group(1).split(", ")
    assert set(names) <= set(invert.__all__)


def test_every_name_of_the_changelogs_api_is_public(readme):
    import invert

    listed = re.findall(r"\*API:\*(.*?)(?=\*\w+:\*|\n\n|\Z)", readme, re.DOTALL)
    names = {name for part in listed for name in re.findall(r"`(\w+)`", part)}
    assert {"read_photo"} <= names <= set(invert.__all__)


@pytest.mark.weights
@pytest.mark.shared
def test_its_example_runs(readme, default_generator, shared_folder, monkeypatch, tmp_path):
    from PIL import Image

    from invert.photo import demo_photo, read_photo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_INVERT_SHARED", str(shared_folder))
    Image.fromarray(read_photo(demo_photo())).save("photo.jpg")
    example = "".join(blocks(readme, "python"))  # The later ones go on with what the first one made.
    exec(example.replace("refine=30", "refine=1").replace('"preset": "better"', '"preset": "fast"'), {})
    assert read_photo(tmp_path / "older.jpg").shape == read_photo(demo_photo()).shape
