"""launcher=slurm without a Slurm: what its commands said, recorded from 22.05, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.commands.launch.nodes import Node
from trainer.config.groups.launcher import LauncherConfig, SlurmConfig
from trainer.launchers.base import LaunchError, State
from trainer.launchers.request import Request, Task
from trainer.launchers.slurm import after, launcher, tools
from trainer.launchers.slurm.after import Start, decide
from trainer.launchers.slurm.launcher import SlurmLauncher
from trainer.run.exit_json import write_exit
from trainer.training.watchdog import Place, blame

JOB = (
    "JobId=17 JobName=job UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=(null)"
    " QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0"
    " RunTime=00:00:03 TimeLimit=UNLIMITED TimeMin=N/A SubmitTime=2026-11-30T16:26:10 EligibleTime=2026-11-30T16:26:10"
    " AccrueTime=2026-11-30T16:26:10 StartTime=2026-11-30T16:26:12 EndTime=Unknown ReqNodeList=(null)"
    " ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=4 NumTasks=2 CPUs/Task=1"
    " ReqB:S:C:T=0:0:*:* TRES=cpu=4,node=2,billing=4 Command=/shared/job.sbatch WorkDir=/work Power= \n"
)
"""What `scontrol show job --oneliner` prints."""


def job(**fields: str) -> str:
    """It with other values."""
    text = JOB
    for name, value in fields.items():
        (old,) = [word for word in JOB.split() if word.startswith(f"{name}=")]
        text = text.replace(f" {old} ", f" {name}={value} ") if name != "JobId" else text.replace(old, f"JobId={value}")
    return text


class Commands:
    """Slurm's commands: answers by their first words, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str | Callable[[], str]]) -> None:
        self.answers, self.asked = answers, list[str]()
        for module in (tools, after, launcher):
            monkeypatch.setattr(module, "slurm", self)

    def __call__(self, *command: str, given: str = "") -> str:
        line = " ".join(command)
        self.asked.append(line)
        for begin, answer in self.answers.items():
            if line.startswith(begin):
                return answer if isinstance(answer, str) else answer()
        return ""


def refuse(text: str) -> Callable[[], str]:
    def raise_it() -> str:
        raise tools.Refused(tools.Problem("slurm", "?", text, "?"), text)

    return raise_it


def request(tmp_path: Path, **more: object) -> Request:
    return replace(Request("job", ("scripts/train.py",), tmp_path / "launch", run=tmp_path / "run"), **more)


@pytest.mark.parametrize(
    ("fields", "state", "code"),
    [
        ({}, State.RUNNING, None),
        ({"JobState": "PENDING"}, State.PENDING, None),
        ({"JobState": "COMPLETING"}, State.RUNNING, None),
        ({"JobState": "COMPLETED"}, State.ENDED, 0),
        ({"JobState": "FAILED", "ExitCode": "4:0"}, State.ENDED, 4),
        ({"JobState": "CANCELLED", "ExitCode": "0:15"}, State.ENDED, 143),
        ({"JobState": "TIMEOUT"}, State.ENDED, None),
        ({"JobState": "NODE_FAIL"}, State.ENDED, None),
    ],
)
def test_states_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], state: State, code: int | None
) -> None:
    Commands(monkeypatch, {"scontrol show job": job(**fields)})
    status = SlurmLauncher(LauncherConfig()).status("17", request(tmp_path))
    assert (status.state, status.code) == (state, code)


def test_what_the_run_says_goes_before_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled, and it saved all the same; the job's own end goes before both, also when Slurm has forgotten it."""
    commands = Commands(monkeypatch, {"scontrol show job": job(JobState="CANCELLED", ExitCode="0:15")})
    asked, slurm = request(tmp_path), SlurmLauncher(LauncherConfig())
    write_exit(tmp_path / "run", 10, 0, "stopped")
    assert slurm.status("17", asked).code == 10
    commands.answers["scontrol show job"] = refuse("slurm_load_jobs error: Invalid job id specified")
    assert slurm.status("17", asked).state is State.UNKNOWN
    asked.directory.mkdir()
    (asked.directory / "end.json").write_text(json.dumps({"code": 11, "reason": "no"}))
    assert slurm.status("17", asked).code == 11
    commands.answers["scontrol show job"] = refuse("Unable to contact slurm controller (connect failure)")
    assert slurm.status("17", asked).state is State.UNKNOWN


def test_an_array_ends_when_all_of_its_tasks_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path, run=None, tasks=tuple(Task((f"seed={n}",)) for n in range(3)))
    slurm = SlurmLauncher(LauncherConfig())

    def task(number: str, **fields: str) -> str:
        return job(**fields).replace("JobName", f"ArrayJobId=17 ArrayTaskId={number} JobName")

    done = task("0", JobState="COMPLETED", JobId="18")
    answers = {"scontrol show job": done + task("1-2", JobState="PENDING")}
    Commands(monkeypatch, answers)
    assert slurm.status("17", asked).state is State.PENDING
    answers["scontrol show job"] = done + task("1", JobId="19") + task("2", JobState="PENDING")
    assert slurm.status("17", asked).state is State.RUNNING
    failed = task("1", JobState="FAILED", ExitCode="4:0", JobId="19")
    answers["scontrol show job"] = done + failed + task("2", JobState="COMPLETED")
    status = slurm.status("17", asked)
    assert (status.state, status.code) == (State.ENDED, 4)


def test_the_output_of_an_array_grows_at_its_end_only(tmp_path: Path) -> None:
    """Who follows counts lines."""
    asked = request(tmp_path, tasks=(Task(("a",)), Task(("b",))))
    asked.directory.mkdir()
    (asked.directory / "output-0.log").write_text("one\n")
    (asked.directory / "output-1.log").write_text("other\n")
    slurm = SlurmLauncher(LauncherConfig())
    before = list(slurm.logs("17", asked))
    (asked.directory / "output-0.log").write_text("one\ntwo\n")
    (asked.directory / "end-0.json").write_text("{}")
    assert before == ["[0] one"]
    assert list(slurm.logs("17", asked)) == ["[0] one", "[0] two", "[1] other"]


def test_a_name_is_submitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch, {"sbatch": "17;cluster\n", "squeue": ""})
    slurm = SlurmLauncher(LauncherConfig())
    assert slurm.submit(request(tmp_path)) == "17"
    commands.answers["squeue"] = "17\n17\n"
    assert slurm.find("job") == "17"
    with pytest.raises(LaunchError, match="job 17 has it"):
        slurm.submit(request(tmp_path))


def test_cancelling_asks_what_runs_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"scontrol show job": job(), "squeue": "17.0\n17.batch\n"}
    commands = Commands(monkeypatch, answers)
    SlurmLauncher(LauncherConfig()).cancel("17")
    assert commands.asked[0] == "scontrol update JobId=17 Requeue=0"
    assert commands.asked[-1] == "scancel --quiet --signal=USR1 17"
    answers["squeue"] = "17.batch\n"  # before srun has started anything
    SlurmLauncher(LauncherConfig()).cancel("17")
    assert commands.asked[-1] == "scancel --quiet 17"


def test_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch, {})
    monkeypatch.setattr(launcher.shutil, "which", lambda name: name)
    asked = request(tmp_path, grace_seconds=300.0, limit_minutes=6.0)
    slurm = SlurmLauncher(LauncherConfig(slurm=SlurmConfig(options=["constraint=trn1"])))
    found = slurm.problems(asked, slurm.render(asked))
    assert [problem.key for problem in found] == ["launcher.limit_minutes", "launcher.slurm.options"]
    asked, slurm = replace(asked, limit_minutes=7.0), SlurmLauncher(LauncherConfig())
    assert slurm.problems(asked, slurm.render(asked)) == []
    commands.answers["sbatch --test-only"] = refuse("allocation failure: Invalid account")
    (problem,) = slurm.problems(asked, slurm.render(asked))
    assert "Invalid account" in problem.rule
    commands.answers["sbatch --test-only"] = refuse("sbatch: fatal: Could not establish a configuration source")
    assert slurm.problems(asked, slurm.render(asked)) == []


def test_without_a_slurm_it_renders_and_does_not_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm, asked = SlurmLauncher(LauncherConfig()), request(tmp_path)
    assert list(launcher._asked(slurm.render(asked)["job.sbatch"])) == []
    with pytest.raises(LaunchError, match="machine of the cluster"):
        slurm.submit(asked)
    assert not asked.directory.exists()


def starts(*given: tuple[int, int | None]) -> list[Start]:
    return [Start(number, code, step, 0.0) for number, (code, step) in enumerate(given)]


@pytest.mark.parametrize(
    ("given", "again"),
    [
        ([(0, 60)], False),
        ([(10, 3)], True),
        ([(10, None)], True),
        ([(12, 3)], True),
        ([(137, 3)], True),
        ([(3, None)], False),
        ([(4, 3)], False),
        ([(11, 3)], False),
        ([(13, 3)], False),
        ([(14, 3)], False),
        ([(1, 3)], False),
        ([(10, 3), (10, 6), (10, 9), (10, 12), (10, 15)], True),
        ([(10, 3), (12, 3), (12, 3)], True),
        ([(10, 3), (12, 3), (12, 3), (12, 3)], False),
        ([(10, 3), (12, 3), (12, 3), (12, 6)], True),
    ],
)
def test_what_goes_back_into_the_queue(given: list[tuple[int, int | None]], again: bool) -> None:
    assert decide(starts(*given), True, 3)[0] is again
    assert not decide(starts(*given), False, 3)[0]


SETTING = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}


def end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, srun: int, **more: str) -> int:
    """What a job's script does after srun has ended with a code."""
    for name, value in {**SETTING, **more}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "after.json"
    path.write_text(json.dumps({"runs": [str(tmp_path / "run")], "requeue": True, "retries": 3}))
    return after.main([str(path), str(srun), "0"])


def test_the_runs_code_decides_and_not_sruns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-K and a killed node make other codes of a 10."""
    commands = Commands(monkeypatch, {"scontrol show job": job()})
    write_exit(tmp_path / "run", 10, 0, "stopped")
    assert end(tmp_path, monkeypatch, 143) == 10
    assert commands.asked[-1] == "scontrol requeue 17"
    assert "code 10: back into the queue" in capsys.readouterr().out
    assert not (tmp_path / "end.json").exists()
    write_exit(tmp_path / "run", 4, 0, "data")
    assert end(tmp_path, monkeypatch, 1) == 4
    assert json.loads((tmp_path / "end.json").read_text())["code"] == 4


def test_a_cancelled_job_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch, {"scontrol show job": job(Requeue="0")})
    assert end(tmp_path, monkeypatch, 10) == 10
    assert "scontrol requeue 17" not in commands.asked
    assert json.loads((tmp_path / "end.json").read_text())["reason"] == "it was cancelled"


def test_a_refused_requeue_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Commands(monkeypatch, {"scontrol show job": job(), "scontrol requeue": refuse("Access denied")})
    assert end(tmp_path, monkeypatch, 10) == 10
    assert "Access denied" in json.loads((tmp_path / "end.json").read_text())["reason"]


def test_a_silent_node_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the words of the two that report it: the launcher, and the watchdog of a rank."""
    places = {rank: Place("step", 5, 1, f"n{rank + 1}.cluster", "") for rank in range(2)}
    watched = blame("in step, where 600 s are allowed", 2, [1], [], places)
    launched = f"{Node('n2.cluster', 32, 63)} went away"
    answers = {"scontrol show job": job(ExcNodeList="bad-7"), "scontrol show hostnames": "n1\nn2\n"}
    for title, error in (("a rank did not arrive", watched), (launched, None)):
        commands = Commands(monkeypatch, dict(answers))
        write_exit(tmp_path / "run", 12, 0, title, error)
        end(tmp_path, monkeypatch, 12)
        assert "scontrol update JobId=17 ExcNodeList=bad-7,n2" in commands.asked
    commands = Commands(monkeypatch, dict(answers))
    write_exit(tmp_path / "run", 12, 0, "all ranks are at the same place on n2.cluster")
    end(tmp_path, monkeypatch, 12)
    assert not any("ExcNodeList" in line for line in commands.asked)
