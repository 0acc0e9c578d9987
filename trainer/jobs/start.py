"""From which weights an occurrence starts: the promoted model, and the table of what may follow what. Pure.

| now, before | full | LoRA, same base and form | LoRA, another form |
|---|---|---|---|
| full | its weights | its merged weights | its merged weights |
| LoRA | a new adapter on its weights | the adapter goes on (or merge: a new one) | a new one, merged weights |

Form: rank, alpha, rsLoRA, DoRA, targets and what else is trained. Optimizer, schedule, step and data begin anew always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config.groups.job import JobStartConfig
from trainer.errors import ConfigError, Problem
from trainer.jobs.registry.aliases import Alias

RECIPE, CHAMPION = "recipe", "champion"
FULL = "full"


def version_of(config: JobStartConfig, alias: Alias) -> str | None:
    """The version to start from; None for what the recipe itself starts from. Raises ConfigError."""
    if config.model == RECIPE:
        return None
    if config.model != CHAMPION:
        return config.model
    if alias.version is None and config.otherwise != RECIPE:
        rule = "names a version, or start.otherwise lets the recipe begin"
        raise ConfigError(Problem("start.model", CHAMPION, rule, "promote a version, or set start.otherwise=recipe"))
    return alias.version


def begin_from(
    config: JobStartConfig, technique: Mapping[str, Any], version: str | None, record: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the ledger says about the start: version, weights (model | adapter | recipe), and why.

    technique: of this training. record: the version's own, with its technique and its base. Raises ConfigError.
    """
    if version is None:
        return {"version": None, "weights": RECIPE, "why": "from what the recipe starts from"}
    if record is None:
        remedy = "promote or name one that jobs.py registry lists, or begin anew: start.model=recipe"
        raise ConfigError(Problem("start.model", version, "is a whole version of the registry", remedy))
    before = record.get("technique", {})
    same = technique == before and technique.get("kind") != FULL
    if same and config.adapter == "continue":
        why = f"LoRA after LoRA of the same form: the adapter of {version} goes on, on the same base"
        return {"version": version, "weights": "adapter", "base": record.get("base"), "why": why}
    now, then = (_named(one) for one in (technique, before))
    merged = "merged weights" if before.get("kind", FULL) != FULL else "weights"
    new = ", under a new adapter" if technique.get("kind", FULL) != FULL else ""
    return {"version": version, "weights": "model", "why": f"{now} after {then}: from the {merged} of {version}{new}"}


def _named(technique: Mapping[str, Any]) -> str:
    return "full" if technique.get("kind", FULL) == FULL else "LoRA"
