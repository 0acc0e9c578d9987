"""Submissions of a run: who crashed before recording one finds it again, and what following makes of an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trainer.commands.submit import attempts, follow
from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.launchers.base import LaunchError, State, Status
from trainer.launchers.request import Request, Task
from trainer.launchers.submission import Submission, read_submission, write_submission
from trainer.trainium.environment import Variable


@dataclass
class Engine:
    """A launcher whose jobs stand as a test says."""

    statuses: list[Status]
    lines: list[str] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        return self.known.get(name)

    def status(self, id: str, request: Request) -> Status:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def logs(self, id: str, request: Request) -> Iterator[str]:
        return iter(self.lines)


def use(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    for module in (attempts, follow):
        monkeypatch.setattr(module, "launcher_of", lambda config: engine)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)


def made(run: Path, number: int, id: str | None = None) -> Submission:
    directory = attempts.attempt_directory(run, number)
    directory.mkdir(parents=True)
    request = Request(
        attempts.name_of_attempt(run, number),
        ("scripts/train.py", "a=b c"),
        directory,
        run=run,
        environment=(Variable("A", "1", "why", "where"),),
        tasks=(Task(("x=1",), run), Task(("x=2",))),
    )
    submission = Submission(request, LauncherConfig(nodes=3, environment={"B": "2"}), id)
    write_submission(submission)
    return submission


def test_a_submission_is_read_as_it_was_written(tmp_path: Path) -> None:
    submission = made(tmp_path / "run", 1, "17")
    assert read_submission(submission.request.directory) == submission


def test_one_of_several_submitters_at_once_submits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have seen that nothing was live."""
    run, engine = tmp_path / "run", Engine([Status(State.RUNNING)])
    use(monkeypatch, engine)

    def submit(number: int) -> str:
        try:
            with attempts.alone(run):
                attempts.refuse_live(run, "")
                made(run, len(attempts.numbers(run)) + 1, id="17")
                time.sleep(0.05)
        except LaunchError:
            return "refused"
        return "submitted"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(submit, range(4))) == ["refused"] * 3 + ["submitted"]


def test_a_launcher_that_does_not_answer_is_named_with_the_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has changed the launcher meanwhile would not know why another one is asked."""

    def silent(name: str) -> str | None:
        raise LaunchError(Problem("launcher.kubernetes", "kubectl get", "succeeds", "look"))

    engine = Engine([Status(State.RUNNING)])
    engine.find = silent  # type: ignore[method-assign]
    use(monkeypatch, engine)
    made(tmp_path / "run", 1)
    with pytest.raises(LaunchError, match=r"run/launch/0001 its launcher does not answer") as raised:
        attempts.refuse_live(tmp_path / "run", "")
    assert [problem.key for problem in raised.value.problems] == ["run.name", "launcher.kubernetes"]


def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(LaunchError, match=r"run\.root"), attempts.alone(tmp_path / "run"):
        pass


def test_names_tell_runs_and_attempts_apart(tmp_path: Path) -> None:
    names = {attempts.name_of_attempt(tmp_path / parent / "tiny", n) for parent in "ab" for n in (1, 2)}
    assert len(names) == 4


def test_one_that_was_not_recorded_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    made(run, 1, "16")
    lost = made(run, 2)
    engine = Engine([Status(State.RUNNING)], known={lost.request.name: "17"})
    use(monkeypatch, engine)
    found = attempts.newest(run)
    assert found is not None
    assert found.id == "17"
    recorded = read_submission(lost.request.directory)
    assert recorded is not None
    assert recorded.id == "17"
    with pytest.raises(LaunchError, match=r"17 .* is running"):
        attempts.refuse_live(run, "attach to it")


def test_one_that_never_came_about_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    made(run, 1, "16")
    made(run, 2)
    use(monkeypatch, Engine([Status(State.ENDED, 0)]))
    found = attempts.newest(run)
    assert found is not None
    assert found.id == "16"
    attempts.refuse_live(run, "")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status(State.PENDING), Status(State.RUNNING), Status(State.ENDED, 14, "gate")], 14),
        ([Status(State.UNKNOWN), Status(State.ENDED, 0)], 0),
        ([Status(State.ENDED, None, "gone")], 1),
    ],
)
def test_following_ends_with_the_jobs_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: list[Status],
    code: int,
) -> None:
    use(monkeypatch, Engine(statuses, ["one", "two"]))
    assert follow.follow(made(tmp_path / "run", 1, "17"), "--cancel") == code
    assert capsys.readouterr().out == "one\ntwo\n"


def test_nobody_waits_for_ever_for_an_engine_that_knows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Engine([Status(State.UNKNOWN, None, "no answer")]))
    monkeypatch.setattr(follow, "PATIENCE_SECONDS", 0.05)
    assert follow.follow(made(tmp_path / "run", 1, "17"), "--cancel") == 1
    assert "no answer" in capsys.readouterr().err
