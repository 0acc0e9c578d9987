"""A job definition of AWS Batch, and the submission that refers to it: what boto3's calls are given, as JSON."""

from __future__ import annotations

from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.launchers.batch.containers import container
from trainer.launchers.container import seconds_before_the_limit
from trainer.launchers.request import Request

TAGS = {"managed-by": "trainer-submit"}
MOST_ATTEMPTS = 10
"""That Batch allows."""
EVALUATE_ON_EXIT = (
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onExitCode": "11", "action": "EXIT"},
    {"onExitCode": "14", "action": "EXIT"},
    {"onExitCode": "1*", "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
)
"""First that fits. A lost machine; then of what begins with 1 all but 11 and 14: 1, 10, 12, 13, 15, 128 + n. Then the
rest, 3 and 4 among it: without a last line Batch would try again whatever no line names. It takes five lines, so 13 is
tried again too, which ends in seconds.
"""


def definition(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """For register_job_definition."""
    properties = container(request, launcher)
    found: dict[str, Any] = {"jobDefinitionName": request.name}
    if request.nodes == 1:  # also on compute environments that Batch does not use for several nodes, such as spot
        found |= {"type": "container", "containerProperties": properties}
    else:
        if launcher.batch.instance:
            properties = {"instanceType": launcher.batch.instance, **properties}
        group = {"targetNodes": "0:", "container": properties}
        nodes = {"numNodes": request.nodes, "mainNode": 0, "nodeRangeProperties": [group]}
        found |= {"type": "multinode", "nodeProperties": nodes}
    attempts = {"attempts": launcher.batch.restarts + 1, "evaluateOnExit": [dict(rule) for rule in EVALUATE_ON_EXIT]}
    found |= {"retryStrategy": attempts, "propagateTags": True, "tags": dict(TAGS)}
    if (seconds := seconds_before_the_limit(request)) is not None:
        found["timeout"] = {"attemptDurationSeconds": seconds}
    return found


def submission(request: Request, launcher: LauncherConfig) -> dict[str, Any]:
    """For submit_job: the newest revision of the definition."""
    found: dict[str, Any] = {
        "jobName": request.name,
        "jobQueue": launcher.batch.queue,
        "jobDefinition": request.name,
        "propagateTags": True,
        "tags": dict(TAGS),
    }
    return found | ({"shareIdentifier": launcher.batch.share} if launcher.batch.share else {})
