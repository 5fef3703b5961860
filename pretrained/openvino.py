"""How is an OpenVINO IR read? Just enough of the format to take the constants out of MobileStyleGAN's two networks.

The XML lists layers and edges; constants point into a ``.bin`` beside it. Nothing is executed, the XML goes through
``defusedxml``, and every offset is checked against the size of the ``.bin``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from defusedxml import ElementTree
from torch import Tensor

from pretrained.errors import BrokenFile

DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "i64": np.dtype("<i8"), "i32": np.dtype("<i4")}


@dataclass(frozen=True)
class Layer:
    """One node of the graph."""

    id: str
    name: str
    type: str
    inputs: list[str]
    """Ids of the layers that feed it, in the order of its ports."""
    value: Tensor | None
    """What a constant holds."""


class Graph:
    """A network as its layers, by id and by name, and who uses whom."""

    def __init__(self, xml: bytes, weights: bytes) -> None:
        try:
            self._read(xml, weights)
        except (ElementTree.ParseError, LookupError, ValueError, AttributeError, OverflowError) as error:
            raise BrokenFile(f"not a readable OpenVINO network: {type(error).__name__}: {error}") from error

    def _read(self, xml: bytes, weights: bytes) -> None:
        # Entities, which could be told to grow without end, are a ValueError of defusedxml.
        root = ElementTree.fromstring(xml)
        edges: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.users: dict[str, list[str]] = defaultdict(list)
        for edge in root.iter("edge"):
            edges[edge.attrib["to-layer"]].append((int(edge.attrib["to-port"]), edge.attrib["from-layer"]))
            self.users[edge.attrib["from-layer"]].append(edge.attrib["to-layer"])
        self.layers: dict[str, Layer] = {}
        for node in root.iter("layer"):
            key, kind = node.attrib["id"], node.attrib["type"]
            inputs = [source for _, source in sorted(edges[key])]
            value = self._constant(node.find("data").attrib, weights) if kind == "Const" else None
            self.layers[key] = Layer(key, node.attrib["name"], kind, inputs, value)
        for source, users in self.users.items():
            if unknown := {source, *users} - self.layers.keys():
                raise BrokenFile(f"OpenVINO network has an edge, but no layer {min(unknown)!r}")
        self.by_name = {layer.name: layer for layer in self.layers.values()}

    @staticmethod
    def _constant(data: dict[str, str], weights: bytes) -> Tensor:
        shape = tuple(int(n) for n in data["shape"].split(",") if n.strip())
        dtype, offset, size = DTYPES[data["element_type"]], int(data["offset"]), int(data["size"])
        if (
            offset < 0
            or min(shape, default=0) < 0
            or size != math.prod(shape) * dtype.itemsize
            or offset + size > len(weights)
        ):
            raise BrokenFile(f"OpenVINO constant of shape {shape} at {offset} does not fit its file of {len(weights)} bytes")
        values = np.frombuffer(weights[offset : offset + size], dtype)
        return torch.from_numpy(values.astype(dtype.newbyteorder("=")).reshape(shape))

    def named(self, name: str) -> Layer:
        """Return the layer of a name."""
        if name not in self.by_name:
            raise BrokenFile(f"OpenVINO network has no layer {name!r}")
        return self.by_name[name]

    def constant(self, name: str) -> Tensor:
        """Return the constant of a name."""
        value = self.named(name).value
        if value is None:
            raise BrokenFile(f"OpenVINO layer {name!r} is no constant")
        return value

    def next(self, layer: Layer, *types: str) -> Layer | None:
        """Return the only user of a layer that has one of the types, if there is one."""
        found = [self.layers[user] for user in self.users[layer.id] if self.layers[user].type in types]
        return found[0] if len(found) == 1 else None

    def operand(self, layer: Layer) -> Tensor:
        """Return the one constant input of a layer."""
        values = [value for source in layer.inputs if (value := self.layers[source].value) is not None]
        if len(values) != 1:
            raise BrokenFile(f"OpenVINO layer {layer.name!r} has {len(values)} constant inputs, expected 1")
        return values[0]
