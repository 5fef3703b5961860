"""Are OpenVINO's constants read exactly, and is no XML or offset trusted?"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.errors import BrokenFile
from pretrained.openvino import Graph

VALUES = np.arange(6, dtype="<f4")


def const(shape="2, 3", offset="0", size="24", element_type="f32", key="0"):
    data = f"<data element_type='{element_type}' shape='{shape}' offset='{offset}' size='{size}'/>"
    return f"<layer id='{key}' name='c{key}' type='Const'>{data}</layer>"


def network(*layers, edges=""):
    return f"<?xml version='1.0'?><net><layers>{''.join(layers)}</layers><edges>{edges}</edges></net>".encode()


def edge(source, target, port=0):
    return f"<edge from-layer='{source}' to-layer='{target}' to-port='{port}'/>"


def test_constants_are_read_in_their_type_and_shape():
    weights = VALUES.tobytes() + np.array([7, 8], "<i8").tobytes() + np.array(9, "<i4").tobytes()
    graph = Graph(
        network(
            const(), const("2", "24", "16", "i64", "1"), const("", "40", "4", "i32", "2"), const("0, 3", "44", "0", key="3")
        ),
        weights,
    )
    assert torch.equal(graph.constant("c0"), torch.arange(6.0).reshape(2, 3))
    assert torch.equal(graph.constant("c1"), torch.tensor([7, 8]))
    assert torch.equal(graph.constant("c2"), torch.tensor(9, dtype=torch.int32))
    assert graph.constant("c3").shape == (0, 3)
    graph.constant("c0").add_(1)  # It owns its memory.


def test_inputs_come_in_the_order_of_their_ports():
    layers = [const(key=str(k)) for k in range(2)] + ["<layer id='9' name='sum' type='Add'/>"]
    graph = Graph(network(*layers, edges=edge(0, 9, 11) + edge(1, 9, 2)), VALUES.tobytes())
    assert graph.named("sum").inputs == ["1", "0"]
    assert graph.next(graph.named("c0"), "Add") is graph.named("sum")
    assert graph.next(graph.named("c0"), "Multiply") is None
    with pytest.raises(BrokenFile, match="layer 'sum' has 2 constant inputs, expected 1"):
        graph.operand(graph.named("sum"))


def test_an_absent_layer_and_one_without_a_value_are_named():
    graph = Graph(network("<layer id='0' name='x' type='Parameter'/>"), b"")
    with pytest.raises(BrokenFile, match=r"no layer 'm\.input'"):
        graph.constant("m.input")
    with pytest.raises(BrokenFile, match="layer 'x' is no constant"):
        graph.constant("x")


@pytest.mark.parametrize(
    "layer",
    [
        const(offset="4"),
        const(offset="-24"),
        const(offset=str(2**70)),
        const(size="28"),
        const(size="20"),
        const(size="-24", shape="-6"),
        const(shape="-2, -3"),
        const(shape=f"{2**40}, {2**40}", size=str(4 * 2**80)),
        const(shape=f"0, {2**70}", size="0"),
    ],
)
def test_a_constant_outside_its_file_is_refused(layer):
    with pytest.raises(BrokenFile):
        Graph(network(layer), VALUES.tobytes())


BOMB = "<?xml version='1.0'?><!DOCTYPE net [<!ENTITY a 'aaaaaaaaaa'>{}]><net>&{};</net>".format(
    "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)), "i"
)


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<net>",
        b"<net></other>",
        b"\x80\x04 a pickle",
        b"<!DOCTYPE html><html><body>Sign in<br></body></html>",
        BOMB.encode(),
        b"<?xml version='1.0'?><!DOCTYPE n [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><net>&x;</net>",
        network("<layer id='0' name='c' type='Const'/>"),
        network("<layer id='0' name='c'/>"),
        network("<layer name='c' type='Add'/>"),
        network(const(element_type="u1")),
        network(const(shape="two, 3")),
        network(const(size="9" * 5000)),
        network(const(), edges="<edge from-layer='0'/>"),
        network(const(), edges=edge(0, 1)),
        network(const(), edges=edge(5, 0)),
        network(const(), edges=edge(0, 0, "zero")),
    ],
)
def test_malformed_and_malicious_xml_is_a_broken_file(xml):
    with pytest.raises(BrokenFile):
        Graph(xml, VALUES.tobytes())


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_random_bytes_give_a_graph_or_a_broken_file(xml):
    with contextlib.suppress(BrokenFile):
        Graph(b"<" + xml, b"")
