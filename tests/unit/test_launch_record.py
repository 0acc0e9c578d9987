"""What scripts/launch.py knows of the run that it launches, and how it corrects exit.json."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from trainer.commands.launch.asked import Asked, read
from trainer.commands.launch.attempt import Attempt
from trainer.commands.launch.ends import End, Verdict, judge
from trainer.commands.launch.nodes import Node, Nodes
from trainer.commands.launch.record import correct
from trainer.config.groups.reliability import ReliabilityConfig
from trainer.errors import ConfigError, Problem
from trainer.run.exit_json import write_crash, write_exit

TRAIN = str(harness.ROOT / "scripts" / "train.py")


def attempt(*ends: End, ranks: tuple[int, ...] = (0, 1)) -> Attempt:
    nodes = Nodes(None, 0, 1, Node("h", 0, 1))  # type: ignore[arg-type]
    nodes.tell(ends)
    return Attempt(nodes, ranks)


def record(run: Path, name: str = "exit.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / name).read_text())
    return content


KILLED = (End(1, -9, "b"), End(0, 1, "a"))


def test_the_killed_worker_is_the_cause_and_the_others_are_consequences(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000012").mkdir(parents=True)
    ended = attempt(*KILLED)
    write_crash(tmp_path, 0, RuntimeError("Connection reset by peer"))
    correct(tmp_path, judge(ended.ends), ended)
    found = record(tmp_path)
    assert found.pop("time")
    assert found == {
        "code": 137,
        "name": "KILLED",
        "title": "rank 1 was killed by SIGKILL (out of memory?)",
        "problems": [],
        "rank": 1,
        "host": "b",
        "consequences": [{"rank": 0, "host": "a", "code": 1, "title": "RuntimeError: Connection reset by peer"}],
        "newest_checkpoint_step": 12,
    }


def test_what_an_earlier_launch_has_left_is_no_consequence(tmp_path: Path) -> None:
    write_crash(tmp_path, 0, RuntimeError("long ago"))
    ended = attempt(*KILLED)
    ended.started_at = time.time() + 10
    correct(tmp_path, judge(ended.ends), ended)
    assert record(tmp_path)["consequences"] == [{"rank": 0, "host": "a", "code": 1}]


def test_a_cause_that_has_reported_keeps_its_report(tmp_path: Path) -> None:
    write_exit(tmp_path, 3, 0, "the configuration cannot run", ConfigError(Problem("a", 1, "r", "m")))
    before = (tmp_path / "exit.json").read_bytes()
    ended = attempt(End(0, 3, "a"), End(1, 1, "a"))
    correct(tmp_path, judge(ended.ends), ended)
    assert (tmp_path / "exit.json").read_bytes() == before


def test_the_node_of_the_cause_writes_and_all_do_for_one_that_is_gone(tmp_path: Path) -> None:
    elsewhere = attempt(*KILLED, ranks=(0,))
    correct(tmp_path, judge(elsewhere.ends), elsewhere)
    assert not (tmp_path / "exit.json").exists()
    gone = Verdict(12, "b (rank 1) went away", seen_by_workers=False)
    for _ in range(2):
        correct(tmp_path, gone, attempt(End(0, 1, "a"), ranks=(0,)))
        assert (record(tmp_path)["code"], record(tmp_path)["name"]) == (12, "HANG")
        assert record(tmp_path)["consequences"] == [{"rank": 0, "host": "a", "code": 1}]


def test_another_launch_that_holds_the_run_is_left_alone(tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        correct(tmp_path, judge(KILLED), attempt(*KILLED))
    assert not (tmp_path / "exit.json").exists()
    assert record(tmp_path, "exit.refused.json")["code"] == 137


@pytest.mark.parametrize(
    ("script", "arguments", "grace", "directory"),
    [
        (TRAIN, ["recipe=tiny", "reliability.grace_seconds=7"], 7, "runs/tiny"),
        (TRAIN, ["recipe=tiny", "run.name=n", "run.root=/data"], None, "/data/n"),
        (TRAIN, ["recipe=tiny", "backend=fake"], None, None),
        (TRAIN, ["recipe=tiny", "optim.lrr=1"], None, "runs/tiny"),  # a mistake, which the run will report
        (TRAIN, ["--config-path", "/x", "--config-name", "config", "run.name=again"], None, "runs/again"),
        (TRAIN, [], None, None),
        ("mine.py", ["recipe=tiny", "reliability.grace_seconds=7"], 7, None),
        ("mine.py", ["--flag", "value"], None, None),
    ],
)
def test_what_the_command_line_asks_for(
    script: str, arguments: list[str], grace: float | None, directory: str | None
) -> None:
    asked = read(script, arguments)
    assert asked.directory == (None if directory is None else Path(directory))
    assert grace is None or asked.grace_seconds == grace


def test_the_default_grace_is_the_configuration_s() -> None:
    assert Asked().grace_seconds == ReliabilityConfig.grace_seconds
