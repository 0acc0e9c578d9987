"""A GGUF file as initial weights: dimensions from its metadata, its tensors by our names. Headers alone, without torch.

llama.cpp stores the rows of Llama's queries and keys with the two halves of a rotary pair side by side; those of Qwen
as they are.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound
from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.errors import ConfigError
from trainer.pretrained.config_json import read_config
from trainer.pretrained.gguf_header import Header, Placed, read_header
from trainer.pretrained.refused import AGAIN, refused
from trainer.pretrained.shapes import parameter_shapes

SUFFIX = ".gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Of llama.cpp, by the same names in config.json. Mistral's files say llama."""
PERMUTED = ("llama",)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
KEYS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""After the architecture's name -> config.json's."""
REQUIRED = [key for key in KEYS if key not in ("attention.head_count_kv", "attention.key_length", "rope.freq_base")]
NEUTRAL = {"expert_count": 0, "rope.scale_linear": 1.0, "attention.sliding_window": 0}
"""What has no other value in a model that the decoder computes."""
FACTORS = "rope_freqs.weight"
LLAMA3 = RopeScalingConfig("llama3", 8.0, 8192, 1.0, 4.0)
"""Of Llama 3.1 to 3.3, but for the factor: the file has only the factors of the frequencies."""
OTHER = "take the directory that it was made from, or save it with transformers (from_pretrained(it, gguf_file=...))"
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class GgufTensor:
    """A parameter in the file. heads: as many groups of rows are permuted; None where they lie as they are."""

    placed: Placed
    heads: int | None


@dataclass(frozen=True)
class GgufFile:
    """tensors: by canonical name."""

    path: Path
    model: ModelConfig
    tensors: Mapping[str, GgufTensor]


def open_gguf(path: Path) -> GgufFile:
    """Raises ConfigError, with one problem of key model.init_from, for what is not sound or not computed here."""
    if SPLIT.search(path.name):
        rule = "is one file; it is a part of several"
        raise refused(path, rule, "merge them: llama-gguf-split --merge FIRST-PART WHOLE.gguf")
    try:
        header = read_header(path)
    except (Unsound, OSError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise refused(path, f"is a whole GGUF file of known types ({what})", AGAIN) from None
    architecture = header.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        rule = f"has an architecture of {', '.join(ARCHITECTURES)}; its metadata says {architecture!r}"
        raise refused(path, rule, OTHER)
    if header.metadata.get("split.count", 0) not in (0, 1):
        raise refused(path, "is one file; it is a part of several", "merge them: llama-gguf-split --merge")
    model = _model(path, header, architecture)
    return GgufFile(path, model, _tensors(path, model, header, architecture in PERMUTED))


def fingerprint_of(path: Path) -> str:
    """Of the header, which has metadata, names, types, shapes and places."""
    size = read_header(path).size
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def shortest(value: float) -> float:
    """The shortest decimal that is this FP32 number: 9.999999747378752e-06 is 1e-05."""
    bits = struct.pack("<f", value)
    return next(float(f"{value:.{n}g}") for n in range(1, 18) if struct.pack("<f", float(f"{value:.{n}g}")) == bits)


def _model(path: Path, header: Header, architecture: str) -> ModelConfig:
    said = {
        key.removeprefix(f"{architecture}."): value
        for key, value in header.metadata.items()
        if key.startswith(f"{architecture}.")
    }
    for key, neutral in NEUTRAL.items():
        if said.get(key) not in (None, neutral):
            raise refused(path, f"{architecture}.{key} is {neutral}: nothing else is read; it is {said[key]}", OTHER)
    values: dict[str, Any] = {new: _plain(said[old]) for old, new in KEYS.items() if old in said}
    if absent := [key for key in REQUIRED if key not in said]:
        raise refused(path, f"its metadata has {architecture}.{absent[0]}; it has not", AGAIN)
    turned = said.get("rope.dimension_count")
    if turned is not None and values.setdefault("head_dim", turned) != turned:
        rule = f"whole heads are turned: rope.dimension_count is {values['head_dim']}; it is {turned}"
        raise refused(path, rule, OTHER)
    values |= {"model_type": architecture, "vocab_size": _vocabulary(path, header, said.get("vocab_size"))}
    values["tie_word_embeddings"] = "output.weight" not in header.tensors
    values |= _scaling(path, said)
    try:
        family, fields = read_config(values)
    except ConfigError as error:
        found = error.problems[0]
        rule = f"its metadata describes a model: {found.key} is {found.rule}; it has {found.value!r}"
        raise refused(path, rule, OTHER) from None
    model = ModelConfig(name=path.stem, family=family, **fields)
    if FACTORS not in header.tensors:
        return model
    return replace(model, rope_scaling=_from_factors(path, model, header.tensors[FACTORS]))


def _plain(value: Any) -> Any:
    return shortest(value) if isinstance(value, float) and math.isfinite(value) else value


def _vocabulary(path: Path, header: Header, stated: Any) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise refused(path, "has an embedding, token_embd.weight; it has none", AGAIN)
    rows = embedding.shape[0]
    if stated not in (None, rows):
        raise refused(path, f"token_embd.weight has vocab_size rows, {stated!r}; it has {rows:,}", AGAIN)
    return rows


def _scaling(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """rope_scaling of config.json."""
    kind = said.get("rope.scaling.type", "none")
    if kind == "none":
        return {}
    if kind == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": _plain(said.get("rope.scaling.factor"))}}
    raise refused(path, f"its rope.scaling.type is none or linear; it is {kind}", OTHER)


def _from_factors(path: Path, model: ModelConfig, placed: Placed) -> RopeScalingConfig:
    """Llama 3's scaling, whose largest factor is the factor."""
    size = head_dim(model)
    with open(path, "rb") as file:
        file.seek(placed.start)
        data = file.read(placed.bytes)
    if placed.kind == "F32" and placed.shape == (size // 2,):
        found = struct.unpack(f"<{size // 2}f", data)
        factor = shortest(max(found)) if all(1 <= one < math.inf for one in found) else 0.0
        scaling = replace(LLAMA3, factor=factor or LLAMA3.factor)
        wanted = list(_factors(model.rope_theta, size, scaling))
        if factor and all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(found, wanted, strict=True)):
            return scaling
    raise refused(path, f"{FACTORS} has the factors of Llama 3.1 to 3.3; they are others", OTHER)


def _factors(theta: float, size: int, scaling: RopeScalingConfig) -> Iterator[float]:
    """By which each frequency is divided."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    for index in range(0, size, 2):
        turns = scaling.original_max_positions / (2 * math.pi * theta ** (index / size))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        yield 1 / ((1 - share) / scaling.factor + share)


def _tensors(path: Path, model: ModelConfig, header: Header, permuted: bool) -> dict[str, GgufTensor]:
    if model.layers > len(header.tensors):
        rule = f"holds {model.layers:,} layers, as its metadata says; it has {len(header.tensors):,} tensors"
        raise refused(path, rule, AGAIN)
    heads = {"q_proj": model.heads, "k_proj": model.kv_heads} if permuted else {}
    found: dict[str, GgufTensor] = {}
    for name, shape in parameter_shapes(model).items():
        theirs = _their_name(name)
        placed = header.tensors.get(theirs)
        if placed is None:
            raise refused(path, f"holds the tensors of its architecture; {theirs} is missing", AGAIN)
        if placed.shape != shape:
            raise refused(path, f"{theirs} is {list(shape)} by its metadata; it is {list(placed.shape)}", AGAIN)
        found[name] = GgufTensor(placed, heads.get(name.split(".")[-2]))
    known = {*map(_their_name, found), FACTORS}
    if others := [name for name in header.tensors if name not in known]:
        rule = f"holds the tensors of {model.family} and no others; {others[0]} ({len(others):,} in all)"
        raise refused(path, rule, OTHER)
    return found


def _their_name(name: str) -> str:
    parent, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", parent)
    return f"{NAMES[parent]}.{kind}" if layer is None else f"blk.{layer[1]}.{NAMES[layer[2]]}.{kind}"
