"""What is in the files of pSp, e4e and ReStyle? A decoder in rosinality's names, and the mean of W as one row a layer."""

from __future__ import annotations

from typing import Any

from pretrained.pickles import Record
from pretrained.torchfiles import TensorRecord

DECODER = "decoder."


def decoder_of(value: Any) -> dict[str, TensorRecord] | None:
    """Return the tensors of the decoder, or nothing where the file holds none."""
    state = value.get("state_dict") if isinstance(value, dict) else None
    if not isinstance(state, dict):
        return None
    names = [name for name in state if isinstance(name, str) and name.startswith(DECODER)]
    return {name.removeprefix(DECODER): state[name] for name in names if isinstance(state[name], TensorRecord)} or None


def family_of(value: dict[Any, Any]) -> str:
    """Name the project that a file is from, as far as its options tell."""
    options = value.get("opts")
    if isinstance(options, Record):
        options = options.state
    options = options if isinstance(options, dict) else {}
    if "n_iters_per_batch" in options:
        return "ReStyle"
    if options.keys() & {"progressive_steps", "stylegan_size", "delta_norm_lambda"}:
        return "e4e"
    return "pSp" if options else "pSp, e4e or ReStyle"
