"""Why a configuration did not compose: every wrong override and YAML key at once, where Hydra stops at the first."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from trainer.config import elements, grammar
from trainer.config.compose import COMPOSITION_KEYS
from trainer.config.elements import CONF
from trainer.config.groups.precision import HALF
from trainer.config.keys import all_keys, is_element_key
from trainer.config.mistakes import problems_in, unknown_key
from trainer.config.numbers import whole
from trainer.errors import ConfigError, Problem


def diagnose(overrides: Sequence[str], error: Exception, search_path: Sequence[Path] = ()) -> ConfigError:
    """Every problem that can be found in the overrides and the YAML they select; else Hydra's own words."""
    roots = [*search_path, CONF]
    sweeping = any(flag in sys.argv for flag in ("--multirun", "-m"))
    problems: list[Problem] = []
    parsed: list[Override] = []
    for text in overrides:
        if (override := grammar.parsed(text)) is not None:
            parsed.append(override)
        else:
            remedy = grammar.remedy(text, lambda again: not list(_override_problems(again, roots, sweeping)))
            problems.append(Problem(text, "(unreadable)", "an override reads key=value", remedy))
    for override in parsed:
        problems += _override_problems(override, roots, sweeping)
    problems += elements.out_of_range(parsed, search_path)
    for path in _selected_files(parsed, roots):
        problems += _file_problems(path, roots)
    if not problems:
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        rule = "; ".join(line.strip() for line in lines[:6])
        problems.append(Problem("(composition)", lines[0], rule, "see --help, or --cfg job on the recipe alone"))
    return ConfigError(problems)


def options(group: str, roots: Sequence[Path]) -> list[str]:
    """Names of a group's options, empty when there is no such group."""
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})


def _override_problems(override: Override, roots: Sequence[Path], sweeping: bool) -> Iterator[Problem]:
    key = (override.key_or_group or "").lstrip("/")
    if key.startswith("hydra"):
        return
    names = options(key, roots)
    if names:
        value = override.value() if not override.is_sweep_override() else None
        if not override.is_sweep_override() and not isinstance(value, str):
            yield Problem(key, value, f"one option of conf/{key}: {', '.join(names)}", f"write {key}={names[0]}, say")
        elif isinstance(value, str) and value not in names:
            near = difflib.get_close_matches(value, names, n=1)
            hint = f"did you mean {key}={near[0]}?" if near else f"use one of: {', '.join(names)}"
            hint = HALF if (key, value) == ("precision", "fp16") else hint
            yield Problem(key, value, f"an option of conf/{key}: {', '.join(names)}", hint)
        return
    if override.is_delete():
        return
    if not override.is_sweep_override():
        yield from problems_in(_tree(key, override.value()))
    elif key not in all_keys() and not is_element_key(key):
        yield unknown_key(key, "(swept)")
    elif not sweeping:
        number = whole((override.input_line or "").partition("=")[2])
        without = f"write {key}={number}" if number is not None else "quote a value with commas"
        yield Problem(key, "(several values)", "one value", f"add --multirun to sweep, or {without}")


def _tree(key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: _tree(rest, value) if rest else value}


def _selected_files(overrides: Sequence[Override], roots: Sequence[Path]) -> Iterator[Path]:
    """The YAML of every group option that the command line names."""
    for override in overrides:
        group = override.key_or_group or ""
        value = None if override.is_sweep_override() else override.value()
        if isinstance(value, str):
            for root in roots:
                path = root / group / f"{value}.yaml"
                if path.is_file():
                    yield path


def _file_problems(path: Path, roots: Sequence[Path]) -> Iterator[Problem]:
    where = next(str(path.relative_to(root.parent)) for root in roots if path.is_relative_to(root))
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield Problem(where, "(unreadable)", "valid YAML, in UTF-8", " ".join(str(error).split()))
        return
    if not isinstance(values, dict):
        yield Problem(where, values, "a mapping of keys to values", "write key: value lines")
        return
    for default in values.get("defaults", []):
        yield from _default_problems(default, where, roots)
    values = {key: value for key, value in values.items() if key not in COMPOSITION_KEYS}
    if "@package _global_" not in text:
        if path.parent.name == "recipe":
            rule = "begins with the line: # @package _global_"
            yield Problem(where, "(without it)", rule, "add it: a recipe sets values of every group")
            return
        values = {path.parent.name: values}
    for problem in problems_in(values):
        yield Problem(f"{problem.key} (in {where})", problem.value, problem.rule, problem.remedy)


def _default_problems(default: Any, where: str, roots: Sequence[Path]) -> Iterator[Problem]:
    """A recipe's own choices of group options."""
    if not isinstance(default, dict):
        return
    for name, value in default.items():
        group = str(name).removeprefix("override ").removeprefix("optional ").lstrip("/")
        if group.startswith("hydra") or value is None:
            continue
        names = options(group, roots)
        if not names:
            yield unknown_key(f"{group} (in {where})", value)
        elif value not in names:
            yield Problem(
                f"{group} (in {where})", value, f"an option of conf/{group}: {', '.join(names)}", "choose one"
            )
