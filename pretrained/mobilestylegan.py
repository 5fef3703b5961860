"""How do the published MobileStyleGAN weights become ours? From the OpenVINO files of the ``random-face`` package.

Scalar gains behind the style affines are folded into them; everything else is copied as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generators.mapping import MappingNetwork
from pretrained.errors import BrokenFile
from pretrained.openvino import Graph, Layer

W_AVG_SAMPLES = 65536
"""How many z the mean of W is taken over: its error is then below 0.4 % of W's spread, and takes seconds to compute."""


def convert_mobilestylegan(
    mapping_xml: bytes, mapping_bin: bytes, synthesis_xml: bytes, synthesis_bin: bytes
) -> dict[str, Tensor]:
    """Read the two OpenVINO networks and return the state dict of a ``MobileStyleGAN``.

    Raises:
        BrokenFile: the files do not hold that architecture.
    """
    mapping, synthesis = Graph(mapping_xml, mapping_bin), Graph(synthesis_xml, synthesis_bin)
    try:
        state = _mapping_state(mapping) | _synthesis_state(synthesis)
        state["mapping.w_avg"] = mean_w(state)
    except (LookupError, ValueError, RuntimeError) as error:
        raise BrokenFile(f"the OpenVINO networks are no MobileStyleGAN: {error}") from error
    return state


def _synthesis_state(synthesis: Graph) -> dict[str, Tensor]:
    """Read the constant, the convolutions and the head by the names that the published files use."""
    state: dict[str, Tensor] = {}
    num_blocks = sum(name.endswith("up.modulation.weight") for name in synthesis.by_name)
    state["synthesis.const"] = synthesis.constant("m.input.input")
    for k in range(num_blocks):
        block = f"synthesis.blocks.{k}"
        _copy_affine(state, synthesis, f"{block}.up_modulation", f"m.layers.{k}.up")
        for layer in ("conv1", "conv2"):
            source = f"m.layers.{k}.{layer}"
            _copy_affine(state, synthesis, f"{block}.{layer}.modulation", f"{source}.conv")
            depthwise = synthesis.named(f"{source}.conv.weight_dw")
            state[f"{block}.{layer}.depthwise.weight"] = synthesis.constant(depthwise.name)[:, 0]
            pointwise = _follow(synthesis, depthwise, "GroupConvolution", "Convolution")
            state[f"{block}.{layer}.pointwise.weight"] = synthesis.operand(pointwise)
            _copy_activation(state, synthesis, f"{block}.{layer}.activation", pointwise)
    _copy_affine(state, synthesis, "synthesis.conv1.modulation", "m.conv1.conv")
    first = _follow(synthesis, synthesis.named("m.conv1.bias"), "Add")
    noisy = _input_of_type(synthesis, first, "Add")
    conv = _input_of_type(synthesis, noisy, "Convolution")
    state["synthesis.conv1.conv.weight"] = synthesis.operand(conv)
    _copy_activation(state, synthesis, "synthesis.conv1.activation", conv)
    image = f"m.layers.{num_blocks - 1}.to_img"
    _copy_affine(state, synthesis, "synthesis.to_image.modulation", f"{image}.conv")
    state["synthesis.to_image.conv.weight"] = synthesis.constant(f"{image}.conv.weight")
    state["synthesis.to_image.conv.bias"] = synthesis.constant(f"{image}.bias").reshape(-1)
    return state


def mean_w(state: dict[str, Tensor]) -> Tensor:
    """Return the mean of W over many z with a fixed seed; the published files do not hold it."""
    layers = {name.removeprefix("mapping."): value for name, value in state.items() if name.startswith("mapping.")}
    w_dim, z_dim = layers["layers.0.weight"].shape
    mapping = MappingNetwork(z_dim, w_dim, num_layers=len(layers) // 2)
    mapping.load_state_dict(layers | {"w_avg": torch.zeros(w_dim)})
    z = torch.randn(W_AVG_SAMPLES, z_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        total = torch.stack([mapping.w(part).double().sum(0) for part in z.split(4096)]).sum(0)
    return (total / W_AVG_SAMPLES).float()


def _mapping_state(graph: Graph) -> dict[str, Tensor]:
    """Read the fully connected layers in the order of the graph."""
    state: dict[str, Tensor] = {}
    products = [layer for layer in graph.layers.values() if layer.type == "MatMul"]
    for i, product in enumerate(products):
        state[f"mapping.layers.{i}.weight"] = graph.operand(product)
        add = _follow(graph, product, "Add")
        # The bias reaches its addition through a reshape.
        reshape = next((graph.layers[source] for source in add.inputs if source != product.id), add)
        bias = reshape.value if reshape.value is not None else graph.layers[reshape.inputs[0]].value
        if bias is None:
            raise BrokenFile(f"OpenVINO mapping layer {i} has no bias")
        state[f"mapping.layers.{i}.bias"] = bias.reshape(-1)
    return state


def _copy_affine(state: dict[str, Tensor], graph: Graph, target: str, source: str) -> None:
    """Copy a style affine, times the scalar constant that may follow it."""
    bias = graph.named(f"{source}.modulation.bias")
    reshape = graph.next(_follow(graph, bias, "Add"), "Reshape")
    gain = 1.0
    if reshape is not None and (product := graph.next(reshape, "Multiply")) is not None:
        factors = [value for i in product.inputs if (value := graph.layers[i].value) is not None and value.numel() == 1]
        gain = float(factors[0]) if factors else 1.0
    state[f"{target}.weight"] = graph.constant(f"{source}.modulation.weight") * gain
    state[f"{target}.bias"] = graph.constant(f"{source}.modulation.bias").reshape(-1) * gain


def _copy_activation(state: dict[str, Tensor], graph: Graph, target: str, conv: Layer) -> None:
    """Copy the noise and the bias that are added behind a convolution."""
    noise = _follow(graph, conv, "Add")
    state[f"{target}.noise"] = graph.operand(noise)
    state[f"{target}.bias"] = graph.operand(_follow(graph, noise, "Add"))[0]


def _follow(graph: Graph, layer: Layer, *types: str) -> Layer:
    """Walk along the graph through layers of the given types."""
    for kind in types:
        following = graph.next(layer, kind)
        if following is None:
            raise BrokenFile(f"OpenVINO layer {layer.name!r} is not followed by one {kind}: not the expected architecture")
        layer = following
    return layer


def _input_of_type(graph: Graph, layer: Layer, kind: str) -> Layer:
    """Return the input of a layer that has a type."""
    for source in layer.inputs:
        if graph.layers[source].type == kind:
            return graph.layers[source]
    raise BrokenFile(f"OpenVINO layer {layer.name!r} has no input of type {kind}")
