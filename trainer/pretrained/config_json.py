"""config.json in and out, whatever the family: ``read_config`` and ``config_json``. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.checkpoint import strict_json
from trainer.config.groups.model import ModelConfig
from trainer.config.plugins import load_named
from trainer.errors import ConfigError, Problem
from trainer.models.families import FAMILIES, format_named
from trainer.pretrained.format import Format
from trainer.pretrained.int8 import is_ours
from trainer.pretrained.keys import DAMAGED, Keys, refusal

NAME = "config.json"
LIMIT = 16 << 20
"""Bytes of the largest config.json that is read."""
DTYPES = ("float32", "bfloat16", "float16")
OURS = "dequantise it with the library that wrote it, save it with transformers, and take that directory"


def format_of(family: str) -> Format:
    """The format of an entry of trainer/models/families/__init__.py. Raises ConfigError for a family without one."""
    if family not in FAMILIES:
        rule = f"a family with a format of its own: {', '.join(FAMILIES)}"
        raise ConfigError(Problem("model.family", family, rule, "train in one of them to exchange directories"))
    found: Format = load_named("model.family", format_named(family))
    return found


def read_config(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A directory, a config.json or what it holds -> name of the family, fields of ModelConfig.

    The fields are the same whatever the family: dimensions, switches, rope_scaling (a RopeScalingConfig) and tied.
    Raises ConfigError that names the file, the key and the remedy.
    """
    if isinstance(source, Mapping):
        return _read(source)
    path = Path(source) / NAME if Path(source).is_dir() else Path(source)
    values = parse_config(path)
    try:
        return _read(values)
    except ConfigError as error:
        raise ConfigError([replace(problem, key=f"{path}: {problem.key}") for problem in error.problems]) from error


def parse_config(path: Path) -> dict[str, Any]:
    """The values of a config.json. Raises ConfigError where it is none."""
    try:
        return strict_json.mapping(strict_json.read(path, LIMIT), "it")
    except FileNotFoundError as error:
        rule = "a directory as transformers' save_pretrained writes it has this file"
        raise ConfigError(Problem(str(path), "missing", rule, "name such a directory")) from error
    except (OSError, strict_json.Unsound) as error:
        raise ConfigError(Problem(str(path), str(error), "a JSON object", DAMAGED)) from error


def _read(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if values.get("quantization_config") is not None and not is_ours(values):
        method = values["quantization_config"]
        method = method.get("quant_method", "unknown") if isinstance(method, Mapping) else method
        raise refusal("quantization_config", method, "weights that are not quantised", OURS)
    dtype_of(values)
    family = family_of_config(values)
    found = format_of(family)
    tied = Keys(values).flag("tie_word_embeddings", found.tied)
    return family, {**found.read(values), "tied": tied}


def family_of_config(values: Mapping[str, Any]) -> str:
    """The family that computes what a config.json describes. Raises ConfigError where there is none."""
    kind, names = values.get("model_type"), values.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refusal("architectures", names, "a list of names", DAMAGED)
    known = {name: format_of(name) for name in FAMILIES}
    if kind is not None:
        fitting = [name for name, found in known.items() if kind in found.model_types]
        if not fitting:
            types = ", ".join(word for found in known.values() for word in found.model_types)
            remedy = "the decoder has switches for these families only; an old name: save it with a newer transformers"
            raise refusal("model_type", kind, f"one of: {types}", remedy)
        allowed = known[fitting[0]].architectures
        if names and not set(names) & set(allowed):
            remedy = "save the language model itself, with its head, and take that directory"
            raise refusal("architectures", names, f"{allowed[0]}, a language model", remedy)
        return fitting[0]
    for name, found in known.items():
        if set(names) & set(found.architectures):
            return name
    raise refusal("model_type", None, "config.json names its model_type, or a known architecture", DAMAGED)


def dtype_of(values: Mapping[str, Any]) -> str | None:
    """What ``dtype`` (transformers 5) and ``torch_dtype`` (4) say; None: nothing. Refuses unequal ones."""
    said = {key: str(values[key]).removeprefix("torch.") for key in ("dtype", "torch_dtype") if values.get(key)}
    if len(set(said.values())) > 1:
        rule = f"equal to torch_dtype ({said['torch_dtype']}): transformers 5 follows the first, 4 the second"
        raise refusal("dtype", said["dtype"], rule, "keep the one that the tensors have")
    return next(iter(said.values()), None)


def config_json(model: ModelConfig, dtype: str, extras: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What transformers 4.48 and 5 read as this model. dtype: of all tensors of the directory.

    extras: of the tokenizer's, such as bos_token_id; they win. Raises ConfigError for what the format cannot say.
    """
    found = format_of(model.family)
    if problems := list(found.lacks(model)):
        raise ConfigError(problems)
    assert dtype in DTYPES, dtype
    return {
        "architectures": [found.architectures[0]],
        "model_type": found.model_types[0],
        **found.write(model),
        "vocab_size": model.vocab,
        "tie_word_embeddings": model.tied,
        "initializer_range": model.init_std,
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
        **(extras or {}),
    }
