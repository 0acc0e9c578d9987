"""The runs that a comparison is of: found on the disk, and read as far as each has come."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from trainer.config.keys import element_of, flatten
from trainer.config.schema import Config
from trainer.errors import ExitCode, Problem, RunError
from trainer.observe.curves import Curve, UnreadableRun, distinct, read
from trainer.redact import redact
from trainer.run.directory import METRICS
from trainer.run.exit_json import EXIT
from trainer.run.trajectory import CONFIG

ENVIRONMENT = "environment.json"
_NO_SETTINGS = ("defaults", "hydra", "run")
"""What config.yaml holds beside the settings; the run's name and root differ between any two runs."""


class CompareError(RunError):
    """What was named is no run, or cannot be read."""

    code = ExitCode.CONFIG
    title = "the runs cannot be compared"


@dataclass(frozen=True)
class Compared:
    """One run. settings and machine: by dotted key."""

    path: Path
    curve: Curve
    settings: dict[str, Any]
    machine: dict[str, Any]
    """Versions, commit and host, as environment.json has them."""
    end: str
    """How its last launch ended, by exit.json: "0 DONE"."""

    @property
    def name(self) -> str:
        """Unlike the others' of the comparison."""
        return self.curve.name

    @property
    def last(self) -> tuple[int, float] | None:
        """Last step and its loss (nats per target token; NaN where it was not finite)."""
        return max(self.curve.loss.items(), default=None)

    @property
    def best(self) -> tuple[int, float] | None:
        """The first step with the lowest finite loss, and that loss."""
        finite = [(loss, step) for step, loss in self.curve.loss.items() if math.isfinite(loss)]
        return min(finite)[::-1] if finite else None

    @property
    def held_out(self) -> tuple[int, float] | None:
        """The last evaluation's step and bits per byte."""
        return max(self.curve.bits_per_byte.items(), default=None)

    @property
    def tokens_per_second(self) -> float | None:
        """Median over the steps: the first ones, which are slower, do not move it."""
        finite = [value for value in self.curve.tokens_per_second.values() if math.isfinite(value)]
        return median(finite) if finite else None


def collect(named: Sequence[Path]) -> list[Compared]:
    """The runs that were named, and those inside of directories of runs. Raises CompareError with every problem."""
    found: list[Path] = []
    problems: list[Problem] = []
    for path in named:
        runs = list(runs_of(path))
        if not runs:
            rule = f"a run, which has a {CONFIG} or {METRICS}, or a directory of runs"
            problems.append(Problem("run", str(path), rule, "look for it with ls runs"))
        found += [run for run in runs if run not in found]
    compared = []
    for path, name in zip(found, distinct(found), strict=True):
        try:
            compared.append(_read(path, name))
        except RunError as error:
            problems += error.problems
    if problems:
        raise CompareError(problems)
    return compared


def runs_of(path: Path) -> Iterator[Path]:
    """The path itself where it is a run, else its subdirectories that are runs."""
    with suppress(OSError):
        if _is_run(path):
            yield path
        elif path.is_dir():
            yield from sorted(inside for inside in path.iterdir() if _is_run(inside))


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (CONFIG, METRICS))


def _read(path: Path, name: str) -> Compared:
    """Raises UnreadableRun. What a run does not have yet is empty."""
    curve = read(path, name) if (path / METRICS).exists() else Curve(name)
    settings = _mapping(path / CONFIG, lambda text: yaml.safe_load(text))
    settings = {key: value for key, value in settings.items() if key not in _NO_SETTINGS}
    machine = {k: v for k, v in _mapping(path / ENVIRONMENT, json.loads).items() if k != "command"}
    ended = _mapping(path / EXIT, json.loads)
    end = f"{ended.get('code')} {ended.get('name')}" if ended else "no exit.json: it runs, or was killed"
    # A file that is older than a key means the schema's default.
    defaults = {k: v for k, v in dataclasses.asdict(Config()).items() if k not in _NO_SETTINGS} if settings else {}
    return Compared(path, curve, redact({**leaves(defaults), **leaves(settings)}), redact(leaves(machine)), end)


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    """A file that holds a mapping; empty where there is none."""
    try:
        values = parse(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ValueError("it holds no mapping")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        rule = f"its {path.name} can be read ({why})"
        raise UnreadableRun(Problem("run", str(path.parent), rule, "restore the file, or leave the run out")) from error
    return dict(values)


def leaves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, those of lists of groups by number: data.sources.0.weight."""
    found: dict[str, Any] = {}
    for key, value in flatten(values).items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                found |= flatten({**_defaults(element_of(f"{key}.{number}")), **item}, f"{key}.{number}.")
        else:
            found[key] = value
    return found


def _defaults(element: type | None) -> dict[str, Any]:
    """What a group of a list holds where a file says nothing."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(element) if element is not None else ():
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found
