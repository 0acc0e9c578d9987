"""An adapter to begin with: a directory of peft's, or a checkpoint or run of ours, opened by its headers. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from trainer.checkpoint.base import Base
from trainer.checkpoint.index import Stored, read_index
from trainer.checkpoint.names import CONFIG, PARTS
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tensorfile import Entry, read_header
from trainer.checkpoint.verify import read_state
from trainer.config.adapters import EMBEDDING, HEAD, KINDS
from trainer.config.compose import to_config
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError
from trainer.pretrained.adapters import Adapters, path_of, split_names, weight_shapes
from trainer.pretrained.fit import FLOATS
from trainer.pretrained.peft.config import KEY, PREFIX, WEIGHTS, PeftConfig, read_config, refused
from trainer.pretrained.peft.names import ALL_LINEAR, Modules, compressed, matches
from trainer.pretrained.source import checkpoint_in

AGAIN = "copy the directory again, or take an adapter of this model"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")


@dataclass(frozen=True)
class AdapterSource:
    """path: of the directory, or of the checkpoint. config: what it says of the adapters, with their targets."""

    given: str
    path: Path
    config: AdapterConfig
    shapes: Mapping[str, tuple[int, ...]]
    """Of the adapters' parameters, and of the model's own that were trained beside them, by canonical name."""
    beside: str
    """What it says of its base, for people."""
    keys: Mapping[str, tuple[str, Entry]] | None = None
    """Of peft's directory: where each of these is in its file."""
    base_keys: Mapping[str, tuple[str, Entry]] | None = None
    """And copies of the base's weights by canonical name, which have to be equal to it."""
    stored: Mapping[str, Stored] | None = None
    """Of a checkpoint of ours."""
    named: Base | None = None


def open_adapter(given: str, model: ModelConfig) -> AdapterSource:
    """Raises ConfigError, with one problem of key adapter.init_from, where it is none, or none of this model."""
    try:
        return _open(given, Path(given), model)
    except OSError as error:
        raise refused(given, f"can be read ({error.strerror})", "correct the path, or restore access to it") from None


def _open(given: str, path: Path, model: ModelConfig) -> AdapterSource:
    if not path.is_dir():
        rule = "is a directory: peft's, or a run or checkpoint of ours with adapters" + (
            "; it does not exist" if not path.exists() else "; it is a file"
        )
        raise refused(given, rule, "correct the path")
    try:
        if (checkpoint := adapted_checkpoint(path)) is not None:
            return _of_checkpoint(given, checkpoint, model)
    except ConfigError as error:
        raise ConfigError(replace(one, key=KEY) for one in error.problems) from None
    return _of_peft(given, path, model)


def adapted_checkpoint(path: Path) -> Path | None:
    """The checkpoint of ours that this is, if it has adapters. Raises ConfigError for one that is not sound."""
    if not (os.access(path, os.F_OK) and path.is_dir()) or (found := checkpoint_in(path)) is None:
        return None  # a Path alone raises for a name that is too long
    try:
        config = to_config(yaml.safe_load((found[0] / CONFIG).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError, ConfigError):
        return None  # told where it is opened
    return found[0] if config.adapter.kind != "none" else None


def _of_checkpoint(given: str, path: Path, model: ModelConfig) -> AdapterSource:
    try:
        config = to_config(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")))
        stored, named = read_index(path / PARTS[0]), read_state(path).base
    except (OSError, Unsound, yaml.YAMLError, TypeError, ValueError) as error:
        raise refused(given, f"{path.name} can be read ({error})", "name another step of the same run") from None
    shapes = {name: one.shape for name, one in stored.items()}
    own, theirs = split_names(shapes)
    _refuse_faults(given, config.adapter, model, {name: shapes[name] for name in theirs})
    if named is None:  # all weights are stored: those of the base too, which are not what was trained
        shapes = {name: shapes[name] for name in theirs}
    else:
        _refuse_other_shapes(given, model, {name: shapes[name] for name in own})
    return AdapterSource(given, path, config.adapter, shapes, str(named or path), stored=stored, named=named)


def _of_peft(given: str, path: Path, model: ModelConfig) -> AdapterSource:
    config = read_config(path)
    entries = _entries(path)
    modules = Modules(model)
    if config.transposed and not modules.transposed:
        raise refused(given, "fan_in_fan_out is false: no matrix of this model is stored transposed", AGAIN)
    adapters, whole, copies = _sorted(given, config, entries, modules)
    shapes = {name: entry.shape for name, (_, entry) in adapters.items()}
    if not shapes:
        raise refused(given, f"{WEIGHTS} holds adapters; it holds none", AGAIN)
    paths = list(dict.fromkeys(map(path_of, shapes)))
    made = AdapterConfig(
        kind="lora",
        rank=config.rank,
        alpha=config.alpha,
        rslora=config.rslora,
        dora=config.dora,
        targets=compressed(paths, modules.matrices),
        also_train=sorted({f"{path_of(name)}.*" for name in whole}),
        init_from=given,
    )
    _refuse_faults(given, made, model, shapes)
    _refuse_missing(given, config, paths, modules)
    _refuse_other_shapes(given, model, {name: entry.shape for name, (_, entry) in {**whole, **copies}.items()})
    shapes |= {name: entry.shape for name, (_, entry) in whole.items()}
    beside = config.base or "a base without a name"
    return AdapterSource(given, path, made, shapes, beside, keys={**adapters, **whole}, base_keys=copies)


def _entries(path: Path) -> dict[str, Entry]:
    """The tensors of the file by key."""
    file = path / WEIGHTS
    if not file.exists():
        if pickled := next((name for name in PICKLES if (path / name).exists()), None):
            rule = f"holds {WEIGHTS}; {pickled} is pickled, and unpickling runs code"
            raise refused(path, rule, "where you trust it: load it with peft, and save_pretrained writes safetensors")
        raise refused(path, f"holds {WEIGHTS}; it is not there", "finish the download, or name peft's directory")
    try:
        return read_header(file)
    except (Unsound, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise refused(path, f"{WEIGHTS} is a whole safetensors file ({why})", "copy the directory again") from None


Found = dict[str, tuple[str, Entry]]


def _sorted(
    given: str, config: PeftConfig, entries: Mapping[str, Entry], modules: Modules
) -> tuple[Found, Found, Found]:
    """Adapters' parameters, whole modules that were trained, and copies of the base's weights, by canonical name."""
    canonical = modules.canonical()
    adapters: Found = {}
    whole: Found = {}
    copies: Found = {}
    for key, entry in entries.items():
        if entry.dtype not in FLOATS:
            raise refused(given, f"its tensors are {', '.join(FLOATS)}; {key} is {entry.dtype}", "save it as float32")
        module, kind = _taken_apart(key)
        path = canonical.get(module)
        if path is None:
            fused = module in modules.fused.values()
            why = f"{module} holds several of ours in one" if fused else "the model has no such module"
            raise refused(given, f"{WEIGHTS} holds adapters of the model's modules; {key}: {why}", AGAIN)
        if kind in KINDS:
            adapters[f"{path}.{kind}"] = key, entry
        elif kind in ("weight", "bias") and any(module.endswith(name) for name in config.saved):
            whole[f"{path}.{kind}"] = key, entry
        elif kind == "base_layer.weight" or (kind == "weight" and path in (EMBEDDING, HEAD)):
            copies[f"{path}.weight"] = key, entry
        else:
            raise refused(given, f"{WEIGHTS} holds LoRA's tensors and no others; it holds {key}", AGAIN)
    return adapters, whole, copies


def _taken_apart(key: str) -> tuple[str, str]:
    """The module's name in transformers, and what of it this is: one of KINDS, weight, bias or base_layer.weight."""
    name = key.removeprefix(PREFIX)
    for kind in KINDS:
        for ending in (f".{kind}.weight", f".{kind}"):
            if name.endswith(ending):
                return name.removesuffix(ending), kind
    if name.endswith(".base_layer.weight"):
        return name.removesuffix(".base_layer.weight"), "base_layer.weight"
    module, _, kind = name.rpartition(".")
    return module, kind


def _refuse_faults(
    given: str, config: AdapterConfig, model: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    faults = list(Adapters(config, model, shapes).faults())
    if faults:
        more = f" ({len(faults):,} in all)" if len(faults) > 1 else ""
        raise refused(given, f"holds an adapter of this model, whole; {faults[0]}{more}", AGAIN)


def _refuse_other_shapes(given: str, model: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    known = weight_shapes(model)
    for name, shape in shapes.items():
        if known.get(name) != shape:
            rule = f"{name} is {list(known.get(name, ()))} in this model; it has {list(shape)}"
            raise refused(given, rule, "name the model that it was trained beside: model.init_from")


def _refuse_missing(given: str, config: PeftConfig, paths: Iterable[str], modules: Modules) -> None:
    """Where the targets are names, they mean the modules that the file has adapters of, and no others."""
    if isinstance(config.targets, str):
        targets: tuple[str, ...] = (config.targets,)
        if config.targets != ALL_LINEAR:
            return  # a regular expression of somebody else's is not run
    else:
        targets = config.targets
    held = set(paths)
    for path in modules.matrices:
        name = modules.theirs.get(path)
        meant = name is not None and any(_means(path, name, target) for target in targets)
        if path in held and not meant:
            raise refused(given, f"target_modules means all modules that have adapters; {name} is not meant", AGAIN)
        if meant and path not in held and not config.some_layers:
            raise refused(given, f"has an adapter of each of target_modules; that of {name} is missing", AGAIN)


def _means(path: str, name: str, target: str) -> bool:
    return path not in (EMBEDDING, HEAD) if target == ALL_LINEAR else matches(name, target)


def described(source: AdapterSource) -> Iterator[str]:
    """For people."""
    config = source.config
    kind = ("DoRA" if config.dora else "LoRA") + (" (rslora)" if config.rslora else "")
    count = len({path_of(name) for name in split_names(source.shapes)[1]})
    said = f"{kind} of rank {config.rank}, alpha {config.alpha:g}, at {count} modules, trained beside {source.beside}"
    yield f"adapter        from {source.path}: {said}"
    yield "               weights only: optimizer, schedule, step and data begin anew"
