"""Names: the run's, plug-ins, trackers; and that no value is a secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from trainer.backends import BACKENDS
from trainer.config.keys import all_keys, flatten, is_element_key
from trainer.config.mistakes import nearest_key
from trainer.config.plugins import problem_of, problem_of_named
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.files import is_directory_name
from trainer.launchers import LAUNCHERS
from trainer.models.families import FAMILIES
from trainer.optim import OPTIMIZERS
from trainer.redact import HIDDEN, is_secret_key, redact
from trainer.run.world import World

RECIPES = Path(__file__).parents[2] / "recipes"
"""Read as text: rules import no recipe. A module there that has a ``run`` is a task; the others are parts."""


def recipe(config: Config, world: World) -> Iterator[Problem]:
    """The kind of training exists, and the run's name is a directory name."""
    tasks = sorted(path.stem for path in RECIPES.glob("[a-z]*.py") if "\ndef run(" in path.read_text(encoding="utf-8"))
    if config.task not in tasks:
        yield Problem("task", config.task, f"a module of recipes/: {', '.join(tasks)}", "set task to one of them")
    name = config.run.name
    if name is not None and not is_directory_name(name):
        yield Problem("run.name", name, "a plain directory name of at most 200 bytes", "set a short run.name")
    if not 0 <= config.seed < 2**63:
        yield Problem("seed", config.seed, "0 <= seed < 2**63", "use a smaller number")
    for key in config.resume.allow:
        if key not in ("data", *all_keys()) and not is_element_key(key):
            yield Problem("resume.allow", key, "keys of the configuration", f"did you mean {nearest_key(key)}?")


def plugins(config: Config, world: World) -> Iterator[Problem]:
    """A user's own code is named completely and can be found; importing it comes later."""
    targets: dict[str, str | None] = {}
    for index, source in enumerate(config.data.sources):
        key = f"data.sources.{index}"
        targets[f"{key}._target_"] = source._target_
        if (source.kind == "plugin") != (source._target_ is not None):
            rule = f"plugin if and only if _target_ is set (now {source._target_})"
            yield Problem(f"{key}.kind", source.kind, rule, "{kind: plugin, _target_: package.module.callable}")
    for key, target in targets.items():
        if target is not None and (problem := problem_of(key, target)) is not None:
            yield problem


def doors(config: Config, world: World) -> Iterator[Problem]:
    """model.family, optim.name, backend.name, launcher.name: of the table, or module:maker with options."""
    model, optim, backend, launcher = config.model, config.optim, config.backend, config.launcher
    yield from _door("model.family", model.family, FAMILIES, "trainer/models/families")
    yield from _options("model", model.options, model.family in FAMILIES)
    yield from _door("optim.name", optim.name, OPTIMIZERS, "trainer/optim")
    yield from _options("optim", optim.options, optim.name == "adamw")
    for name in {"lr", "weight_decay"} & set(optim.options):
        rule = f"not among the options: every step sets it from optim.{name}"
        yield Problem(f"optim.options.{name}", optim.options[name], rule, f"optim.{name}={optim.options[name]}")
    known = {"auto": "", "fake": "", **BACKENDS}
    yield from _door("backend.name", backend.name, known, "trainer/backends")
    yield from _options("backend", backend.options, backend.name in known)
    yield from _door("launcher.name", launcher.name, LAUNCHERS, "trainer/launchers")
    yield from _options("launcher", launcher.options, launcher.name in LAUNCHERS)


def _door(key: str, value: str, table: Mapping[str, str], where: str) -> Iterator[Problem]:
    if value in table or (wrong := problem_of_named(key, value)) is None:
        return
    known = f"an entry of {where}/__init__.py ({', '.join(table)}), or module:maker of your own"
    yield wrong if ":" in value else replace(wrong, rule=known, remedy=f"{key}={next(iter(table))}")


def _options(group: str, options: Mapping[str, object], ours: bool) -> Iterator[Problem]:
    if options and ours:
        rule = f"read only by a module:maker of your own: ours reads the values of {group} itself"
        yield Problem(f"{group}.options", dict(options), rule, "leave it out")


def tracker(config: Config, world: World) -> Iterator[Problem]:
    """W&B online needs an account."""
    if config.logging.wandb.mode == "online" and not world.wandb_account:
        rule = "needs an account: WANDB_API_KEY in the environment, or `wandb login` once"
        yield Problem("logging.wandb.mode", "online", rule, "provide one, or logging.wandb.mode=auto (offline without)")


def secrets(config: Config, world: World) -> Iterator[Problem]:
    """No value is a secret: config.yaml and the trackers keep every value. Names of secrets are none."""
    for key, value in flatten(asdict(config)).items():
        if redact(value) != value or (is_secret_key(key) and value and not _names_a_secret(key, value)):
            rule = "holds no secret: the run's config.yaml and its trackers would keep it"
            yield Problem(key, HIDDEN, rule, "take it out: libraries read their environment variables themselves")


def _names_a_secret(key: str, value: object) -> bool:
    """Whether a value says where a secret is kept: a Secret of Kubernetes by its name, one of AWS by its ARN."""
    return key == "launcher.kubernetes.secret" or (
        key.startswith("launcher.batch.secrets.") and str(value).startswith("arn:aws")
    )
