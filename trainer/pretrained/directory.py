"""A model's directory in Hugging Face's layout, opened without torch: config.json and headers are read.

Nothing in it is executed: the code that auto_map names is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError
from trainer.pretrained.config_json import NAME, format_of, parse_config, read_config
from trainer.pretrained.files import Held, weight_files
from trainer.pretrained.fit import tensors_of
from trainer.pretrained.format import Format
from trainer.pretrained.int8 import is_ours
from trainer.pretrained.refused import refused


@dataclass(frozen=True)
class Directory:
    """What a directory holds. tensors: of the model, by the format's names."""

    path: Path
    form: Format
    model: ModelConfig
    """The dimensions, and this version's defaults of what no directory says."""
    tensors: Mapping[str, Held]
    notes: tuple[str, ...]
    """For people, of what was passed over."""
    scales: Mapping[str, Held] = field(default_factory=dict)
    """Of the tensors that are int8, by their names."""


def open_directory(path: Path) -> Directory:
    """Raises ConfigError, with one problem of key model.init_from, where anything is not as it should be."""
    values, family, fields = _config(path)
    form = format_of(family)
    model = ModelConfig(name=path.resolve().name, family=family, **fields)
    tensors, scales = tensors_of(path, form, model, weight_files(path), is_ours(values))
    return Directory(path, form, model, tensors, tuple(_notes(form, values, len(scales))), scales)


def _config(path: Path) -> tuple[Mapping[str, Any], str, dict[str, Any]]:
    file = path / NAME
    try:
        values = parse_config(file)
        return values, *read_config(values)
    except ConfigError as error:
        found = error.problems[0]
        what = str(found.value) if found.key == str(file) else f"{found.key} = {found.value!r}"
        raise refused(path, f"{NAME}: {found.rule}; it has {what}"[:600], found.remedy) from None


def _notes(form: Format, values: Mapping[str, Any], scales: int) -> list[str]:
    notes = [f"{scales:,} matrices are int8: each value is multiplied by its channel's scale"] if scales else []
    if not values.get("auto_map"):
        return notes
    return [*notes, f"code in the directory (auto_map) is not executed: it is read as {form.architectures[0]}"]


def fingerprint_of(path: Path) -> str:
    """Of config.json and the weights' headers, which say name, dtype, shape and place of every tensor."""
    digest = hashlib.sha256((path / NAME).read_bytes())
    for name, held in sorted(weight_files(path).items()):
        entry = held.entry
        digest.update(f"{name}\0{held.file}\0{entry.dtype}\0{entry.shape}\0{entry.start}\n".encode())
    return digest.hexdigest()
