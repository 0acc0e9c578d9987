"""The weights that a run begins with: drawn by its seed, or read from what model.init_from names."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.backends.base import Initialise
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import fault, read_state
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.models.adapters.begin import Beginning, Shapes
from trainer.models.family import Family, shapes_of
from trainer.models.initialise import Initialiser
from trainer.parallel.mesh import Mesh
from trainer.parallel.plan import Plan
from trainer.pretrained.peft.source import open_adapter
from trainer.pretrained.peft.weights import adapter_weights, refuse_other_copies
from trainer.pretrained.refused import refused
from trainer.pretrained.source import Source, open_source
from trainer.pretrained.weights import weights_of
from trainer.training.base import Standing


def initial_weights(
    config: Config, family: Family, mesh: Mesh, fingerprints: Mapping[str, str], standing: Standing | None = None
) -> Initialise:
    """How a rank fills its boxes. Each verifies its share of a checkpoint of ours first, as a resume does.

    family: of the model, with the adapters that the configuration asks for: they are drawn, the base is read.
    fingerprints: of text and tokenizer as they are now. standing: what the run stands on. Raises ConfigError on the
    ranks that find something wrong.
    """
    base = _base(config, family.plan, mesh, fingerprints)
    if not family.plan.adapters:
        return base
    shapes = shapes_of(family)
    beginning = Beginning.of(base, family.plan, config.seed, shapes)
    if config.adapter.init_from is None:
        return beginning
    return _going_on(config, config.adapter.init_from, family.plan, mesh, shapes, beginning, standing)


def _going_on(
    config: Config,
    named: str,
    plan: Plan,
    mesh: Mesh,
    shapes: Shapes,
    beginning: Beginning,
    standing: Standing | None,
) -> Initialise:
    """Beside a base, the adapters of a directory or checkpoint, and what was trained with them."""
    source = open_adapter(named, config.model)
    trained = {name: shapes[name] for name, rule in plan.match(shapes).items() if rule.trainable or plan.adapts(name)}
    for name in sorted(trained.keys() | source.shapes.keys()):
        if trained.get(name) != source.shapes.get(name):
            there, here = (what.get(name, "nothing") for what in (source.shapes, trained))
            rule = f"holds what this run trains, and nothing else; of {name} it has {there}, the run {here}"
            remedy = "leave out what the command line says of adapter.*, and model.frozen"
            raise ConfigError(Problem("adapter.init_from", named, rule, remedy))
    if source.stored is not None and (why := fault(source.path, mesh.rank, mesh.world)) is not None:
        raise ConfigError(Problem("adapter.init_from", named, f"is a sound checkpoint; {why}", "name another step"))
    if source.named is not None and standing is not None:
        standing.refuse_other(source.named)
    refuse_other_copies(source, beginning.base)
    read = adapter_weights(source)
    return lambda box: read(box) if box.name in source.shapes else beginning(box)


def _base(config: Config, plan: Plan, mesh: Mesh, fingerprints: Mapping[str, str]) -> Initialise:
    named = config.model.init_from
    if named is None:
        return Initialiser(plan, config.seed)
    source = open_source(named)
    if source.stored is not None:
        if (why := fault(source.path, mesh.rank, mesh.world)) is not None:
            raise refused(named, f"is a sound checkpoint; {why}", "name another step of the same run")
        if "data" not in config.resume.allow:
            _refuse_other_tokenizer(source, fingerprints)
    return weights_of(source, config.model.vocab)


def _refuse_other_tokenizer(source: Source, fingerprints: Mapping[str, str]) -> None:
    try:
        before = read_state(source.path).corpus.get("tokenizer")
    except (Unsound, OSError) as error:
        raise refused(source.given, f"is a sound checkpoint; {error}", "name another step of the same run") from None
    if before is not None and before != fingerprints.get("tokenizer"):
        rule = f"the tokenizer that {source.path} was trained with: other ids mean nothing to its weights"
        remedy = "name its tokenizer (data.tokenizer), or 'resume.allow=[data]' if ids mean the same all the same"
        raise ConfigError(Problem("data.tokenizer", fingerprints.get("tokenizer"), rule, remedy))
