"""Which methods are compared? Their names with all settings that figures depend on, and how each becomes an inverter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from generators.base import Generator
from generators.errors import UnknownName
from invert.errors import MethodError
from invert.inversion import Inverter
from invert.inverters import encoder_beside, load_inverter, method_names
from invert.perceptual import Perceptual
from invert.presets import AUTO, PROJECTOR
from pretrained.cache import sha256
from pretrained.shipped import encoder_names

LOOKS = "@"
"""Behind a method, before a number: how often its encoder looks at each face."""
TUNED = "+pti"
"""Behind a method: the generator is tuned to each face (pivotal tuning inversion)."""


@dataclass(frozen=True)
class Method:
    """A column of the table."""

    spec: str
    """As the user wrote it: ``stylemap``, ``stylemap@3``, ``stylemap+30``, ``stylemap@3+60+pti60``, ``projector``, or a
    file."""
    base: str
    """Without looks, refinement and tuning."""
    looks: int
    """Of an encoder at each face; 0: as many as its own."""
    refine: int
    """Projector steps after an encoder."""
    tune: int
    """Steps of tuning the generator to each face."""
    steps: int
    """Of the projector alone."""
    space: str
    """Of the projector alone."""
    weights_sha256: str
    """Of the encoder's file; empty for the projector. ``of`` makes it that of the generator's own, where that has one."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else its figures depend on, the same for all methods: generator, seed, threads, versions."""

    @property
    def own_settings(self) -> dict[str, Any]:
        """What its figures depend on; all that belongs to others is left out."""
        own: dict[str, Any] = {"method": self.base, "weights_sha256": self.weights_sha256, "refine": self.refine}
        if self.base == PROJECTOR:
            own = {"method": PROJECTOR, "steps": self.steps, "space": self.space}
        own |= {name: value for name, value in (("tune", self.tune), ("looks", self.looks)) if value}
        shared = self.settings if self.is_optimised else {k: v for k, v in self.settings.items() if k != "loss"}
        return own | shared

    @property
    def is_optimised(self) -> bool:
        """Whether a loss is minimised for each face."""
        return self.base == PROJECTOR or self.refine > 0 or self.tune > 0

    @property
    def key(self) -> str:
        """Names the method in the manifest: equal settings, equal key."""
        # A file's name says nothing about what is in it.
        named = self.own_settings | ({"method": "encoder"} if self.weights_sha256 else {})
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    def of(self, generator: Generator) -> Method:
        """Tell the encoder by the file that ``load_inverter`` takes it from, which may be the generator's own."""
        beside = encoder_beside(self.base, generator)
        return self if beside is None else replace(self, weights_sha256=sha256(beside))

    def load(self, generator: Generator, perceptual: Perceptual | None) -> Inverter:
        """Make the inverter; see ``load_inverter`` for what can go wrong."""
        return load_inverter(
            self.base,
            generator,
            looks=self.looks or None,
            space=self.space,
            steps=self.steps,
            refine=self.refine,
            tune=self.tune,
            perceptual=perceptual,
        )


def parse_methods(specs: Sequence[str], steps: int = 100, space: str = "w_plus") -> list[Method]:
    """Read what ``--methods`` takes; the same method twice is one.

    Args:
        specs: ``NAME``, ``NAME@K`` (K looks), ``NAME+N`` (N steps of refinement), ``NAME+ptiM`` (M of tuning), or several
            of these in this order; NAME is one of ``method_names()`` or an encoder's file.
        steps: of the projector.
        space: of the projector.

    Raises:
        UnknownName: neither a method nor a file; close names are given.
        MethodError: no methods, or a malformed refinement.
    """
    methods = [_parse(spec.strip(), steps, space) for spec in specs if spec.strip()]
    if not methods:
        raise MethodError(f"no methods: name one or more of {', '.join(_named())}, as in stylemap,stylemap+30,projector")
    return each_once(methods)


def each_once(methods: Iterable[Method]) -> list[Method]:
    """Leave out methods with the key of an earlier one."""
    unique: dict[str, Method] = {}
    for method in methods:
        unique.setdefault(method.key, method)
    return list(unique.values())


def _named() -> list[str]:
    """Return the methods that a table can name: ``auto`` is none of its own."""
    return [name for name in method_names() if name != AUTO]


def _parse(spec: str, steps: int, space: str) -> Method:
    base, looks, refine, tune = spec, "0", "0", "0"
    if not Path(base).is_file() and TUNED in base:
        base, _, tune = base.rpartition(TUNED)
    if not Path(base).is_file() and "+" in base:
        base, _, refine = base.rpartition("+")
    if not Path(base).is_file() and LOOKS in base:
        base, _, looks = base.rpartition(LOOKS)
        looks = "" if looks == "0" else looks
    if not (looks.isdecimal() and refine.isdecimal() and tune.isdecimal()):
        raise MethodError(
            f"method {spec!r}: expected a number of looks, 1 or more, behind '{LOOKS}', of refining steps behind '+', or of"
            f" tuning steps behind '{TUNED}', as in stylemap{LOOKS}3, stylemap+30 and stylemap+60{TUNED}60"
        )
    file = encoder_names().get(base, Path(base))
    if base == PROJECTOR and (int(refine) or int(looks)):
        raise MethodError(
            f"method {spec!r}: the projector's steps are set by --steps; '+N' and '{LOOKS}N' are for an encoder's code"
        )
    if base == AUTO:
        raise MethodError(f"method {spec!r}: a table names its methods: take one or more of {', '.join(_named())}")
    if base not in _named() and not file.is_file():
        raise UnknownName("method (nor is there such a file)", base, _named())
    weights = sha256(file) if base != PROJECTOR and file.is_file() else ""
    return Method(spec, base, int(looks), int(refine), int(tune), steps, space, weights)
