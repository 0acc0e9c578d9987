"""What is kept of a submission beside its rendered files: enough to ask after it, follow and cancel it later."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from trainer.config.compose import to_config
from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import ConfigError, Problem
from trainer.files import read_json, write_json
from trainer.launchers.request import Request, Task
from trainer.trainium.environment import Variable

RECORD = "submission.json"


@dataclass(frozen=True)
class Submission:
    """A request, and by which launcher it was made. id: None until the engine has given one."""

    request: Request
    launcher: LauncherConfig
    id: str | None = None


def write_submission(submission: Submission) -> None:
    """Into the request's directory. Raises OSError."""
    values = {**asdict(submission), "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    write_json(submission.request.directory / RECORD, _plain(values))


def read_submission(directory: Path) -> Submission | None:
    """What was written there; None where nothing was. Raises ConfigError where it cannot be read."""
    path = directory / RECORD
    try:
        values = read_json(path)
        return Submission(
            _request(values["request"]), to_config({"launcher": values["launcher"]}).launcher, values["id"]
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = f"can be read ({type(error).__name__}: {error})"
        raise ConfigError(Problem("submission", str(path), rule, "restore it, or remove its directory")) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _request(values: dict[str, Any]) -> Request:
    """The request again. Raises TypeError for fields that it has not."""
    paths = {field.name for field in dataclasses.fields(Request) if "Path" in str(field.type)}
    given: dict[str, Any] = dict(values)
    given |= {key: Path(value) for key, value in values.items() if key in paths and value is not None}
    given["command"] = tuple(given["command"])
    given["environment"] = tuple(Variable(**variable) for variable in given["environment"])
    given["tasks"] = tuple(
        Task(tuple(task["arguments"]), Path(task["run"]) if task["run"] is not None else None)
        for task in given["tasks"]
    )
    return Request(**given)
