"""The way in: Hydra composes, every mistake becomes one clear report, and the exit code says what happened."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
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

from trainer.commands.init_from import Given, resolve
from trainer.config.composable import composable_schema
from trainer.config.compose import to_config
from trainer.config.diagnose import diagnose
from trainer.config.elements import CONF
from trainer.config.homes import at_home
from trainer.config.schema import Config
from trainer.errors import ConfigError, ExitCode, Problem, RunError
from trainer.files import is_directory_name
from trainer.rules.check import ABOUT_THIS_LAUNCH, RULES, validate
from trainer.rules.derived import Derived, derive, effective
from trainer.rules.neuron import job as job_of
from trainer.rules.places import run_root
from trainer.rules.quantities import pretended
from trainer.run.directory import run_path
from trainer.run.ending import Ending
from trainer.run.exit_json import guess_directory, write_exit
from trainer.run.orphans import follow_launcher
from trainer.run.output import outlive_readers
from trainer.run.signals import (
    end_outside_training,
    ignore_signals,
    interrupts_shown,
    stop_was_asked,
    uninterrupted,
)
from trainer.run.world import World
from trainer.trainium.environment import apply, settle

VALUED_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "-i", "--experimental-rerun"),
)
"""Hydra's flags that are followed by a value."""

PATIENCE_SECONDS = 10.0
"""From a stopping signal outside training to the end by force."""

LoadRecipe = Callable[[str], Callable[[Config, Derived, World, list[str]], int]]


_ending = Ending()
"""Of this process: hydra.main calls back with a composed configuration and nothing else."""


class SweepStopped(BaseException):
    """A stopping signal has come: the jobs of a sweep that have not begun, do not. Hydra lets it through."""


def register_schema() -> None:
    """Make the schema known to Hydra under the name that conf/train.yaml and saved configurations use."""
    ConfigStore.instance().store(name="schema", node=composable_schema())


def enter(main: Callable[[], None], launch: bool = True) -> int:
    """Run a ``@hydra.main`` function and return the exit code. Configuration errors are reported, never traced.

    launch: whether this is a launch of a run, which leaves exit.json, or only looks at a configuration.
    """
    outlive_readers()
    overrides, flags = split(sys.argv[1:])
    sys.argv[1:] = overrides + flags  # argparse takes overrides in one piece only; people mix them with flags
    _ending.begin(_guess(overrides, sweep=not launch or bool({"--multirun", "-m"} & set(flags))))
    if not follow_launcher():
        return int(ExitCode.PREEMPTED)
    try:
        world = World.from_environment()
    except RunError as error:
        return _ending.report(error, World())
    if not flags and not any(override.startswith("recipe=") for override in overrides):
        if world.rank == 0:
            print(recipe_list(_search_path(flags)), file=sys.stderr)
        return ExitCode.CONFIG
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main then raises what goes wrong instead of printing and exiting 1
    register_schema()
    try:
        return _compose(main, overrides, flags, world)
    finally:
        ignore_signals()


def _compose(main: Callable[[], None], overrides: list[str], flags: list[str], world: World) -> int:
    """The exit code of a process whose way in is ``main``."""
    try:
        end_outside_training(PATIENCE_SECONDS, lambda: _ending.interrupted(world))
        with interrupts_shown():
            main()
    except SweepStopped:
        return max(int(ExitCode.PREEMPTED), _ending.code)
    except KeyboardInterrupt as stop:
        return _ending.interrupted(world, stop.__cause__)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if _ending.codes:  # a job had begun: this is no mistake of composition
            raise
        with uninterrupted():
            return _ending.report(diagnose(overrides, error, _search_path(flags)), world)
    except SystemExit as error:
        if error.code and world.rank == 0:  # argparse has printed what it does not understand
            write_exit(_ending.directory, ExitCode.CONFIG, 0, f"flags that nobody knows: {' '.join(flags)}")
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    return _ending.code


def _guess(overrides: Sequence[str], sweep: bool) -> Path | None:
    """The run's directory by the command line; the runs of a sweep are known by their configurations only."""
    return None if sweep else guess_directory(overrides)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A command line's overrides, and its flags with their values."""
    overrides: list[str] = []
    flags: list[str] = []
    for previous, argument in pairwise(["", *arguments]):
        is_flag = argument.startswith("-") or previous in VALUED_FLAGS
        (flags if is_flag else overrides).append(argument)
    return overrides, flags


def run(composed: DictConfig, load: LoadRecipe) -> None:
    """One job: from the composed configuration to a finished run.

    load: finds the recipe of a task (recipes.load; the trainer does not import what stands on it).
    """
    world = World.from_environment()
    _ending.directory = _guess(HydraConfig.get().overrides.task, sweep=_sweeping())
    with _ending.job(world):
        config, notes = configure(composed, world)
        world = pretended(config, world)
        if world.launched is not None:
            _ending.directory = None  # a rehearsal is no launch of the run, and leaves nothing
        elif is_directory_name(config.run.name or "") and not list(run_root(config, world)):
            _ending.directory = run_path(config)
        else:
            _ending.directory = None
        validate(config, world)
        code = train(config, world, load, notes)
        if not _sweeping():
            ignore_signals()
        _ending.finished(code, world)
    if _sweeping() and stop_was_asked():
        raise SweepStopped


def inspect(composed: DictConfig, show: Callable[[Config], Iterable[str]]) -> None:
    """Print something about a configuration without running it, on any machine."""

    def print_it(config: Config, notes: Sequence[str], world: World) -> None:
        validate(config, world, [rule for rule in RULES if rule not in ABOUT_THIS_LAUNCH])
        print("\n".join([*notes, *show(config)]), flush=True)

    consider(composed, print_it)


def consider(composed: DictConfig, act: Callable[[Config, Sequence[str], World], None]) -> None:
    """Do something with a configuration other than to run it here; an error of it is reported.

    act: gets the configuration, lines for people about where its values come from, and this process's world.
    """
    world = World.from_environment()
    _ending.codes.append(ExitCode.DONE)
    try:
        act(*configure(composed, world), world)
    except RunError as error:
        _ending.codes[-1] = _ending.report(error, world)


def take_text(name: str) -> str | None:
    """The value of ``--name VALUE`` or ``--name=VALUE``, taken off the command line that Hydra reads; None without.

    It is empty where none is given.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, nargs="?", const="", dest="text")
    found, sys.argv[1:] = parser.parse_known_args()
    text: str | None = found.text
    return text


def take_option(name: str) -> int | None:
    """The whole number of ``--name N``, like ``take_text``. A mistake ends the process with exit code 3."""
    text = take_text(name)
    if text is None or re.fullmatch(r"-?\d+", text):
        return None if text is None else int(text)
    problem = Problem(name, text, "a whole number", f"give {name} N, or leave it out")
    sys.exit(_ending.report(ConfigError(problem), World()))


def configure(composed: DictConfig, world: World) -> tuple[Config, tuple[str, ...]]:
    """The frozen configuration, with the recipe and the run called by their names; and lines about model.init_from."""
    config = at_home(to_config(composed))
    if config.recipe is None and (chosen := HydraConfig.get().runtime.choices.get("recipe")) is not None:
        config = replace(config, recipe=chosen)
    if config.recipe is None:
        known = recipe_list(_search_path(split(sys.argv[1:])[1]))
        raise ConfigError(Problem("recipe", None, "names a recipe", f"use one; {known}"))
    config = _named(config, world)
    config = replace(config, run=replace(config.run, name=config.run.name or config.recipe))
    return resolve(config, _given(), world)


def _given() -> Given:
    """What the command line says, as opposed to the groups and the recipe."""
    hydra = HydraConfig.get()
    given = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    keys = {override.key_or_group for override in given}
    return Given(keys, resolved="model" not in hydra.runtime.choices and "model.init_from" not in keys)


def train(config: Config, world: World, load: LoadRecipe, notes: Sequence[str] = ()) -> int:
    """Announce what was derived, and hand a valid configuration over to the recipe's assembly."""
    derived = derive(config, world)
    config = effective(config, derived)
    settled = prepare_trainium(config, world) if derived.backend == "neuron" else ()
    if world.rank == 0:
        what = "run" if world.launched is None else "rehearsal of"
        print(f"{what} {config.run.name}: recipe={config.recipe}, {config.model.name} on {world.size} process(es)")
        print("\n".join(f"  {line}" for line in (*notes, *derived.reasons, *settled)), flush=True)
    return int(load(config.task)(config, derived, world, list(HydraConfig.get().overrides.task)))


def prepare_trainium(config: Config, world: World) -> tuple[str, ...]:
    """Set the variables of a job on Trainium, before anything imports XLA; a line for each that the user had set."""
    if world.neuron_on_cpu:
        return ()
    settled = settle(job_of(config, world), os.environ)
    apply(settled)
    return tuple(f"variable       {note}" for note in settled.notes)


def _named(config: Config, world: World) -> Config:
    """In a sweep, the overrides in which its jobs differ become part of the run's name."""
    hydra = HydraConfig.get()
    if not _sweeping():
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


def _sweeping() -> bool:
    """Whether this job is one of a sweep."""
    mode = HydraConfig.get().mode
    return mode is not None and mode.name == "MULTIRUN"


def recipe_list(search_path: Sequence[Path] = ()) -> str:
    """The recipes with a line each: the first comment of their YAML."""
    lines = ["choose a recipe:"]
    for path in sorted(path for root in (*search_path, CONF) for path in (root / "recipe").glob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        comments = [line[2:] for line in text.splitlines() if line.startswith("# ") and "@" not in line]
        lines.append(f"  recipe={path.stem:<14} {comments[0] if comments else ''}")
    lines.append("for example: torchrun --nproc_per_node 2 scripts/train.py recipe=tiny    (--help says more)")
    return "\n".join(lines)


def _search_path(flags: Sequence[str]) -> list[Path]:
    """Directories that the user added with --config-dir, in either of its forms."""
    separate = [following for flag, following in pairwise(flags) if flag in ("--config-dir", "-cd")]
    joined = [flag.partition("=")[2] for flag in flags if flag.startswith(("--config-dir=", "-cd="))]
    return [Path(directory) for directory in (*separate, *joined)]
