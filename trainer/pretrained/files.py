"""Which files of a directory hold its weights, and what they hold: headers alone are read. No torch.

A directory has model.safetensors, or shards and model.safetensors.index.json. Anything else is refused by name; nothing
is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, mapping, parse, read, shown
from trainer.checkpoint.tensorfile import Entry, read_contents
from trainer.files import is_directory_name
from trainer.pretrained.refused import AGAIN, refused
from trainer.pretrained.shards import INDEX, SINGLE

LONGEST_INDEX = 64 << 20
"""Bytes of the largest index that is read."""
SHARDING = "DCP_SHARDING_INFO"
"""Metadata by which torch's Hugging Face storage writer says where in a tensor a file's part lies."""
CONVERT = (
    "where you trust it: AutoModelForCausalLM.from_pretrained(it).save_pretrained(another), which writes safetensors"
)
GGUF = "name the file itself: model.init_from=DIRECTORY/FILE.gguf"
FOREIGN: tuple[tuple[str, str, str], ...] = (
    (
        "adapter_config.json",
        "an adapter, which is no model",
        "model.init_from=its base adapter=lora adapter.init_from=it",
    ),
    ("pytorch_model*.bin*", "pickled weights, and unpickling runs code", CONVERT),
    ("*.pth", "pickled weights of Meta's layout, and unpickling runs code", CONVERT),
    ("*.pt", "pickled weights, and unpickling runs code", CONVERT),
    ("*.ckpt*", "pickled weights, and unpickling runs code", CONVERT),
    ("*.gguf", "GGUF weights", GGUF),
    (
        "tf_model.h5",
        "TensorFlow's weights",
        "transformers 4: from_pretrained(it, from_tf=True), save_pretrained",
    ),
    ("flax_model*", "Flax's weights", "transformers 4: from_pretrained(it, from_flax=True), save_pretrained"),
    ("consolidated*.safetensors", "weights of Mistral's own layout", "take the files named model-....safetensors"),
    ("shard-*.safetensors", "torch's shards of tensors", "torch: consolidate_safetensors_files makes whole tensors"),
    ("*.safetensors", "safetensors of another name", f"rename it to {SINGLE} if it is the whole model"),
)
"""Glob, what such a file is, and what to do about it; the first that fits is named."""
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Held:
    """Where a tensor lies. key: its name in the file."""

    file: str
    key: str
    entry: Entry


def weight_files(path: Path) -> dict[str, Held]:
    """Every tensor of a directory by name. Raises ConfigError unless each is in one file, where it should be."""
    single, index = (os.path.lexists(path / name) for name in (SINGLE, INDEX))
    if single and index:
        rule = f"has {SINGLE} or shards with {INDEX}, not both: transformers would load the first and ignore the others"
        raise refused(path, rule, "remove what an older save has left, or save into a new directory")
    if not single and not index:
        raise _foreign(path)
    named = None if single else _index(path)
    files = [SINGLE] if named is None else sorted(set(named.values()))
    found: dict[str, Held] = {}
    for file in files:
        for key, entry in _header(path, file).items():
            if key in found:
                raise refused(path, f"holds a tensor once; {key} is in {found[key].file} and in {file}", AGAIN)
            found[key] = Held(file, key, entry)
    if named is not None:
        _refuse_other_places(path, named, found)
    return found


def _index(path: Path) -> dict[str, str]:
    """Name of the file of each tensor."""
    try:
        found = mapping(mapping(read(path / INDEX, LONGEST_INDEX), "it").get("weight_map"), "weight_map")
    except (Unsound, OSError) as error:
        raise refused(path, f"{INDEX} is an index of shards ({_said(error)})", AGAIN) from None
    if not found:
        raise refused(path, f"{INDEX} names the file of each tensor; its weight_map is empty", AGAIN)
    for name, file in found.items():
        if not isinstance(file, str) or not is_directory_name(file):
            rule = f"{INDEX} names files of this directory; {shown(name)} is in {shown(file)}, which leads elsewhere"
            raise refused(path, rule, "take the index as the model's publisher gives it")
        if not file.endswith(".safetensors"):
            raise refused(path, f"its weights are safetensors; {INDEX} names {shown(file)}", CONVERT)
    missing = [file for file in sorted(set(found.values())) if not (path / file).exists()]
    if missing:
        rule = f"has every file that {INDEX} names; {len(missing)} of {len(set(found.values()))} are not there"
        raise refused(path, f"{rule}, {missing[0]} first", "finish the download, or copy the directory again")
    return found


def _refuse_other_places(path: Path, named: Mapping[str, str], found: Mapping[str, Held]) -> None:
    for name, file in named.items():
        if name not in found or found[name].file != file:
            where = f"{found[name].file} has it" if name in found else "it is in no file"
            raise refused(path, f"{file} holds {name}, as {INDEX} says; {where}", AGAIN)
    if extra := sorted(found.keys() - named.keys()):
        rule = f"{INDEX} names every tensor; {found[extra[0]].file} also holds {extra[0]}"
        raise refused(path, rule, f"{AGAIN}: files of two saves are mixed")


def _header(path: Path, file: str) -> dict[str, Entry]:
    try:
        entries, metadata = read_contents(path / file)
    except (Unsound, OSError) as error:
        if _starts_with(path / file, POINTER):
            raise refused(path, f"{file} holds weights; it is a pointer of git-lfs", "git lfs pull, there") from None
        raise refused(path, f"{file} is a whole safetensors file ({_said(error)})", AGAIN) from None
    if part := next(_parts(metadata), None):
        rule = f"holds whole tensors; {file} has a part of {part} only ({SHARDING})"
        raise refused(path, rule, "torch.distributed.checkpoint: consolidate_safetensors_files makes whole ones")
    return entries


def _parts(metadata: object) -> Iterator[str]:
    """Names of tensors whose part here does not begin where the tensor does, or that cannot be told."""
    text = metadata.get(SHARDING) if isinstance(metadata, dict) else None
    if text is None:
        return
    try:
        shards: Any = parse(str(text).encode())
        for name, shard in mapping(shards, SHARDING).items():
            if any(mapping(shard, name).get("saved_offsets") or ()):
                yield name
    except Unsound:
        yield "a tensor"


def _starts_with(path: Path, text: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(text)) == text
    except OSError:
        return False


def _foreign(path: Path) -> Exception:
    for pattern, what, remedy in FOREIGN:
        if found := sorted(path.glob(pattern)):
            return refused(path, f"holds {SINGLE} or {INDEX}; {found[0].name} is {what}", remedy)
    return refused(path, f"holds {SINGLE} or {INDEX}; there are no weights", "finish the download")


def _said(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
