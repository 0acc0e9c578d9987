"""The way in: Hydra composes, every mistake becomes one clear report, and the exit code says what happened."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from trainer.config import Config
from trainer.derive import Derived, derive, effective
from trainer.diagnose import CONF, diagnose
from trainer.errors import ConfigError, ExitCode, Problem, RunError
from trainer.schema import schema_node, to_config
from trainer.validate import validate
from trainer.world import World

VALUED_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "-i", "--experimental-rerun"),
)
"""Hydra's flags that are followed by a value."""

REPORT_SECONDS = 2.0

LoadRecipe = Callable[[str], Callable[[Config, Derived, World, list[str]], int]]

outcomes: list[int] = []
"""Exit codes of the jobs of this process: hydra.main drops what its function returns, and a sweep has several."""


def register_schema() -> None:
    """Make the schema known to Hydra under the name that conf/train.yaml and saved configurations use."""
    ConfigStore.instance().store(name="schema", node=schema_node())


def enter(main: Callable[[], None]) -> int:
    """Run a ``@hydra.main`` function and return the exit code. Configuration errors are reported, never traced."""
    try:
        world = World.from_environment()
    except RunError as error:
        return report(error, World())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _interrupt)
    overrides, flags = split(sys.argv[1:])
    sys.argv[1:] = overrides + flags  # argparse takes overrides in one piece only; people mix them with flags
    if not flags and not any(override.startswith("recipe=") for override in overrides):
        if world.rank == 0:
            print(recipe_list(_search_path(flags)), file=sys.stderr)
        return ExitCode.CONFIG
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main then raises what goes wrong instead of printing and exiting 1
    register_schema()
    outcomes.clear()
    try:
        main()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if outcomes:  # a job had begun: this is no mistake of composition
            raise
        return report(diagnose(overrides, error, _search_path(flags)), world)
    except KeyboardInterrupt:
        return interrupted(world)
    except SystemExit as error:  # argparse has printed what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    return max(outcomes, default=int(ExitCode.DONE))


def _interrupt(number: int, frame: object) -> None:
    """Until training begins (trainer.reliability.signals then takes over), a stopping signal ends the process."""
    raise KeyboardInterrupt


def interrupted(world: World) -> int:
    """Report a stop that did not wait for a step to end: before training, or asked for twice."""
    if world.rank == 0:
        text = "interrupted at once; the same command goes on from the last checkpoint, if there is one"
        print(text, file=sys.stderr, flush=True)
    return int(ExitCode.PREEMPTED)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A command line's overrides, and its flags with their values."""
    overrides: list[str] = []
    flags: list[str] = []
    for previous, argument in pairwise(["", *arguments]):
        is_flag = argument.startswith("-") or previous in VALUED_FLAGS
        (flags if is_flag else overrides).append(argument)
    return overrides, flags


def run(composed: DictConfig, load: LoadRecipe) -> None:
    """One job: from the composed configuration to a finished run. Its exit code is added to ``outcomes``.

    load: finds the recipe of a task (recipes.load; the trainer does not import what stands on it).
    """
    world = World.from_environment()
    outcomes.append(ExitCode.DONE)
    try:
        outcomes[-1] = train(composed, world, load)
    except RunError as error:
        outcomes[-1] = report(error, world)
    except KeyboardInterrupt:
        outcomes[-1] = interrupted(world)


def train(composed: DictConfig, world: World, load: LoadRecipe) -> int:
    """Validate, announce what was derived, and hand over to the recipe's assembly."""
    config = to_config(composed)
    if config.recipe is None and (chosen := HydraConfig.get().runtime.choices.get("recipe")) is not None:
        config = replace(config, recipe=chosen)
    if config.recipe is None:
        print(recipe_list(), file=sys.stderr)
        return ExitCode.CONFIG
    config = _named(config, world)
    validate(config, world)
    derived = derive(config, world)
    config = effective(config, derived)
    if world.rank == 0:
        print(f"run {config.run.name}: recipe={config.recipe}, {config.model.name} on {world.size} process(es)")
        print("\n".join(f"  {line}" for line in derived.reasons), flush=True)
    return int(load(config.task)(config, derived, world, list(HydraConfig.get().overrides.task)))


def _named(config: Config, world: World) -> Config:
    """In a sweep, the overrides in which its jobs differ become part of the run's name."""
    hydra = HydraConfig.get()
    if hydra.mode is None or hydra.mode.name != "MULTIRUN":
        return config
    if world.size > 1:
        raise ConfigError(
            Problem("--multirun", world.size, "a sweep runs in one process", "leave out torchrun, or run one by one")
        )
    given = OverridesParser.create().parse_overrides(split(sys.argv[1:])[0])
    keys = {override.key_or_group for override in given if override.is_sweep_override()} - {"run.name", "recipe"}
    swept = [override for override in hydra.overrides.task if override.partition("=")[0] in keys]
    base = config.run.name or config.recipe or "run"
    name = "-".join([base, *(o.replace("/", "_") for o in swept)])
    return replace(config, run=replace(config.run, name=name))


def report(error: RunError, world: World) -> int:
    """Print the error, in full on rank 0 and as one line elsewhere; return its exit code.

    Whoever ends first makes torchrun end the others: the other ranks wait, so that rank 0's report is never lost.
    """
    print(error.report() if world.rank == 0 else f"rank {world.rank}: {error.one_line()}", file=sys.stderr, flush=True)
    if world.rank != 0:
        time.sleep(REPORT_SECONDS)
    return int(error.code)


def recipe_list(search_path: Sequence[Path] = ()) -> str:
    """The recipes with a line each: the first comment of their YAML."""
    lines = ["choose a recipe:"]
    for path in sorted(path for root in (*search_path, CONF) for path in (root / "recipe").glob("*.yaml")):
        comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@" not in line]
        lines.append(f"  recipe={path.stem:<14} {comments[0] if comments else ''}")
    lines.append("for example: torchrun --nproc_per_node 2 scripts/train.py recipe=tiny    (--help says more)")
    return "\n".join(lines)


def _search_path(flags: Sequence[str]) -> list[Path]:
    """Directories that the user added with --config-dir, in either of its forms."""
    separate = [following for flag, following in pairwise(flags) if flag in ("--config-dir", "-cd")]
    joined = [flag.partition("=")[2] for flag in flags if flag.startswith(("--config-dir=", "-cd="))]
    return [Path(directory) for directory in (*separate, *joined)]
