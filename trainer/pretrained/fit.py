"""Are a directory's tensors those of its config.json? Before anything is allocated, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from trainer.config.groups.model import ModelConfig
from trainer.pretrained.files import Held
from trainer.pretrained.format import FileTensor, Format
from trainer.pretrained.int8 import split_scales
from trainer.pretrained.refused import AGAIN, refused

FLOATS = ("float32", "bfloat16", "float16")
EMBEDDING = "model.embed_tokens.weight"
"""Canonical name of what a tied head shares."""
BLOCK = 64 << 20
"""Bytes of each that are compared at a time."""
DEQUANTISE = "dequantise it with the library that wrote it, save it with transformers, and take that directory"
PACKED = ("*.qweight", "*.qzeros", "*.scales", "*.weight_scale*", "*.weight_packed", "*.absmax", "*.SCB")
"""Names that quantisers give to what stands beside a matrix."""


def tensors_of(
    path: Path, form: Format, model: ModelConfig, found: Mapping[str, Held], int8: bool = False
) -> tuple[dict[str, Held], dict[str, Held]]:
    """The tensors of the model, by the format's names; and the scales of those that are int8, by the same names.

    int8: config.json says that matrices are. Raises ConfigError, with one problem, where they do not fit.
    """
    if model.layers > len(found):
        rule = f"holds the model of its config.json; that has {model.layers:,} layers, its files {len(found):,} tensors"
        raise refused(path, rule, AGAIN)
    expected = {tensor.name: tensor for tensor in form.tensors(model)}
    held = {_full(name, form, found): one for name, one in found.items()}
    held = {
        name: one
        for name, one in held.items()
        if name in expected or not any(fnmatchcase(name, glob) for glob in form.ignored)
    }
    held, scales = split_scales(path, expected, held) if int8 else (held, {})
    _refuse_other_numbers(path, held, scales)
    if model.tied and form.head in held:
        _refuse_unequal_pair(path, held.pop(form.head), held.get(_embedding(expected.values())))
    _refuse_other_names(path, form, model, expected, held)
    _refuse_other_shapes(path, model, expected, held)
    return held, scales


def _full(name: str, form: Format, found: Mapping[str, Held]) -> str:
    """With the format's prefix, which a directory of a model without head lacks on all of its tensors."""
    bare = form.prefix and not any(other.startswith(form.prefix) for other in found)
    return f"{form.prefix}{name}" if bare and name != form.head else name


def _embedding(tensors: Iterable[FileTensor]) -> str:
    return next(tensor.name for tensor in tensors if tensor.parts[0].name == EMBEDDING)


def _refuse_other_numbers(path: Path, held: Mapping[str, Held], scales: Mapping[str, Held]) -> None:
    packed = [name for name in held if any(fnmatchcase(name, glob) for glob in PACKED)]
    if packed:
        raise refused(path, f"holds weights that are not quantised; {packed[0]} belongs to packed ones", DEQUANTISE)
    for name, one in held.items():
        if one.entry.dtype not in FLOATS and name not in scales:
            wide = one.entry.dtype == "float64"
            rule = f"its tensors are {', '.join(FLOATS)}; {name} is {one.entry.dtype}"
            raise refused(path, rule, "save it as float32" if wide else DEQUANTISE)


def _refuse_other_names(
    path: Path, form: Format, model: ModelConfig, expected: Mapping[str, FileTensor], held: Mapping[str, Held]
) -> None:
    missing = [name for name in expected if name not in held]
    extra = [name for name in held if name not in expected]
    architecture = form.architectures[0]
    if len(missing) == len(expected):
        rule = f"holds {architecture}'s tensors, such as {missing[0]}; it holds {extra[0] if extra else 'none'}"
        raise refused(path, rule, "these are another architecture's: take weights and config.json of one model")
    if missing == [form.head]:
        rule = f"has a head ({form.head}): config.json says or means tie_word_embeddings = false"
        raise refused(path, rule, "if the head shares the embedding: tie_word_embeddings: true in config.json")
    if missing:
        instead = f"; instead it has {extra[0]}" if extra else ""
        rule = f"holds the {len(expected):,} tensors of its config.json; {_some(missing)} missing{instead}"
        raise refused(path, rule, f"{AGAIN}, weights and config.json of one model")
    if extra:
        deeper = f"layers.{model.layers}." in extra[0] or f"h.{model.layers}." in extra[0]
        why = f"config.json has {model.layers} layers only" if deeper else f"{architecture} has no such tensor"
        rule = f"holds the tensors of its config.json and no others; {extra[0]} ({len(extra):,} in all): {why}"
        raise refused(path, rule, "take weights and config.json of one model; a tensor without meaning: remove it")


def _some(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{len(names):,} of them are, {names[0]} first,"


def _refuse_other_shapes(
    path: Path, model: ModelConfig, expected: Mapping[str, FileTensor], held: Mapping[str, Held]
) -> None:
    for name, tensor in expected.items():
        shape = held[name].entry.shape
        if shape == tensor.shape:
            continue
        if tensor.parts[0].name in (EMBEDDING, "lm_head.weight") and shape[1:] == tensor.shape[1:]:
            rule = f"{name} has vocab_size rows; config.json says {model.vocab:,}, it has {shape[0]:,}"
            raise refused(path, rule, "correct vocab_size, or save the model after resize_token_embeddings again")
        rule = f"{name} is {list(tensor.shape)} by config.json; its file has {list(shape)}"
        raise refused(path, rule, "take weights and config.json of one model")


def _refuse_unequal_pair(path: Path, head: Held, embedding: Held | None) -> None:
    """Under tie_word_embeddings = true: one version of transformers would untie them, another drop the head."""
    if embedding is None or _equal(path, head, embedding):
        return
    rule = f"tie_word_embeddings is true, so that {head.key} equals {embedding.key}; they differ"
    raise refused(path, rule, "tie_word_embeddings: false in config.json, if the head is one of its own")


def _equal(path: Path, one: Held, other: Held) -> bool:
    if (one.entry.dtype, one.entry.shape) != (other.entry.dtype, other.entry.shape):
        return False
    size = int(np.prod(one.entry.shape, dtype=np.int64)) * (4 if one.entry.dtype == "float32" else 2)
    with open(path / one.file, "rb") as first, open(path / other.file, "rb") as second:
        first.seek(one.entry.start)
        second.seek(other.entry.start)
        for start in range(0, size, BLOCK):
            length = min(BLOCK, size - start)
            if first.read(length) != second.read(length):
                return False
    return True
