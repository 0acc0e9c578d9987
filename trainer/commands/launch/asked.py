"""What the launcher must know of the run that it launches: its grace period and its directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trainer.commands.entry import register_schema, split
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.groups.reliability import ReliabilityConfig
from trainer.config.schema import Config
from trainer.files import is_directory_name
from trainer.run.directory import run_path
from trainer.run.exit_json import named_directory

TRAIN = CONF.parent / "scripts" / "train.py"


@dataclass(frozen=True)
class Asked:
    """grace_seconds: the run's. directory: where it leaves exit.json; None where that is not known."""

    grace_seconds: float = ReliabilityConfig.grace_seconds
    directory: Path | None = None


def read(script: str, arguments: list[str]) -> Asked:
    """What a command line asks for. A mistake in it is the run's to report: here it means the defaults."""
    overrides = split(arguments)[0]
    is_run = Path(script).resolve() == TRAIN.resolve()
    asked = Asked(directory=named_directory(overrides) if is_run else None)
    try:
        config = _compose(overrides)
        asked = replace(asked, grace_seconds=config.reliability.grace_seconds)
        known = is_run and config.backend.name != "fake" and is_directory_name(config.run.name or "")
        return replace(asked, directory=run_path(config) if known else None)
    except Exception:
        return asked


def _compose(overrides: list[str]) -> Config:
    """The configuration, with the run called by its name. Raises what Hydra and the schema raise."""
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composed = compose("train", overrides=overrides, return_hydra_config=True)
    recipe = composed.hydra.runtime.choices.get("recipe")
    config = to_config(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    return replace(config, run=replace(config.run, name=config.run.name or config.recipe or recipe))
