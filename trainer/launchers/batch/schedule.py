"""A command on a schedule (scripts/jobs.py tick): EventBridge Scheduler submits a small job of one container."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.launchers.base import LaunchError
from trainer.launchers.batch.aws import KEY
from trainer.launchers.batch.cron import expression
from trainer.launchers.batch.definition import definition, submission
from trainer.launchers.request import Request

TARGET = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
LATEST_SECONDS = 600
"""After its time: a later one is left out, and the next comes."""
LONGEST_SECONDS = 3600
"""Of one command: Batch ends one that hangs."""
VCPUS, MEMORY_MIB, SHARED_MEMORY_MIB = 1, 2048, 64


def schedule(request: Request, launcher: LauncherConfig, cron: str, time_zone: str) -> dict[str, str]:
    """job-definition.json, for register_job_definition, and schedule.json, for create_schedule.

    cron: five fields, read in time_zone (an IANA name). The command is started once, without accelerators.
    Raises LaunchError where Scheduler cannot say the schedule, or no role is named.
    """
    if not launcher.batch.schedule_role:
        rule = "names the role with which Scheduler submits"
        raise LaunchError(Problem(f"{KEY}.schedule_role", None, rule, f"{KEY}.schedule_role=arn:aws:iam::...:role/..."))
    small = {"instance": None, "vcpus": VCPUS, "memory_mib": MEMORY_MIB, "shared_memory_mib": SHARED_MEMORY_MIB}
    launcher = replace(launcher, batch=replace(launcher.batch, restarts=0, **small))  # type: ignore[arg-type]
    registered = definition(request, launcher) | {"timeout": {"attemptDurationSeconds": LONGEST_SECONDS}}
    submitted = {_pascal(key): value for key, value in submission(request, launcher).items()}
    found: dict[str, Any] = {
        "Name": request.name,
        "ScheduleExpression": expression(cron),
        "ScheduleExpressionTimezone": time_zone,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "ENABLED",
        "Target": {
            "Arn": TARGET,
            "RoleArn": launcher.batch.schedule_role,
            "Input": json.dumps(submitted),
            "RetryPolicy": {"MaximumEventAgeInSeconds": LATEST_SECONDS, "MaximumRetryAttempts": 3},
        },
    }
    files = {"job-definition.json": registered, "schedule.json": found}
    return {name: json.dumps(parameters, indent=2) + "\n" for name, parameters in files.items()}


def _pascal(key: str) -> str:
    """As Scheduler's universal target wants the parameters of a call."""
    return key[0].upper() + key[1:]
