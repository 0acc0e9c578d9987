"""The jobs that a command line composes: one, or those of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.config.grammar import spelt
from trainer.config.schema import Config
from trainer.launchers.asking import world_of
from trainer.launchers.request import Task
from trainer.run.directory import run_path
from trainer.run.world import World


@dataclass(frozen=True)
class Job:
    """A run to submit. world: the processes that it will have. notes: lines for people."""

    config: Config
    world: World
    overrides: tuple[str, ...]
    """Of scripts/train.py, which names the run of a sweep no longer by itself."""
    base: str
    """The run's name, without a sweep's overrides."""
    notes: tuple[str, ...]

    @property
    def task(self) -> Task:
        """It as one of several."""
        return Task(self.overrides, None if self.world.launched is not None else run_path(self.config).absolute())


def collect(composed: DictConfig, found: list[Job]) -> None:
    """Add the job that Hydra has composed. An error of it is reported."""

    def add(config: Config, notes: Sequence[str], world: World) -> None:
        name = config.run.name or ""
        given = list(HydraConfig.get().overrides.task)
        base = str(composed.run.name or HydraConfig.get().runtime.choices.get("recipe") or name)
        if name != base:
            given = [override for override in given if not override.startswith("run.name=")]
            given.append(f"run.name={spelt(name)}")
        found.append(Job(config, world_of(config, world), tuple(given), base, tuple(notes)))

    entry.consider(composed, add)
