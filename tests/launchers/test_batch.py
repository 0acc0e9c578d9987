"""AWS Batch: golden files, botocore's own models of the calls, and what they say about codes, devices and nodes."""

from __future__ import annotations

import base64
import builtins
import email
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ParamValidationError

from tests.launchers.rendered import GOLDEN, batch, of_batch, on_cpu, request, tick
from trainer.launchers.base import LaunchError
from trainer.launchers.batch.cron import expression
from trainer.launchers.batch.launcher import BatchLauncher
from trainer.launchers.batch.schedule import schedule
from trainer.launchers.request import Request
from trainer.trainium.environment import Variable

RENDERED = of_batch()
CALLS = {
    "job-definition.json": ("batch", "register_job_definition"),
    "submit-job.json": ("batch", "submit_job"),
    "launch-template.json": ("ec2", "create_launch_template"),
    "schedule.json": ("scheduler", "create_schedule"),
}


def rendered(asked: Request, name: str = "job-definition.json", **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BatchLauncher(batch(**settings)).render(asked)[name])
    return found


def problem_keys(asked: Request, **settings: Any) -> list[str]:
    launcher = BatchLauncher(batch(**settings))
    return [problem.key for problem in launcher.problems(asked, launcher.render(asked))]


class Sent(Exception):
    """The client has nothing to object."""


def called(name: str, parameters: dict[str, Any]) -> None:
    """Raises what the real client raises before it sends anything."""

    def send(**request: Any) -> None:
        raise Sent

    service, call = CALLS[name]
    client = boto3.client(service, region_name="us-west-2", aws_access_key_id="a", aws_secret_access_key="b")
    client.meta.events.register("before-send", send)
    with pytest.raises(Sent):
        getattr(client, call)(**parameters)


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_rendered_is_golden_and_the_client_takes_it(name: str) -> None:
    assert RENDERED[name] == (GOLDEN / name).read_text(), "python -m tests.launchers.write_manifests"
    called(Path(name).name, json.loads(RENDERED[name]))


def test_golden_files_are_all_rendered() -> None:
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("batch/**/*.json")} == set(RENDERED)


def test_the_client_refuses_a_field_that_is_none() -> None:
    found = json.loads(RENDERED["batch/nodes/job-definition.json"])
    found["nodeProperties"]["nodeRangeProperties"][0]["container"]["devices"] = []
    with pytest.raises(ParamValidationError, match="devices"):
        called("job-definition.json", found)
    launcher = BatchLauncher(batch())
    (problem,) = launcher.problems(request(), {"job-definition.json": json.dumps(found)})
    assert "devices" in problem.rule


def action(code: int | None, status: str = "Task failed") -> str:
    """What Batch does: the first line all of whose patterns fit; where none does it tries again."""
    found = {"onExitCode": "" if code is None else str(code), "onStatusReason": status, "onReason": "Essential"}
    lines = rendered(request())["retryStrategy"]["evaluateOnExit"]
    assert len(lines) <= 5

    def fits(pattern: str, text: str) -> bool:
        return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern

    for line in lines:
        if all(fits(pattern, found[key]) for key, pattern in line.items() if key != "action"):
            return str(line["action"])
    return "RETRY"


def test_which_codes_are_tried_again() -> None:
    assert {code: action(code) for code in (0, 3, 4, 11, 14, 2)} == dict.fromkeys((0, 3, 4, 11, 14, 2), "EXIT")
    again = (1, 10, 12, 13, 15, 134, 137, 139, 143)
    assert {code: action(code) for code in again} == dict.fromkeys(again, "RETRY")
    assert action(None, "Host EC2 (instance i-0123) terminated.") == "RETRY"
    assert rendered(request(), restarts=9)["retryStrategy"]["attempts"] == 10


def test_nodes_and_devices() -> None:
    found = rendered(request())
    nodes = found["nodeProperties"]
    assert (found["type"], nodes["numNodes"], nodes["mainNode"]) == ("multinode", 4, 0)
    (group,) = nodes["nodeRangeProperties"]
    assert group["targetNodes"] == "0:"
    assert group["container"]["instanceType"] == "trn1.32xlarge"
    devices = {device["hostPath"] for device in group["container"]["linuxParameters"]["devices"]}
    expected = {f"/dev/neuron{n}" for n in range(16)} | {f"/dev/infiniband/uverbs{n}" for n in range(8)}
    assert devices == expected
    assert found["timeout"]["attemptDurationSeconds"] == 600 * 60 - 90
    assert rendered(on_cpu(), instance=None)["type"] == "container"


def test_the_launch_template_gives_efa_and_time() -> None:
    data = rendered(request(grace_seconds=300.0), "launch-template.json", instance="trn1n.32xlarge")[
        "LaunchTemplateData"
    ]
    cards = data["NetworkInterfaces"]
    assert [card["NetworkCardIndex"] for card in cards] == list(range(16))
    assert [card["DeviceIndex"] for card in cards] == [0] + [1] * 15
    assert {card["InterfaceType"] for card in cards} == {"efa"}
    message = email.message_from_bytes(base64.b64decode(data["UserData"]))
    (part,) = message.get_payload()
    assert part.get_content_type() == "text/x-shellscript"
    assert "ECS_CONTAINER_STOP_TIMEOUT=330s" in part.get_payload()


@pytest.mark.parametrize(
    ("cron", "written"),
    [
        ("30 2 * * *", "cron(30 2 * * ? *)"),
        ("*/15 * * * *", "cron(0,15,30,45 * * * ? *)"),
        ("5-50/20 */12 * * *", "cron(5,25,45 0,12 * * ? *)"),
        ("0 0 1 */3 *", "cron(0 0 1 1,4,7,10 ? *)"),
        ("0 3 * * 1-5", "cron(0 3 ? * 2,3,4,5,6 *)"),
        ("0 3 * * 5-7", "cron(0 3 ? * 1,6,7 *)"),
        ("0 3 * * 0", "cron(0 3 ? * 1 *)"),
        ("0 3 * jan,Dec mon", "cron(0 3 ? 1,12 2 *)"),
        ("10/20 0 * * *", "cron(10,30,50 0 * * ? *)"),
    ],
)
def test_cron_as_the_scheduler_writes_it(cron: str, written: str) -> None:
    assert expression(cron) == written


@pytest.mark.parametrize(
    "cron", ["* * * *", "60 * * * *", "0 0 1 * 1", "0 0 * * mon-", "5-1 * * * *", "*/0 * * * *", "@daily", "0 0 L * *"]
)
def test_what_the_scheduler_cannot_say(cron: str) -> None:
    with pytest.raises(LaunchError) as caught:
        expression(cron)
    assert caught.value.problems[0].value == cron


def test_a_schedule_needs_a_role_and_submits_what_it_registers() -> None:
    with pytest.raises(LaunchError, match=r"launcher\.batch\.schedule_role"):
        schedule(tick(), batch(), "0 * * * *", "UTC")
    found = json.loads(RENDERED["batch/tick/schedule.json"])
    submitted = json.loads(found["Target"]["Input"])
    assert submitted["JobDefinition"] == json.loads(RENDERED["batch/tick/job-definition.json"])["jobDefinitionName"]
    called("submit-job.json", {key[0].lower() + key[1:]: value for key, value in submitted.items()})
    assert found["ScheduleExpressionTimezone"] == "Europe/Berlin"
    container = json.loads(RENDERED["batch/tick/job-definition.json"])["containerProperties"]
    assert container["command"][2].splitlines()[-1] == "exec python scripts/jobs.py tick"
    assert container["linuxParameters"]["devices"] == []


@pytest.mark.parametrize(
    ("asked", "settings", "key"),
    [
        ({}, {"image": None}, "launcher.batch.image"),
        ({}, {"queue": None}, "launcher.batch.queue"),
        ({}, {"file_system": None}, "launcher.batch.file_system"),
        ({}, {"file_system": "runs"}, "launcher.batch.file_system"),
        ({}, {"restarts": 10}, "launcher.batch.restarts"),
        ({}, {"job_role": "trainer"}, "launcher.batch.job_role"),
        ({}, {"secrets": {"A": "b"}, "execution_role": "arn:aws:iam::1:role/a"}, "launcher.batch.secrets.A"),
        ({}, {"secrets": {"A": "arn:aws:ssm:us-west-2:1:parameter/a"}}, "launcher.batch.execution_role"),
        ({}, {"instance": "trn1.2xlarge"}, "launcher.batch.instance"),
        ({"run": Path("/data/runs/a")}, {}, "run.root"),
        ({"limit_minutes": 2.0}, {}, "launcher.limit_minutes"),
        ({"environment": (Variable("AWS_BATCH_JOB_ID", "1", "", ""),)}, {}, "launcher.environment"),
        ({"environment": (Variable("LONG", "x" * 40000, "", ""),)}, {}, "launcher.environment"),
    ],
)
def test_a_mistake_is_one_problem(asked: dict[str, Any], settings: dict[str, Any], key: str) -> None:
    assert problem_keys(request(**asked), **settings) == [key]


def test_a_request_without_mistakes() -> None:
    assert problem_keys(request()) == []
    assert problem_keys(on_cpu(run=None), instance=None, file_system=None) == []


def without(*missing: str) -> Callable[..., Any]:
    """import, where these are not installed."""
    real = builtins.__import__

    def imported(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in missing:
            raise ImportError(name)
        return real(name, *rest, **more)

    return imported


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = BatchLauncher(batch())
    files = launcher.render(request())
    monkeypatch.setattr(builtins, "__import__", without("boto3", "botocore"))
    (problem,) = launcher.problems(request(), files)
    assert "pip install" in problem.remedy
    with pytest.raises(LaunchError, match="not installed"):
        launcher.find("nightly-20260930")
