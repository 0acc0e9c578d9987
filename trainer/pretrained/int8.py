"""Weight-only INT8 in a directory: which tensors are so, how their scales are called, what config.json says. No torch.

A matrix ``x.weight`` is int8, and ``x.scale`` beside it FP32: [rows, 1], of GPT-2's transposed ones [1, columns], so
that ``weight * scale`` is the matrix. These are the names, shapes and dtypes of neuronx-distributed's quantized layers
(quantization_utils.convert_qint8_to_int8_state_dict).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainer.checkpoint.tensorfile import Entry
from trainer.pretrained.files import Held
from trainer.pretrained.format import FileTensor
from trainer.pretrained.refused import AGAIN, refused

WEIGHT, SCALE = ".weight", ".scale"
SCHEME = "trainer_int8_v1"
"""Of config.json's quantization_config.format."""
ALL, LINEAR = "all", "linear"
"""What is quantised: every matrix of tokens or of a linear layer; or those of linear layers inside the layers only, as
NxD Inference takes them, with embedding and head as they are."""
TOKENS = ("model.embed_tokens.weight", "lm_head.weight")
"""Canonical names of the matrices whose rows are tokens."""
POSITIONS = "model.embed_positions.weight"
"""Learned positions stay FP32: half a percent of GPT-2, added to every token's vector."""


def scale_name(name: str) -> str:
    """Of a quantised tensor's scales."""
    return name.removesuffix(WEIGHT) + SCALE


def scale_shape(tensor: FileTensor) -> tuple[int, int]:
    """One for each output channel: a row of the parameter, which is a column of a transposed tensor."""
    return (1, tensor.shape[1]) if tensor.transposed else (tensor.shape[0], 1)


def is_quantised(tensor: FileTensor, which: str) -> bool:
    """Whether an export has it in INT8. Norms and biases never are. which: ALL or LINEAR."""
    canonical = tensor.parts[0].name
    if len(tensor.shape) != 2 or not tensor.name.endswith(WEIGHT) or canonical == POSITIONS:
        return False
    return which == ALL or canonical not in TOKENS


def quantization_config(tensors: Iterable[FileTensor], which: str) -> dict[str, Any]:
    """What config.json says.

    It has no quant_method on purpose: transformers 4.48 and 5 raise ValueError where that is absent. An unknown one
    they pass over with a warning, and load int8 values as if they were the weights.
    """
    kept = [one.name.removesuffix(WEIGHT) for one in tensors if one.parts[0].name in TOKENS]
    return {
        "format": SCHEME,
        "bits": 8,
        "quantized_dtype": "int8",
        "quantization_type": "per_channel_symmetric",
        "rule": "matrix = x.weight * x.scale; scale = largest absolute value of an output channel / 127; of zeros: 1",
        "modules_to_not_convert": [] if which == ALL else kept,
    }


def is_ours(values: Mapping[str, Any]) -> bool:
    """Whether a config.json says that its weights are such."""
    said = values.get("quantization_config")
    return isinstance(said, Mapping) and said.get("format") == SCHEME and said.get("quant_method") is None


def split_scales(
    path: object, expected: Mapping[str, FileTensor], held: Mapping[str, Held]
) -> tuple[dict[str, Held], dict[str, Held]]:
    """A directory's tensors without scales, and the scales by the name of their matrix.

    Raises ConfigError where an int8 matrix has none, or one of another shape or dtype, or where a scale has no matrix.
    """
    weights = dict(held)
    scales: dict[str, Held] = {}
    for name, one in held.items():
        if one.entry.dtype != "int8" or name not in expected:
            continue
        wanted, beside = expected[name], scale_name(name)
        found = weights.pop(beside, None)
        if found is None or len(wanted.shape) != 2:
            raise refused(str(path), f"an int8 matrix has its scales beside it; {name} has no {beside}", AGAIN)
        if (found.entry.dtype, found.entry.shape) != ("float32", scale_shape(wanted)):
            rule = f"{beside} is float32 {list(scale_shape(wanted))}"
            raise refused(str(path), f"{rule}; it is {_said(found.entry)}", AGAIN)
        scales[name] = found
    return weights, scales


def _said(entry: Entry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"
