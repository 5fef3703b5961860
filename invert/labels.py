"""What does a user know about faces that no scorer can tell? Labels as a table, and scorers as functions.

A table of labels is a CSV with a head. Its column ``index`` (or ``file`` or ``image``) names the sample: its number, or its
picture's name, such as ``000012.png``. The column of the direction's name, else the only other one, has the label: a number,
1 and 0 for yes and no, or any score. Samples without a row are left out. Without an ``index`` there must be a row for each.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from editing.errors import TrainingDataError
from invert.age_and_gender import ScorerError
from invert.attributes import FaceReading, Scorer
from pretrained.errors import BrokenFile

INDEX_COLUMNS = ("index", "file", "image")


def read_labels(path: Path, name: str, count: int) -> Float[Tensor, " n"]:
    """Read one label for each of ``count`` samples; NaN for those that have no row.

    Args:
        path: of the CSV.
        name: of the direction, which may be a column's.
        count: how many samples there are.

    Raises:
        BrokenFile: the file cannot be read as a table.
        TrainingDataError: no column of labels, a label that is no number, a sample that there is not or that is labelled
            twice, or another number of rows than samples; the line is named.
    """
    head, rows = _read_table(path)
    index = next((column for column in INDEX_COLUMNS if column in head), None)
    column = _label_column(path, head, index, name)
    if index is None and len(rows) != count:
        raise TrainingDataError(
            f"{path}: {len(rows)} labels for {count} samples: give one for each, or a column 'index' that says whose"
        )
    labels = torch.full((count,), math.nan)
    for number, row in enumerate(rows):
        where = f"{path}, line {number + 2}"
        sample = number if index is None else _sample(where, row[head.index(index)], count)
        if not bool(labels[sample].isnan()):
            raise TrainingDataError(f"{where}: sample {sample} is labelled twice")
        labels[sample] = _label(where, row[head.index(column)])
    return labels


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            lines = [line for line in csv.reader(text) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenFile(f"{path}: expected a CSV file of labels, which could not be read ({error})") from error
    if len(lines) < 2:
        raise TrainingDataError(f"{path}: no labels in it: expected a head, such as index,label, and a line for each sample")
    head = [cell.strip() for cell in lines[0]]
    for number, line in enumerate(lines[1:]):
        if len(line) != len(head):
            raise TrainingDataError(f"{path}, line {number + 2}: {len(line)} cells, the head has {len(head)}")
    return head, lines[1:]


def _label_column(path: Path, head: list[str], index: str | None, name: str) -> str:
    others = [column for column in head if column != index]
    if name in others:
        return name
    if len(others) != 1:
        raise TrainingDataError(f"{path}: which column has the labels? expected one named {name!r}, got {', '.join(others)}")
    try:
        float(others[0])
    except ValueError:
        return others[0]
    raise TrainingDataError(f"{path}: its first line is {','.join(head)!r}: expected a head, such as index,label")


def _sample(where: str, text: str, count: int) -> int:
    match = re.fullmatch(r"(\d{1,9})(\.\w+)?", Path(text.strip()).name, re.ASCII)
    if match is None or int(match[1]) >= count:
        raise TrainingDataError(f"{where}: {text.strip()[:60]!r} is no sample: expected a number from 0 to {count - 1}")
    return int(match[1])


def _label(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TrainingDataError(
            f"{where}: the label is {text.strip()[:60]!r}, expected a number; leave out what is not known"
        )
    return value


def import_scorer(text: str) -> Scorer:
    """Import a user's own scorer, a function of a ``FaceReading``: ``module:function``, from the current folder too.

    Raises:
        ScorerError: there is no such module or function, or it cannot be called.
    """
    module_name, sign, function_name = text.partition(":")
    if not sign or not module_name or not function_name:
        raise ScorerError(f"scorer {text!r}: expected MODULE:FUNCTION, such as my_scorers:brightness")
    try:
        function = getattr(_import(module_name), function_name, None)
    except ImportError as error:
        raise ScorerError(f"scorer {text!r}: the module {module_name!r} cannot be imported ({error})") from error
    if not callable(function):
        raise ScorerError(f"scorer {text!r}: {module_name} has no function {function_name!r}")
    return _checked(text, function)


def _import(name: str) -> ModuleType:
    """Import a module, a file of the current folder before any that is installed."""
    file = Path(*name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(name, file) if file.is_file() else None
    if spec is None or spec.loader is None:
        return importlib.import_module(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(text: str, function: Callable[[FaceReading], Any]) -> Scorer:
    def score(reading: FaceReading) -> float:
        value = function(reading)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ScorerError(f"scorer {text!r} returned {value!r:.80}, expected one number for each face") from None

    return score
