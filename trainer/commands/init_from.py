"""model.init_from at configuration time: dimensions and tokenizer come from where the weights do. No torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from trainer.checkpoint.names import checkpoints, is_checkpoint_name
from trainer.commands.adapter_from import LISTS, TAKEN, adapter_taken, base_of_adapters, merged
from trainer.config.compose import to_config
from trainer.config.groups.data import TokenizerConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.keys import flatten
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.pretrained.refused import KEY
from trainer.pretrained.target import place_of
from trainer.pretrained.tokens import ids_of, refuse_other_vocabulary
from trainer.rules.places import REMOTE
from trainer.rules.quantities import backend_name
from trainer.run.directory import CHECKPOINTS, run_path
from trainer.run.directory import TOKENIZER as KEPT
from trainer.run.trajectory import CONFIG, stands_on_base
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.pretrained.source import Source

OWN = ("init_from", "options", "init_std", "dropout", "frozen", "loss_chunk_tokens")
"""Fields of ModelConfig that speak of training; the others come from the source."""
TOKENIZER = ("data.tokenizer.kind", "data.tokenizer.path", "data.tokenizer.vocab")
SHOWN = 6
"""Values that gave way, in a line for people."""


@dataclass(frozen=True)
class Given:
    """What the user said, as opposed to conf/ and the recipe. keys: of the command line.

    resolved: the configuration is one that a run has saved, with what it took from the same source.
    """

    keys: Collection[str]
    resolved: bool = False

    def has(self, leaf: str) -> bool:
        """Whether a value is the command line's."""
        return any(leaf == key or leaf.startswith(f"{key}.") for key in self.keys)


def resolve(config: Config, given: Given, world: World) -> tuple[Config, tuple[str, ...]]:
    """The configuration with what model.init_from says, and lines about it.

    Raises ConfigError where the source is not sound, or where the command line says otherwise.
    """
    named = config.model.init_from
    if named is None:
        return config, ()
    if not named.strip() or REMOTE in named:
        remedy = "copy it here, or mount the storage and name the mount"
        raise ConfigError(Problem(KEY, named, "a directory of this machine or mounted on it", remedy))
    named = str(Path(named))
    if (begun := _begun(config, named)) is not None:
        return _as_begun(config, begun, named, given)
    config = base_of_adapters(config)
    named = config.model.init_from or named
    if backend_name(config, world) == "fake" and not os.access(named, os.F_OK):
        why = f"{named} is not here: those of conf/model stand, and the tokenizer (backend=fake)"
        return config, (f"dimensions     {why}",)
    from trainer.pretrained.source import open_source  # with numpy, which a mistake elsewhere is answered without

    source = open_source(named)
    model, grown = _model(config.model, source, given)
    tokenizer, said = _tokenizer(config, source, given, model.vocab)
    lines = [*_described(config.model, model, source, given), *grown, *said, *(f"  {note}" for note in source.notes)]
    config = replace(config, model=model, data=replace(config.data, tokenizer=tokenizer))
    adapter = config.adapter.init_from
    if adapter is not None and backend_name(config, world) == "fake" and not os.access(adapter, os.F_OK):
        return config, (*lines, f"adapter        {adapter} is not here: what conf/adapter says stands (backend=fake)")
    config, of_adapter = adapter_taken(config, given.keys)
    return config, (*lines, *of_adapter)


def _begun(config: Config, named: str) -> Config | None:
    """The configuration of this run, if it has begun from the same source: its checkpoint counts, not the source.

    What stands on a base may find it elsewhere.
    """
    path = run_path(config)
    if not any((path / CHECKPOINTS).glob("step-*")):
        return None
    try:
        saved = to_config(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError, ConfigError):
        return None  # what is wrong with it is told where the run is opened
    before = saved.model.init_from
    return saved if before is not None and (_the_same(named, before) or _moved(config, saved)) else None


def _moved(config: Config, saved: Config) -> bool:
    return stands_on_base(saved) and stands_on_base(config)


def _the_same(named: str, before: str) -> bool:
    """Whether both name one source: of a run, or of an import, a run's configuration names the checkpoint."""
    given, saved = place_of(named), place_of(before)
    places = [saved]
    if is_checkpoint_name(saved.name):
        places += saved.parents[: 2 if saved.parent.name == CHECKPOINTS else 1]
    return given in places


def _goes_on(config: Config, saved: Config, given: Given) -> Config:
    """With the adapters that the run began with: their sizes came from where they did."""
    before = saved.adapter.init_from
    if before is None or config.adapter.kind != saved.adapter.kind:
        return config
    named = config.adapter.init_from
    if named is not None and not _the_same(str(Path(named)), before):
        return config  # another trajectory, and refused like one
    taken = merged(config.adapter, saved.adapter)
    fields = {name: getattr(config.adapter, name) for name in (*TAKEN, *LISTS) if f"adapter.{name}" in given.keys}
    return replace(config, adapter=replace(taken, init_from=before, **fields))


def _as_begun(config: Config, saved: Config, named: str, given: Given) -> tuple[Config, tuple[str, ...]]:
    where = str(run_path(config) / CONFIG)
    before = saved.model.init_from
    assert before is not None
    adapters = saved.adapter.init_from
    moved = not _the_same(named, before) and (adapters is None or not _the_same(named, adapters))
    model = _taken(config.model, saved.model)
    _refuse_other_values(list(_against(config.model, model, given, where)))
    model = replace(model, init_from=named if moved else before)
    if _moved(config, saved) and (moved or _names_base(run_path(config) / CHECKPOINTS)):
        _refuse_absent(named if moved else before)
    tokenizer = config.data.tokenizer if _says_tokenizer(config, given) else _tokenizer_of(saved, model.init_from)
    config = _goes_on(config, saved, given)
    line = f"dimensions     {where}: the run has begun, and {KEY} ({before}) is not read again"
    if _moved(config, saved):
        line = f"dimensions     {where}: the run has begun; what it does not train is read from {model.init_from}"
    return replace(config, model=model, data=replace(config.data, tokenizer=tokenizer)), (line,)


def _names_base(directory: Path) -> bool:
    """Whether the newest checkpoint that can be read leaves weights to its base; those of earlier versions do not."""
    from trainer.checkpoint.strict_json import Unsound
    from trainer.checkpoint.verify import read_state  # with numpy

    for path in checkpoints(directory):
        try:
            return read_state(path).base is not None
        except (Unsound, OSError):
            continue
    return False


def _refuse_absent(base: str) -> None:
    if not os.access(base, os.F_OK):
        rule = "is there: the run's weights that are not trained are in this base, and its checkpoints have them not"
        remedy = f"{KEY}=DIRECTORY says where it is now, whatever it is called: its files' SHA-256 decide"
        raise ConfigError(Problem(KEY, base, rule, remedy))


def _tokenizer_of(saved: Config, base: str | None) -> TokenizerConfig:
    """The run's, which may have moved with its base; a resume compares what it comes to."""
    found = saved.data.tokenizer
    if found.kind == "file" and found.path is not None and base is not None and not Path(found.path).exists():
        for place in (Path(base), *Path(base).parents[:2]):
            if (file := place / Path(found.path).name).is_file() or (file := place / KEPT / file.name).is_file():
                return replace(found, path=str(file))
    return found


def _taken(now: ModelConfig, source: ModelConfig) -> ModelConfig:
    """The source's model, with what this configuration says of training."""
    kept = {name: getattr(now, name) for name in OWN}
    if ":" in now.family:  # of a user's own, who has extended the decoder
        kept["family"] = now.family
    return replace(source, published_parameters=None, **kept)


def _model(now: ModelConfig, source: Source, given: Given) -> tuple[ModelConfig, list[str]]:
    """The model, its vocabulary grown where the command line says so; and the line about that."""
    model, rows = _taken(now, source.model), source.model.vocab
    if given.has("model.name"):
        model = replace(model, name=now.name)
    lines, wanted = [], now.vocab
    asked = given.has("model.vocab") or (given.resolved and replace(model, vocab=wanted) == _kept(now))
    if asked and wanted > rows:
        model = replace(model, vocab=wanted)
        lines.append(f"vocabulary     {rows:,} rows grow to {wanted:,}: each new one is the mean of the old")
    _refuse_other_values(list(_against(now, model, given, str(source.path))))
    return replace(model, init_from=str(source.path)), lines


def _kept(now: ModelConfig) -> ModelConfig:
    return replace(now, published_parameters=None)


def _against(now: ModelConfig, model: ModelConfig, given: Given, where: str) -> Iterator[Problem]:
    """What the command line says and the source does not."""
    before, after = (flatten(dataclasses.asdict(one), "model.") for one in (now, model))
    for key in sorted(before.keys() & after.keys()):
        if key not in (KEY, "model.published_parameters") and given.has(key) and before[key] != after[key]:
            rule = f"{after[key]!r}, as {where} says, which {KEY} takes the dimensions from"
            if key == "model.vocab":
                rule += "; a larger one adds rows, a smaller one would drop ids"
            yield Problem(key, before[key], rule, f"leave {key} out, or {KEY}")


def _refuse_other_values(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(problems)


def _says_tokenizer(config: Config, given: Given) -> bool:
    """Whether the user chose the tokenizer."""
    return any(given.has(key) for key in TOKENIZER) or (given.resolved and config.data.tokenizer.kind == "file")


def _tokenizer(config: Config, source: Source, given: Given, rows: int) -> tuple[TokenizerConfig, list[str]]:
    """The source's, unless the user chose one. rows: of the model's embedding."""
    now, found = config.data.tokenizer, source.tokenizer
    if _says_tokenizer(config, given):
        return now, []
    if found is None:
        if now.kind == "file":
            return now, [f"tokenizer      {now.path}: {source.path} has no tokenizer.json"]
        if source.gguf is not None:
            rule = f"has no tokenizer that is read: ids of one learnt anew ({now.kind}) mean nothing to its weights"
            remedy = "name the model's: data.tokenizer.kind=file data.tokenizer.path=.../tokenizer.json"
            raise ConfigError(Problem(KEY, source.given, rule, remedy))
        rule = f"has a tokenizer.json: ids of a tokenizer that is learnt anew ({now.kind}) mean nothing to its weights"
        remedy = "save its fast tokenizer there, or name one: data.tokenizer.kind=file data.tokenizer.path=..."
        raise ConfigError(Problem(KEY, source.given, rule, remedy))
    chosen = replace(found, eod=now.eod) if given.has("data.tokenizer.eod") else found
    if found.kind != "file" or found.path is None:
        return chosen, [
            f"tokenizer      {found.kind}, as {source.path} was trained with: the same text learns it again"
        ]
    if source.directory is None and not source.imported:
        return chosen, [f"tokenizer      {found.path}, as {source.path} was trained with"]
    ids = ids_of(source.path, Path(found.path))
    refuse_other_vocabulary(source.path, ids, rows, source.model.vocab)
    unused = f"; {source.model.vocab - ids:,} rows have no id" if ids < source.model.vocab else ""
    return chosen, [f"tokenizer      {found.path}: {ids:,} ids{unused}"]


def _described(now: ModelConfig, model: ModelConfig, source: Source, given: Given) -> Iterator[str]:
    m = model
    heads = f"{m.heads} heads" + (f" ({m.kv_heads} of keys and values)" if m.kv_heads != m.heads else "")
    rope = f", rope {m.rope_scaling.kind} x{m.rope_scaling.factor:g}" if m.rope_scaling.kind != "none" else ""
    said = f"{m.family}, {m.layers} layers, hidden {m.hidden:,}, {heads}, mlp {m.mlp:,}"
    said += f", vocabulary {source.model.vocab:,}{', tied' if m.tied else ''}, {m.max_positions:,} positions{rope}"
    yield f"dimensions     from {source.path}: {said}"
    before, after = (flatten(dataclasses.asdict(one), "model.") for one in (now, model))
    aside = ("model.name", "model.init_from", "model.published_parameters")
    gone = [f"{key} {before[key]!r}" for key in after if before.get(key) != after[key] and key not in aside]
    if gone:
        more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
        yield f"               in place of conf's {', '.join(gone[:SHOWN])}{more}"
    kinds = ", ".join(f"{count:,} in {dtype}" for dtype, count in sorted(source.dtypes.items()))
    yield f"weights        {sum(source.dtypes.values()):,} tensors there, {kinds}; from step 0, without optimizer state"
    if set(source.dtypes) - {"float32"}:
        yield "               converted to FP32 masters (bf16 keeps none: rounded to its weights)"
