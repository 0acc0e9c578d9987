"""Every command of docs/jobs.md is one that scripts/jobs.py knows, and the example is a job."""

from __future__ import annotations

import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from scripts.jobs import parser
from trainer.commands.jobs.load import load
from trainer.commands.jobs.timer import timers
from trainer.config.groups.job import JobConfig, JobPublishConfig
from trainer.errors import ConfigError
from trainer.jobs.work import Job

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text()
COMMANDS = re.findall(r"^\s*python scripts/jobs\.py (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_one(line: str) -> None:
    assert parser().parse_args(shlex.split(line)).word


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8


def test_the_example_is_a_job_that_does_nothing_yet() -> None:
    (job,) = load(ROOT / "conf" / "job")
    assert (job.name, job.config.enabled) == ("nightly", False)


def test_the_job_of_the_page_is_one(tmp_path: Path) -> None:
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "recipe:" in text]
    (tmp_path / "nightly.yaml").write_text(yaml.safe_dump(yaml.safe_load(block)))
    assert load(tmp_path)[0].config.publish.model == "assistant"


def test_timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (crontab,) = [line for line in timers("crontab", "conf/job", "jobs") if not line.startswith("#")]
    assert crontab.startswith(f"* * * * * cd {tmp_path} && ")
    assert " scripts/jobs.py --jobs conf/job --ledger jobs tick " in crontab
    unit = list(timers("systemd", "conf/job", "s3://bucket/jobs"))
    assert f"WorkingDirectory={tmp_path}" in unit
    assert "KillMode=process" in unit
    with pytest.raises(ConfigError, match="no overrides"):
        list(timers("crontab", "conf/job", "jobs", ["launcher.nodes=2"]))
    with pytest.raises(ConfigError, match="systemd, crontab"):
        list(timers("windows", "conf/job", "jobs"))
    with pytest.raises(ConfigError, match="%"):
        list(timers("crontab", "100%/job", "jobs"))


@pytest.mark.slow
def test_timers_of_clusters() -> None:
    image = ["launcher.kubernetes.image=registry.example.com/trainer:1", "launcher.kubernetes.volume_claim=shared"]
    text = "\n".join(timers("kubernetes", "conf/job", "runs/jobs", image))
    kinds = {one["kind"]: one for one in yaml.safe_load_all(text)}
    assert set(kinds) == {"ServiceAccount", "Role", "RoleBinding", "CronJob"}
    spec = kinds["CronJob"]["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    assert "scripts/jobs.py --jobs conf/job --ledger runs/jobs tick" in text
    with pytest.raises(ConfigError, match=r"launcher\.kubernetes\.image"):
        list(timers("kubernetes", "conf/job", "runs/jobs"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ledger", "registry", "refused"),
    [
        ("jobs", "runs/registry", ["--ledger"]),
        ("runs/jobs", "registry", ["night: publish.registry"]),
        ("/opt/trainer/runs/jobs", "s3://bucket/registry", []),
        ("s3://bucket/jobs", "/opt/trainer/runsets", ["night: publish.registry"]),
    ],
)
def test_what_a_clusters_tick_would_lose_is_refused(ledger: str, registry: str, refused: list[str]) -> None:
    jobs = [
        Job("night", JobConfig(recipe="tiny", publish=JobPublishConfig(registry=registry))),
        Job("off", JobConfig(recipe="tiny", enabled=False)),
    ]
    image = ["launcher.kubernetes.image=registry.example.com/trainer:1", "launcher.kubernetes.volume_claim=shared"]
    with pytest.raises(ConfigError) if refused else nullcontext() as raised:
        assert list(timers("kubernetes", "conf/job", ledger, image, jobs))
    assert [problem.key for problem in raised.value.problems] == refused if raised else not refused
