"""The real client against moto's server; where moto has no jobs of several nodes, against botocore's stubs."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from tests.launchers.rendered import batch, of_batch, request
from trainer.launchers.base import LaunchError, State
from trainer.launchers.batch.launcher import BatchLauncher
from trainer.launchers.request import Request

if TYPE_CHECKING:
    from tests.s3 import Server

GROUP = "/aws/batch/job"


@pytest.fixture
def aws(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes clients of an account that has a queue `trn1`. Jobs succeed at once: nothing runs them."""
    from moto.core.config import default_user_config  # takes a second

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setitem(default_user_config, "batch", {"use_docker": False})
    client = boto3.client("batch")
    if not client.describe_job_queues(jobQueues=["trn1"])["jobQueues"]:
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        role = boto3.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        client.create_compute_environment(computeEnvironmentName="trn1", type="UNMANAGED", serviceRole=role)
        order = [{"order": 1, "computeEnvironment": "trn1"}]
        client.create_job_queue(jobQueueName="trn1", state="ENABLED", priority=1, computeEnvironmentOrder=order)
    return boto3.client


def asked(tmp_path: Path, **changed: Any) -> Request:
    """Of a name that no other test has: they share the account."""
    settings = {
        "name": f"nightly-{uuid.uuid4().hex[:8]}",
        "directory": tmp_path / "launch",
        "run": tmp_path / "runs" / "a",
        "working_directory": tmp_path,
    }
    return request(**settings | changed)


@pytest.mark.parametrize("nodes", [1, 4])
def test_a_job_from_its_submission_to_its_end(nodes: int, aws: Any, tmp_path: Path) -> None:
    launcher, wanted = BatchLauncher(batch()), asked(tmp_path, nodes=nodes)
    assert launcher.find(wanted.name) is None
    id = launcher.submit(wanted)
    assert launcher.find(wanted.name) == id
    assert launcher.find(wanted.name[:-1]) is None
    (job,) = aws("batch").describe_jobs(jobs=[id])["jobs"]
    (registered,) = aws("batch").describe_job_definitions(jobDefinitionName=wanted.name)["jobDefinitions"]
    assert job["jobName"] == wanted.name
    assert job["jobDefinition"] == registered["jobDefinitionArn"]
    assert registered["type"] == ("multinode" if nodes > 1 else "container")
    kept = json.loads((tmp_path / "launch" / "job-definition.json").read_text())
    assert registered["retryStrategy"]["attempts"] == kept["retryStrategy"]["attempts"] == 4
    status = launcher.status(id, wanted)
    assert (status.state, status.code) == (State.ENDED, 0)
    with pytest.raises(LaunchError, match="there is " + id):
        launcher.submit(wanted)
    launcher.cancel(id)
    assert launcher.status("11111111-2222-3333-4444-555555555555", wanted).state is State.UNKNOWN


def test_the_schedule_and_the_template_are_taken(aws: Any) -> None:
    files = of_batch()
    aws("batch").register_job_definition(**json.loads(files["batch/tick/job-definition.json"]))
    aws("scheduler").create_schedule(**json.loads(files["batch/tick/schedule.json"]))
    found = aws("scheduler").get_schedule(Name="tick")
    assert found["ScheduleExpressionTimezone"] == "Europe/Berlin"
    submitted = {key[0].lower() + key[1:]: value for key, value in json.loads(found["Target"]["Input"]).items()}
    assert aws("batch").submit_job(**submitted)["jobName"] == "tick"
    aws("ec2").create_launch_template(**json.loads(files["batch/nodes/launch-template.json"]))
    (template,) = aws("ec2").describe_launch_template_versions(LaunchTemplateName="trainer-efa")[
        "LaunchTemplateVersions"
    ]
    assert len(template["LaunchTemplateData"]["NetworkInterfaces"]) == 8


def test_the_lines_of_a_job(aws: Any, tmp_path: Path) -> None:
    launcher, wanted = BatchLauncher(batch()), asked(tmp_path, nodes=1)
    id = launcher.submit(wanted)
    stream = aws("batch").describe_jobs(jobs=[id])["jobs"][0]["container"]["logStreamName"]
    logs = aws("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    now = int(datetime.now(timezone.utc).timestamp() * 1000)
    lines = [f"step {number}" for number in range(12000)]  # more than a page
    for first in range(0, len(lines), 6000):
        events = [{"timestamp": now, "message": line} for line in lines[first : first + 6000]]
        logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
    assert [*launcher.logs(id, wanted)] == lines


@pytest.mark.parametrize(
    ("settings", "said", "remedy"),
    [({"queue": "none"}, "none", "describe-job-queues"), ({"region": "mars"}, "mars", "AWS_ENDPOINT_URL")],
)
def test_what_aws_refuses(settings: dict[str, str], said: str, remedy: str, aws: Any, tmp_path: Path,
                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if "region" in settings:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        said = "127.0.0.1:9"
    with pytest.raises(LaunchError) as caught:
        BatchLauncher(batch(**settings)).submit(asked(tmp_path))
    assert said in caught.value.problems[0].rule
    assert remedy in caught.value.problems[0].remedy


def container(code: int | None, stream: str = "s") -> dict[str, Any]:
    return {"logStreamName": stream} | ({} if code is None else {"exitCode": code})


def described(id: str, status: str, *codes: int | None, reason: str = "") -> dict[str, Any]:
    """As describe_jobs says it."""
    attempts = [{"container": container(code, f"{id}/{number}")} for number, code in enumerate(codes)]
    job = {"jobId": id, "jobArn": "a", "jobName": "nightly", "jobQueue": "trn1", "jobDefinition": "d", "startedAt": 0}
    return {**job, "status": status, "statusReason": reason, "createdAt": 1_790_000_000_000, "attempts": attempts}


@pytest.mark.parametrize(
    ("whole", "main", "state", "code"),
    [
        (described("i", "RUNNABLE", reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"), [], State.PENDING, None),
        (described("i", "RUNNING", 10), [described("i#0", "RUNNING", 10)], State.RUNNING, None),
        (described("i", "FAILED"), [described("i#0", "FAILED", 10, 11)], State.ENDED, 11),
        (described("i", "FAILED"), [described("i#0", "FAILED", 10, None)], State.ENDED, None),
        (described("i", "SUCCEEDED"), [described("i#0", "SUCCEEDED", 1, 0)], State.ENDED, 0),
    ],
)
def test_where_a_job_of_several_nodes_stands(
    whole: dict[str, Any], main: list[dict[str, Any]], state: State, code: int | None, aws: Any, tmp_path: Path
) -> None:
    launcher, wanted = BatchLauncher(batch()), asked(tmp_path)
    with Stubber(launcher._batch) as stubber:
        stubber.add_response("describe_jobs", {"jobs": [whole]}, {"jobs": ["i"]})
        stubber.add_response("describe_jobs", {"jobs": main}, {"jobs": ["i#0"]})
        status = launcher.status("i", wanted)
    assert (status.state, status.code) == (state, code)
    if state is State.PENDING:
        assert "JOB_RESOURCE_REQUIREMENT" in status.reason


@pytest.mark.parametrize("status", ["RUNNING", "FAILED"])
def test_the_lines_of_several_nodes(status: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first node's, attempt by attempt; the others' when none of them can be added to any more."""
    launcher, wanted = BatchLauncher(batch()), asked(tmp_path, nodes=2)
    monkeypatch.setattr(launcher, "_lines", lambda stream: iter([f"line of {stream}"]))
    jobs = [described("i", status), described("i#0", status, 10, 11), described("i#1", status, 10)]
    with Stubber(launcher._batch) as stubber:
        stubber.add_response("describe_jobs", {"jobs": jobs}, {"jobs": ["i", "i#0", "i#1"]})
        found = [*launcher.logs("i", wanted)]
    first = ["line of i#0/0", "line of i#0/1"]
    assert found == (first if status == "RUNNING" else [*first, "node 1: line of i#1/0"])


def test_exit_json_goes_before(aws: Any, tmp_path: Path) -> None:
    launcher, wanted = BatchLauncher(batch()), asked(tmp_path, nodes=1)
    assert wanted.run is not None
    wanted.run.mkdir(parents=True)
    record = {"code": 10, "title": "preempted, saved", "time": "2027-01-01T00:00:00+00:00"}
    (wanted.run / "exit.json").write_text(json.dumps(record))
    with Stubber(launcher._batch) as stubber:
        stubber.add_response("describe_jobs", {"jobs": [described("i", "FAILED", 137)]}, {"jobs": ["i"]})
        assert launcher.status("i", wanted).code == 10
