"""Do published tables say that they are published, and what their figures mean?"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from generators.errors import UnknownName
from invert.cli.literature import command
from invert.literature import PUBLISHED, PublishedTable, published_tables


def run(*args):
    return CliRunner().invoke(command, args)


@pytest.mark.parametrize("table", PUBLISHED.values(), ids=lambda table: table.key)
def test_every_table_is_marked_and_has_source_and_protocol(table):
    text = table.as_markdown()
    assert "(published)" in text
    assert f"Protocol: {table.protocol}" in text
    assert f"Source: {table.source}" in text
    assert f"Read from: {table.read_from}" in text
    assert all(column[-1] in "↑↓" for column in table.columns)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(table.columns) + 2}
    assert len(lines) == len(table.rows) + 2


def test_the_figures_that_everybody_quotes_are_there():
    assert PUBLISHED["hyperstyle"].rows["pSp"][:3] == ("0.56", "0.76", "0.17")
    assert PUBLISHED["stylemap"].rows["StyleMap (Map2Map)"] == ("0.67", "0.10", "0.02", "297")
    assert PUBLISHED["ganinverter"].rows["e4e"][1] == "0.0472"


def test_figures_have_the_digits_that_were_printed_and_no_others():
    text = PUBLISHED["hyperstyle"].as_markdown()
    assert "| 0.78 | 0.90 | 0.09 | 0.020 | 227.55 |" in text
    assert "| 0.85 | 0.92 | 0.09 | 0.015 | 55.715 |" in text
    assert "| optimisation, W | 15.8460 | 0.0670 | 0.1967 | 0.32 | 25.7447 |  |" in PUBLISHED["ganinverter"].as_markdown()
    for table in PUBLISHED.values():
        assert all(value is None or 0 < value < 1000 for row in table.as_json()["rows"].values() for value in row)


def test_the_command_prints_all_tables_or_those_that_are_named():
    everything = run()
    assert everything.exit_code == 0
    assert everything.output.count("(published)") == len(PUBLISHED)
    assert run("ganinverter").output.startswith("### GANInverter")
    assert run("ganinverter").output.count("(published)") == 1


def test_as_json_every_table_is_marked_as_published():
    tables = json.loads(run("--json").output)
    assert [table["key"] for table in tables] == list(PUBLISHED)
    assert all(table["published"] for table in tables)
    assert tables[-1]["rows"]["optimisation, W"][5] is None


def test_a_name_that_is_not_there_is_a_mistake_in_the_command():
    result = run("ganinvert")
    assert result.exit_code == 2
    assert "did you mean ganinverter" in result.output
    with pytest.raises(UnknownName):
        published_tables("ganinvert")


def test_a_method_without_a_table_of_its_own_means_those_that_have_its_figures():
    tables = json.loads(run("e4e", "hyperstyle", "--json").output)
    assert [table["key"] for table in tables] == ["hyperstyle", "ganinverter"]
    assert [table.key for table in published_tables("PTI")] == ["hyperstyle"]


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="b has 1 figures for 2 columns"):
        PublishedTable("a", "t", "s", "p", "r", ("x ↑", "y ↓"), {"b": ("1",)})
