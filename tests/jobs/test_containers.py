"""A job whose stages run in containers: what they would not find, or lose, is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.commands.jobs.act import run
from trainer.config.groups.job import JobConfig, JobPublishConfig, JobScheduleConfig, JobSetConfig
from trainer.jobs.ledger import Ledger
from trainer.jobs.work import Job

CLUSTER = [
    "launcher=kubernetes",
    "launcher.kubernetes.image=registry.example.com/trainer:1",
    "launcher.kubernetes.volume_claim=shared",
    "launcher.kubernetes.instance=null",
    "data.sources=[{name: text, paths: [runs/text]}]",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "registry", "code", "said"),
    [
        ("frozen.txt", "registry", 3, ["sets.0.paths = frozen.txt", "publish.registry = registry"]),
        ("runs/frozen.txt", "runs/registry", 4, ["sets.0.paths = runs/frozen.txt", "it does not exist"]),
    ],
)
def test_sets_and_registry_have_to_be_on_the_volume(
    place: str, registry: str, code: int, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/text").mkdir(parents=True)
    Path("runs/text/a.txt").write_text("Some text.\n" * 100)
    config = JobConfig(
        recipe="tiny",
        overrides=CLUSTER,
        schedule=JobScheduleConfig(new_data=True),
        sets=[JobSetConfig(name="frozen", paths=[place])],
        publish=JobPublishConfig(registry=registry),
    )
    ledger = Ledger.at("runs/jobs")
    assert run(Job("night", config), ledger) == code
    one = ledger.occurrence("night", ledger.slots("night")[-1])
    assert [text for text in said if text not in one.why] == [], one.why
