"""The way in: Hydra composes, every mistake becomes one clear report, and the exit code says what happened."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from trainer.derive import Derived, derive, effective, pretended
from trainer.diagnose import CONF, diagnose
from trainer.errors import ConfigError, ElsewhereError, ExitCode, Problem, RunError
from trainer.exitfile import guess_directory, write_crash, write_exit
from trainer.files import is_directory_name
from trainer.neuron_rules import job as job_of
from trainer.reliability.orphans import follow_launcher
from trainer.reliability.signals import end_outside_training, interrupts_shown
from trainer.rundir import run_path
from trainer.schema import schema_node, to_config
from trainer.trainium.environment import apply, settle
from trainer.validate import ABOUT_THIS_LAUNCH, RULES, validate
from trainer.world import World

VALUED_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "-i", "--experimental-rerun"),
)
"""Hydra's flags that are followed by a value."""

REPORT_SECONDS = 2.0
PATIENCE_SECONDS = 10.0
"""From a stopping signal outside training to the end by force."""

ENDINGS = {
    int(ExitCode.DONE): "done",
    int(ExitCode.PREEMPTED): "stopped by a signal, saved; the same command goes on",
}

LoadRecipe = Callable[[str], Callable[[Config, Derived, World, list[str]], int]]

outcomes: list[int] = []
"""Exit codes of the jobs of this process: hydra.main drops what its function returns, and a sweep has several."""


def register_schema() -> None:
    """Make the schema known to Hydra under the name that conf/train.yaml and saved configurations use."""
    ConfigStore.instance().store(name="schema", node=schema_node())


def enter(main: Callable[[], None], launch: bool = True) -> int:
    """Run a ``@hydra.main`` function and return the exit code. Configuration errors are reported, never traced.

    launch: whether this is a launch of a run, which leaves exit.json, or only looks at a configuration.
    """
    overrides, flags = split(sys.argv[1:])
    sys.argv[1:] = overrides + flags  # argparse takes overrides in one piece only; people mix them with flags
    directory = guess_directory(overrides) if launch else None
    if not follow_launcher():
        return int(ExitCode.PREEMPTED)
    try:
        world = World.from_environment()
    except RunError as error:
        return report(error, World(), directory)
    if not flags and not any(override.startswith("recipe=") for override in overrides):
        if world.rank == 0:
            print(recipe_list(_search_path(flags)), file=sys.stderr)
        return ExitCode.CONFIG
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra.main then raises what goes wrong instead of printing and exiting 1
    register_schema()
    outcomes.clear()
    try:
        end_outside_training(PATIENCE_SECONDS, lambda: interrupted(world, directory))
        with interrupts_shown():
            main()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if outcomes:  # a job had begun: this is no mistake of composition
            raise
        return report(diagnose(overrides, error, _search_path(flags)), world, directory)
    except KeyboardInterrupt:
        return interrupted(world, directory)
    except SystemExit as error:
        if outcomes:  # a sweep that was asked to stop
            return max(outcomes)
        if error.code and world.rank == 0:  # argparse has printed what it does not understand
            write_exit(directory, ExitCode.CONFIG, 0, f"flags that nobody knows: {' '.join(flags)}")
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    return max(outcomes, default=int(ExitCode.DONE))


def interrupted(world: World, directory: Path | None) -> int:
    """Report a stop that did not wait for a step to end: before training, or asked for twice."""
    if world.rank == 0:
        text = "interrupted at once"
        if directory is not None:
            text += "; the same command goes on from the last checkpoint, if there is one"
        print(text, file=sys.stderr, flush=True)
        write_exit(directory, ExitCode.PREEMPTED, world.rank, text)
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
    with job(world) as directory:
        config = configure(composed, world)
        world = pretended(config, world)
        if world.launched is not None:
            directory.clear()  # a rehearsal is no launch of the run, and leaves nothing
        elif is_directory_name(config.run.name or ""):
            directory.append(run_path(config))
        validate(config, world)
        outcomes[-1] = train(config, world, load)
        if directory and world.rank == 0 and outcomes[-1] in ENDINGS:
            write_exit(directory[-1], outcomes[-1], 0, ENDINGS[outcomes[-1]])
    if outcomes[-1] == ExitCode.PREEMPTED:
        raise SystemExit  # the jobs of a sweep that have not begun, do not


@contextmanager
def job(world: World) -> Iterator[list[Path]]:
    """Turns whatever ends the block into an exit code, a report and exit.json. Yields the run's directory, last in a
    list: guessed at first, to be appended when it is known.
    """
    guess = guess_directory(HydraConfig.get().overrides.task)
    directories = [guess] if guess is not None else []
    outcomes.append(ExitCode.DONE)
    try:
        with interrupts_shown():
            yield directories
    except RunError as error:
        outcomes[-1] = report(error, world, directories[-1] if directories else None)
    except KeyboardInterrupt:
        outcomes[-1] = interrupted(world, directories[-1] if directories else None)
    except Exception as error:
        write_crash(directories[-1] if directories else None, world.rank, error)
        raise


def inspect(composed: DictConfig, show: Callable[[Config], Iterable[str]]) -> None:
    """Print something about a configuration without running it, on any machine."""
    world = World.from_environment()
    outcomes.append(ExitCode.DONE)
    try:
        config = configure(composed, world)
        validate(config, world, [rule for rule in RULES if rule not in ABOUT_THIS_LAUNCH])
        print("\n".join(show(config)), flush=True)
    except RunError as error:
        outcomes[-1] = report(error, world, None)
    except BrokenPipeError:  # whoever read along, head or less, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def take_option(name: str) -> int | None:
    """The whole number of ``--name N`` or ``--name=N``, taken off the command line that Hydra reads; None without.

    A mistake ends the process with exit code 3.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, nargs="?", const="", dest="text")
    found, sys.argv[1:] = parser.parse_known_args()
    text: str | None = found.text
    if text is None or re.fullmatch(r"-?\d+", text):
        return None if text is None else int(text)
    problem = Problem(name, text, "a whole number", f"give {name} N, or leave it out")
    sys.exit(report(ConfigError(problem), World(), None))


def configure(composed: DictConfig, world: World) -> Config:
    """The frozen configuration, with the recipe and the run called by their names."""
    config = to_config(composed)
    if config.recipe is None and (chosen := HydraConfig.get().runtime.choices.get("recipe")) is not None:
        config = replace(config, recipe=chosen)
    if config.recipe is None:
        known = recipe_list(_search_path(split(sys.argv[1:])[1]))
        raise ConfigError(Problem("recipe", None, "names a recipe", f"use one; {known}"))
    config = _named(config, world)
    return replace(config, run=replace(config.run, name=config.run.name or config.recipe))


def train(config: Config, world: World, load: LoadRecipe) -> int:
    """Announce what was derived, and hand a valid configuration over to the recipe's assembly."""
    derived = derive(config, world)
    config = effective(config, derived)
    settled = prepare_trainium(config, world) if derived.backend == "neuron" else ()
    if world.rank == 0:
        what = "run" if world.launched is None else "rehearsal of"
        print(f"{what} {config.run.name}: recipe={config.recipe}, {config.model.name} on {world.size} process(es)")
        print("\n".join(f"  {line}" for line in (*derived.reasons, *settled)), flush=True)
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


def report(error: RunError, world: World, directory: Path | None) -> int:
    """Print the error, in full on the rank that reports it and as one line elsewhere; return its exit code.

    The first process of a node prints it in full too: what is wrong with that node, rank 0 may not see. Whoever ends
    first makes torchrun end the others: the others wait, so that the report is never lost.
    """
    if (world.rank == error.rank or world.leads_node) and not isinstance(error, ElsewhereError):
        prefix = f"rank {world.rank}: " if world.rank else ""
        print(prefix + error.report(), file=sys.stderr, flush=True)
        write_exit(directory, int(error.code), world.rank, error.title, error)
    else:
        print(f"rank {world.rank}: {error.one_line()}", file=sys.stderr, flush=True)
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
