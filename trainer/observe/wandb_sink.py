"""Weights & Biases. It never stops or slows training: its exceptions become one warning."""

from __future__ import annotations

import dataclasses
import os
import secrets
from pathlib import Path
from typing import Any

from trainer.config.schema import Config
from trainer.files import read_json, write_json
from trainer.observe.records import Record, StepRecord, to_json
from trainer.observe.sinks import Sink
from trainer.redact import redact

ID = "wandb.json"
_QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true", "WANDB_DISABLE_CODE": "true"}


class WandbSink:
    """Hands records to a W&B run, with ``step`` as the x axis."""

    def __init__(self, run: Any) -> None:
        self._run: Any = run
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def write(self, record: Record) -> None:
        """Log a record's numbers; evaluations and saves under their own prefix."""
        values = {key: value for key, value in to_json(record).items() if key != "kind"}
        prefix = "" if isinstance(record, StepRecord) else f"{record.kind}/"
        numbers = {key if key == "step" else f"{prefix}{key}": value for key, value in values.items()}
        try:
            self._run.log(redact(numbers))
        except Exception as error:
            warn(error)
            self._run = _Nobody()

    def close(self) -> None:
        """Let W&B write what it holds."""
        try:
            self._run.finish(quiet=True)
        except Exception as error:
            warn(error)


class _Nobody:
    """Replaces a run that failed."""

    def log(self, values: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, quiet: bool) -> None:
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


def warn(error: Exception) -> None:
    """Print that W&B gets no more records."""
    text = redact(" ".join(str(error).split())[:300])
    print(f"  W&B is left out from here on ({type(error).__name__}: {text}); metrics.jsonl has everything", flush=True)
