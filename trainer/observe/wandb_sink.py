"""Weights & Biases. It never stops or slows training: its exceptions become one warning."""

from __future__ import annotations

import dataclasses
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from trainer.config.schema import Config
from trainer.files import read_json, write_json
from trainer.observe.records import Record, SetRecord, StepRecord, to_json
from trainer.observe.sinks import Sink
from trainer.redact import redact

ID = "wandb.json"
_QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true", "WANDB_DISABLE_CODE": "true"}


class WandbSink:
    """Hands records to a W&B run under their own step: as the x axis, and as the step that W&B counts by.

    Without it every launch of a run would count its records from 0, and the parts of a resumed run would not join.
    W&B keeps what it has: rows of a step that it knows from before are not sent again.
    """

    def __init__(self, run: Any) -> None:
        self._run: Any = run
        self._first = int(run.starting_step)
        """The first step that W&B takes: 0, or where the part before this one ended (online)."""
        self._told = False
        self._row = 0
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def write(self, record: Record) -> None:
        """Log a record's numbers, into one row a step; evaluations and saves under their own prefix."""
        if record.step < self._first:
            if not self._told:
                print(f"  W&B has steps before {self._first} already, and keeps those", flush=True)
            self._told = True
            return
        values = {key: value for key, value in to_json(record).items() if key != "kind"}
        prefix = "" if isinstance(record, StepRecord) else f"{record.kind}/"
        if isinstance(record, SetRecord):
            prefix += f"{values.pop('set')}/"
        numbers = {key if key == "step" else f"{prefix}{key}": value for key, value in values.items()}
        self._row = max(self._row, record.step)
        if record.step < self._row:  # a save beside training ends later: W&B takes no row of an earlier step
            numbers |= {"step": self._row, f"{prefix}step": record.step}
        try:
            self._run.log(redact(numbers), step=self._row)
        except Exception as error:
            warn(error)
            self._run = _Nobody()

    def close(self) -> None:
        """Let W&B write what it holds. The run has failed where an exception is on its way through the caller."""
        try:
            self._run.finish(exit_code=int(sys.exc_info()[0] is not None))
        except Exception as error:
            warn(error)


class _Nobody:
    """Replaces a run that failed."""

    def log(self, values: dict[str, Any], step: int) -> None:
        """Nothing."""

    def finish(self, exit_code: int) -> None:
        """Nothing."""


def open_wandb(config: Config, directory: Path, account: bool) -> Sink | None:
    """The W&B run of this run's directory: the same one after a resume. None when it is off or fails to start."""
    wanted = config.logging.wandb
    if wanted.mode == "off":
        return None
    mode: Any = wanted.mode if wanted.mode != "auto" else ("online" if account else "offline")
    if wanted.mode == "auto":
        print(f"  W&B {mode}: {'found an account' if account else 'no account; wandb sync sends it later'}", flush=True)
    os.environ.update({key: os.environ.get(key, value) for key, value in _QUIET.items()})
    try:
        import wandb

        (directory / "wandb").mkdir(exist_ok=True)
        run = wandb.init(
            mode=mode,
            project=wanted.project,
            entity=wanted.entity,
            group=wanted.group,
            tags=wanted.tags,
            name=config.run.name,
            id=_id_of(directory),
            resume="allow",
            # A sweep's job after one whose run was not closed would log into that one's.
            reinit="finish_previous",
            dir=str(directory),
            config=redact(dataclasses.asdict(config)),
            # Command line and machine are not sent: both may hold secrets.
            settings=wandb.Settings(console="off", x_disable_meta=True, x_disable_stats=True, init_timeout=60),
        )
        return WandbSink(run)
    except Exception as error:
        warn(error)
        return None


def _id_of(directory: Path) -> str:
    """The random id of the directory's W&B run, made once."""
    path = directory / ID
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(8)})
    return str(read_json(path)["id"])


def forget_wandb(directory: Path) -> None:
    """Let the next launch be another W&B run: it begins anew, maybe with other settings, and shares no row."""
    (directory / ID).unlink(missing_ok=True)


def warn(error: Exception) -> None:
    """Print that W&B gets no more records."""
    text = redact(" ".join(str(error).split())[:300])
    print(f"  W&B is left out from here on ({type(error).__name__}: {text}); metrics.jsonl has everything", flush=True)
