"""A run is known by its name: who holds it, what it was started with, and whether it may go on.

runs/NAME/
  config.yaml        resolved; runs again as it is
  overrides.json     the command line's overrides
  environment.json   versions, host, git commit, variables that steer XLA and the Neuron runtime
  metrics.jsonl      one line a step
  checkpoints/
  tokenizer/         as transformers reads it; goes along with what scripts/export_hf.py writes
  hf/                with checkpoint.export_hf: a directory for each step, as scripts/export_hf.py writes them
  result.json        written when training is complete
  exit.json          how the last launch ended (trainer/run/exit_json.py)
  launches.jsonl     a line for each launch
  .lock              held as long as a launch lives (_lock below)
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import read_json, write_atomically, write_json
from trainer.redact import redact
from trainer.run.exit_json import LOCK, forget_exit, this_process
from trainer.run.trajectory import CONFIG, differences, refuse_changes
from trainer.trainium.environment import recorded
from trainer.trainium.installed import PACKAGES, WITH_THEM

CHECKPOINTS, TOKENIZER = "checkpoints", "tokenizer"
RESULT, METRICS, LAUNCHES = "result.json", "metrics.jsonl", "launches.jsonl"

_HEADER = """\
# Written by the run. Runs again as it is:
#   python scripts/train.py --config-path {directory} --config-name config run.name=again
defaults:
  - schema
  - _self_
  - override hydra/job_logging: disabled
  - override hydra/hydra_logging: disabled
hydra:
  output_subdir: null
  run: {{dir: .}}
  sweep: {{dir: "${{run.root}}/.sweeps", subdir: .}}
"""


@dataclass
class RunDirectory:
    """The directory of one run. Open it with ``open_run``."""

    path: Path
    result: dict[str, Any] | None
    """What the run ended with, if it is complete."""
    _lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        """Where this run's checkpoints are."""
        return self.path / CHECKPOINTS

    @property
    def tokenizer(self) -> Path:
        """Where this run keeps its tokenizer."""
        return self.path / TOKENIZER

    @property
    def exports(self) -> Path:
        """Where this run's weights go as Hugging Face directories."""
        return self.path / "hf"

    def begin(self, config: Config, overrides: list[str], step: int, evaluates_first: bool = False) -> list[str]:
        """Record what the run goes on with from ``step``; its first change on the disk. For rank 0 alone.

        evaluates_first: the evaluation of that step is done again.
        Everything that can refuse comes before: a refused launch leaves the run as it was. Returns a line for each
        value of the trajectory that resume.allow let change. Raises ConfigError when the records cannot be written.
        """
        changes = [str(change) for change in differences(self.path, config)] if step else []
        launch = environment()
        try:
            trim_metrics(self.path, step, evaluates_first)
            write_atomically(self.path / CONFIG, config_yaml(config, self.path))
            write_json(self.path / "overrides.json", redact(overrides))
            write_json(self.path / "environment.json", launch)
            with open(self.path / LAUNCHES, "a", encoding="utf-8") as launches:
                launches.write(json.dumps({"overrides": redact(overrides), **launch}) + "\n")
            (self.path / RESULT).unlink(missing_ok=True)  # of a shorter trajectory that resume.allow lengthens
        except OSError as error:
            raise self._takes_no_records(f"{error.strerror}: {error.filename}") from error
        return changes

    def finish(self, result: dict[str, Any]) -> None:
        """Record that training is complete. Raises ConfigError when that cannot be written."""
        try:
            write_json(self.path / RESULT, result)
        except OSError as error:
            raise self._takes_no_records(f"{error.strerror}") from error
        self.result = result

    def describe(self) -> list[str]:
        """The result of a complete run, for people."""
        return [f"run {self.path.name} is complete: {self.path}"] + [
            f"  {key:<32} {value:,.4f}" if isinstance(value, float) else f"  {key:<32} {value}"
            for key, value in (self.result or {}).items()
        ]

    def _takes_no_records(self, reason: str) -> ConfigError:
        rule = f"takes the run's records ({reason}); the checkpoints are untouched"
        return ConfigError(
            Problem("run.root", str(self.path), rule, "make room or restore access, then give the same command again")
        )

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()


def run_path(config: Config) -> Path:
    """Where the run of this configuration lives."""
    assert config.run.name is not None
    return Path(config.run.root) / config.run.name


def open_run(config: Config) -> RunDirectory:
    """Find or make the run's directory, and lock it; nothing that is there changes. For rank 0 alone.

    Raises ConfigError when the name belongs to a different or a live run, or the directory cannot be written. A run
    that is complete under the same trajectory is returned with its result, untouched.
    """
    path = run_path(config)
    if (done := _finished(path, config)) is not None:
        return done
    run = RunDirectory(path, result=None)
    try:
        path.mkdir(parents=True, exist_ok=True)
        run._lock = _lock(path)
        if (done := _finished(path, config)) is not None:  # by the process that held the lock until now
            run.close()
            return done
        refuse_changes(path, config)
        _refuse_broken_records(path)
        forget_exit(path)
    except OSError as error:
        run.close()
        raise ConfigError(
            Problem("run.root", str(path), f"can be written ({error.strerror})", "run.root=another directory")
        ) from error
    except ConfigError:
        run.close()
        raise
    return run


def _finished(path: Path, config: Config) -> RunDirectory | None:
    """The run with its result, if it is complete and nothing of the trajectory differs."""
    if not (path / RESULT).is_file() or not (path / CONFIG).is_file():
        return None
    try:
        result = read_json(path / RESULT)
    except ValueError as error:
        rule = f"its {RESULT} can be read ({error})"
        raise ConfigError(Problem("run.name", path.name, rule, "restore it, or use another run.name")) from error
    refuse_changes(path, config)
    return RunDirectory(path, result) if not differences(path, config) else None


def config_yaml(config: Config, path: Path) -> str:
    """The resolved configuration, with the header that lets Hydra run it again."""
    values = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    return _HEADER.format(directory=f"$PWD/{path}" if not path.is_absolute() else path) + values


def _refuse_broken_records(path: Path) -> None:
    """Raise ConfigError where a file that the launch would add lines to is none, or cannot be read and written."""
    for name in (METRICS, LAUNCHES):
        file = path / name
        if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
            rule = f"its {name} is a file that can be read and written"
            raise ConfigError(Problem("run.name", path.name, rule, "restore it, or use another run.name"))


def _lock(path: Path) -> IO[str]:
    """An advisory lock that the kernel drops with the process, kill -9 included."""
    lock = open(path / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - held until the run closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise ConfigError(
            Problem("run.name", path.name, f"no live run has this name ({holder} does)", "wait for it, or run.name=...")
        ) from None
    lock.truncate(0)
    lock.write(this_process())
    lock.flush()
    return lock


def environment() -> dict[str, Any]:
    """Versions, host and commit, for whoever asks later why two runs differ; of the variables those that steer XLA."""
    packages = (*PACKAGES, *WITH_THEM, "numpy", "datasets", "tokenizers", "safetensors", "hydra-core", "omegaconf")
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "git_commit": _git_commit(),
        "command": Path(sys.argv[0]).name,
        "variables": redact(recorded(os.environ)),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def trim_metrics(path: Path, step: int, evaluates_first: bool = False) -> None:
    """Drop the lines of metrics.jsonl that a resume from ``step`` will write again. evaluates_first: see begin."""
    file = path / METRICS
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            again = evaluates_first and record["step"] == step and record["kind"] in ("evaluation", "set")
            if record["step"] <= step and not again:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # the line that a kill cut short
    write_atomically(file, "".join(f"{line}\n" for line in kept))
