"""Code that the configuration names, ours or a user's: the only place where names become code.

A door's value (model.family, optim.name) reads module:maker; ``_target_`` of a source reads module.name.
"""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, Problem, RunError

REMEDY = "check its spelling, and that PYTHONPATH leads to it (PYTHONPATH=. for the current directory)"


def problem_of(key: str, target: str) -> Problem | None:
    """What is wrong with a target as far as can be told without importing it."""
    package, _, rest = target.partition(".")
    if not rest or not all(part.isidentifier() for part in target.split(".")):
        return Problem(key, target, "a dotted name: package.module.name", "write it in full, as an import would")
    if importlib.util.find_spec(package) is None:
        return Problem(key, target, f"Python finds the module {package}", REMEDY)
    return None


def problem_of_named(key: str, text: str) -> Problem | None:
    """What is wrong with a door's module:maker as far as can be told without importing it."""
    module, _, name = text.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return Problem(key, text, "a name of the table, or module:maker", "write it as package.module:maker")
    return problem_of(key, f"{module}.{name}")


def load_named(key: str, text: str) -> Any:
    """What a door's module:maker names. Raises ConfigError where it cannot be imported."""
    if (problem := problem_of_named(key, text)) is not None:
        raise ConfigError(problem)
    return load(key, text.replace(":", "."))


def call_named(key: str, text: str, *arguments: Any) -> Any:
    """Import a door's module:maker and call it. Raises ConfigError as ``call`` does."""
    if (problem := problem_of_named(key, text)) is not None:
        raise ConfigError(problem)
    return call(key, text.replace(":", "."), *arguments, options={})


def load(key: str, target: str) -> Any:
    """What a dotted name stands for. Raises ConfigError where it cannot be imported."""
    if (problem := problem_of(key, target)) is not None:
        raise ConfigError(problem)
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module does when it is imported
        rule = f"can be imported ({told(error)})"
        raise ConfigError(Problem(key, target, rule, REMEDY)) from error


def call(key: str, target: str, *arguments: Any, options: Mapping[str, Any]) -> Any:
    """Import ``target`` and call it. Raises ConfigError when it cannot be imported or does not take the options."""
    function = load(key, target)
    try:
        return function(*arguments, **options)
    except RunError:
        raise
    except Exception as error:  # whatever the user's code does
        rule = f"takes its options {dict(options)} ({told(error)})"
        raise ConfigError(Problem(key, target, rule, "correct the options, or the plug-in")) from error


def told(error: BaseException) -> str:
    """What a user's code raised, and where, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
