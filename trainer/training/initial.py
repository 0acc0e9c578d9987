"""The weights that a run begins with: drawn by its seed, or read from what model.init_from names."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.backends.base import Initialise
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import fault, read_state
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.models.adapters.begin import Beginning
from trainer.models.family import Family, shapes_of
from trainer.models.initialise import Initialiser
from trainer.parallel.mesh import Mesh
from trainer.parallel.plan import Plan
from trainer.pretrained.refused import refused
from trainer.pretrained.source import Source, open_source
from trainer.pretrained.weights import weights_of


def initial_weights(config: Config, family: Family, mesh: Mesh, fingerprints: Mapping[str, str]) -> Initialise:
    """How a rank fills its boxes. Each verifies its share of a checkpoint of ours first, as a resume does.

    family: of the model, with the adapters that the configuration asks for: they are drawn, the base is read.
    fingerprints: of text and tokenizer as they are now. Raises ConfigError on the ranks that find something wrong.
    """
    base = _base(config, family.plan, mesh, fingerprints)
    if not family.plan.adapters:
        return base
    return Beginning.of(base, family.plan, config.seed, shapes_of(family))


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
