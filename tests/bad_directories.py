"""What may be wrong with a model directory: how each is made of a good one, and words of what is said about it."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - to make what must not be read
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests import directories

Case = tuple[Callable[[Path], object], str, str]
"""What is done to a good directory, words of the rule, words of the remedy."""

TENSORS = directories.tensors_of(directories.CONFIG)
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"


def config(**changes: Any) -> Callable[[Path], object]:
    """config.json says otherwise; a value of None takes the key away."""
    values = {key: value for key, value in {**directories.CONFIG, **changes}.items() if value is not None}
    return lambda path: directories.write_json(path / "config.json", values)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(content)


def weights(change: Callable[[dict[str, torch.Tensor]], object], metadata: Any = None) -> Callable[[Path], object]:
    """Other tensors in the one file."""

    def write(path: Path) -> None:
        found = dict(TENSORS)
        change(found)
        save_file(found, path / "model.safetensors", metadata=metadata)

    return write


def only(name: str, content: bytes = b"\x80\x04.") -> Callable[[Path], object]:
    """Another file in place of model.safetensors."""

    def replace(path: Path) -> None:
        (path / "model.safetensors").unlink()
        (path / name).write_bytes(content)

    return replace


def shards(change: Callable[[Path, dict[str, str]], object]) -> Callable[[Path], object]:
    """A sharded directory, of which something is changed: in its files, or in its index's map."""

    def write(path: Path) -> None:
        weight_map = directories.write_shards(path, TENSORS)
        change(path, weight_map)
        directories.write_json(path / INDEX, {"weight_map": weight_map})

    return write


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda path: os.truncate(path / name, size)


def pop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(name)


def put(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.__setitem__(name, value)


def raw_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The one file with another header, of whatever length that has."""
    data = (path / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    written = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(len(written).to_bytes(8, "little") + written + data[8 + length :])


Q, EMBED, HEAD = "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight"
SHARDED = json.dumps({Q: {"saved_offsets": [8, 0]}})

CASES: dict[str, Case] = {
    "no config.json": (lambda path: (path / "config.json").unlink(), "config.json", "name such a directory"),
    "config.json is no JSON": (text("config.json", "{"), "config.json", "publisher"),
    "config.json says a key twice": (text("config.json", '{"a": 1, "a": 2}'), "twice", "publisher"),
    "config.json is a list": (text("config.json", "[]"), "config.json", "publisher"),
    "config.json is huge": (lambda path: os.truncate(path / "config.json", 17 << 20), "more than", "publisher"),
    "another model_type": (config(model_type="bert"), "model_type = 'bert'", "families"),
    "an architecture that is a number": (config(architectures=5), "a list of names", "publisher"),
    "an architecture that is an object": (config(architectures={"A": 1}), "a list of names", "publisher"),
    "a number that no float reaches": (config(rope_theta=10**400), "a finite number", "publisher"),
    "another architecture": (
        config(architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification",
        "with its head",
    ),
    "neither model_type nor architecture": (config(model_type=None, architectures=None), "model_type", "publisher"),
    "quantised by config.json": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantization_config = 'gptq'",
        "dequantise",
    ),
    "quantised by its names": (
        weights(lambda found: found.update({Q.replace("weight", "qweight"): torch.zeros(2, 2, dtype=torch.int32)})),
        "not quantised; model.layers.1.self_attn.q_proj.qweight",
        "dequantise",
    ),
    "quantised by its dtypes": (weights(put(Q, torch.zeros(16, 16, dtype=torch.int8))), f"{Q} is int8", "dequantise"),
    "float64": (weights(put(Q, TENSORS[Q].double())), f"{Q} is float64", "float32"),
    "an unknown activation": (config(hidden_act="relu"), "hidden_act = 'relu'", "SiLU"),
    "an unknown rope": (config(rope_scaling={"rope_type": "longrope", "factor": 4.0}), "longrope", ""),
    "a dimension is missing": (config(hidden_size=None), "hidden_size", "publisher"),
    "a dimension is a text": (config(hidden_size="16"), "hidden_size = '16'", "publisher"),
    "more layers than tensors": (config(num_hidden_layers=10**11), "100,000,000,000 layers", "again"),
    "pickled": (only("pytorch_model.bin"), "pytorch_model.bin is pickled", "save_pretrained"),
    "pickled shards": (only("pytorch_model.bin.index.json"), "pickled", "save_pretrained"),
    "Meta's layout": (only("consolidated.00.pth"), "consolidated.00.pth is pickled", "save_pretrained"),
    "Mistral's layout": (only("consolidated.safetensors"), "Mistral's own", "model-"),
    "TensorFlow": (only("tf_model.h5"), "TensorFlow", "from_tf"),
    "Flax": (only("flax_model.msgpack"), "Flax", "from_flax"),
    "GGUF": (only("model-q4.gguf"), "GGUF", "name the file"),
    "an adapter": (only("adapter_config.json", b"{}"), "adapter", "adapter.init_from="),
    "a variant": (only("model.fp16.safetensors"), "another name", "rename"),
    "torch's shards": (only("shard-00001-model-00001-of-00001.safetensors"), "torch's shards", "consolidate"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "no weights", "download"),
    "a part of a tensor": (
        weights(lambda found: None, {"DCP_SHARDING_INFO": SHARDED}),
        f"a part of {Q}",
        "consolidate",
    ),
    "truncated": (cut("model.safetensors", 9000), "the file has 9,000", "again"),
    "truncated within the header": (cut("model.safetensors", 100), "header", "again"),
    "empty": (cut("model.safetensors", 0), "model.safetensors is a whole", "again"),
    "a pointer of git-lfs": (
        text("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "pointer of git-lfs",
        "git lfs pull",
    ),
    "pickle under a good name": (
        lambda path: (path / "model.safetensors").write_bytes(pickle.dumps({"a": 1})),
        "model.safetensors is a whole",
        "again",
    ),
    "a directory for a file": (
        lambda path: ((path / "model.safetensors").unlink(), (path / "model.safetensors").mkdir()),
        "no regular file",
        "again",
    ),
    "a dangling link": (
        lambda path: (
            (path / "model.safetensors").unlink(),
            (path / "model.safetensors").symlink_to(path / "../blobs/0"),
        ),
        "No such file",
        "again",
    ),
    "overlapping tensors": (
        lambda path: raw_header(path, lambda h: h[Q].update(data_offsets=h[EMBED]["data_offsets"])),
        "data_offsets",
        "again",
    ),
    "an unknown dtype": (lambda path: raw_header(path, lambda h: h[Q].update(dtype="F4")), "unknown", "again"),
    "a tensor is missing": (weights(pop(Q)), f"{Q} is missing", "of one model"),
    "a layer is missing": (
        weights(lambda found: [found.pop(name) for name in list(found) if "layers.1." in name]),
        "9 of them are, model.layers.1.self_attn.q_proj.weight first",
        "again",
    ),
    "a layer too many": (
        weights(lambda found: found.update({k.replace("s.1.", "s.2."): v.clone() for k, v in TENSORS.items()})),
        "model.layers.2.",
        "of one model",
    ),
    "a bias that has no place": (weights(put(Q.replace("weight", "bias"), torch.ones(16))), "no such tensor", "remove"),
    "another model's tensors": (
        weights(lambda found: [found.__setitem__(f"bert.{name}", found.pop(name)) for name in list(found)]),
        "it holds bert.",
        "another architecture",
    ),
    "no head": (weights(pop(HEAD)), "has a head (lm_head.weight)", "tie_word_embeddings: true"),
    "an unequal tied pair": (config(tie_word_embeddings=True), "they differ", "tie_word_embeddings: false"),
    "another shape": (weights(put(Q, torch.ones(24, 16))), f"{Q} is [16, 16] by config.json", "of one model"),
    "a larger vocabulary": (config(vocab_size=32), "config.json says 32, it has 40", "resize_token_embeddings"),
    "one file and an index": (
        lambda path: (directories.write_shards(path, TENSORS), save_file(TENSORS, path / "model.safetensors")),
        "not both",
        "older save",
    ),
    "an index that is none": (
        lambda path: (directories.write_shards(path, TENSORS), (path / INDEX).write_text("{}")),
        "index of shards",
        "again",
    ),
    "an empty index": (shards(lambda path, found: found.clear()), "weight_map is empty", "again"),
    "an absent shard": (
        shards(lambda path, found: (path / FIRST).unlink()),
        f"1 of 2 are not there, {FIRST}",
        "finish",
    ),
    "a shard elsewhere": (shards(lambda path, found: found.update({Q: f"../{FIRST}"})), "leads elsewhere", "publisher"),
    "a shard by a whole path": (
        shards(lambda path, found: found.update({Q: "/elsewhere"})),
        "elsewhere",
        "publisher",
    ),
    "a shard without a name": (shards(lambda path, found: found.update({Q: 7})), "elsewhere", "publisher"),
    "a pickled shard": (
        shards(lambda path, found: found.update({Q: "pytorch_model-1.bin"})),
        "-1.bin",
        "save_pretrained",
    ),
    "a shard of another save": (
        shards(lambda path, found: save_file({**TENSORS}, path / FIRST)),
        "holds a tensor once",
        "again",
    ),
    "a tensor that the index does not name": (shards(lambda path, found: found.pop(Q)), "also holds", "two saves"),
    "a tensor in no shard": (shards(lambda path, found: found.update({"x": FIRST})), "it is in no file", "again"),
    "a tensor in another shard": (
        shards(lambda path, found: found.update({Q: next(f for f in found.values() if f != found[Q])})),
        "has it",
        "again",
    ),
}
