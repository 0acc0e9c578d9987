"""Run by a Slurm job after srun: back into the queue, or the end, with the reason in words.

python -m trainer.launchers.slurm.after DIRECTORY/after.json CODE STARTED

Slurm's own --requeue acts when a node fails, and does nothing at the time limit. A job goes back after an end that a
further start cures, as long as its newest checkpoint advances; DIRECTORY/starts.jsonl has a line for each start.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ExitCode
from trainer.files import read_json, write_json
from trainer.launchers.slurm.tools import Refused, show_jobs, slurm
from trainer.run.exit_json import read_exit

CURED = (ExitCode.PREEMPTED, ExitCode.HANG, ExitCode.REPLICAS)
"""Codes after which the same command goes on; and those of killed workers, 128 + n."""
_WENT_AWAY = re.compile(r"(\S+) \(ranks? \d+(?: to \d+)?\)")
_NO_SIGN_OF_LIFE = re.compile(r"rank \d+ on (\S+?), in ")


@dataclass(frozen=True)
class Start:
    """How one start of the job ended. step: of the newest checkpoint then."""

    restart: int
    code: int
    step: int | None
    time: float


def main(arguments: list[str]) -> int:
    """The exit code of the job's script."""
    path, code, started = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    asked = read_json(path)
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    run = asked["runs"][int(task or 0)]
    record = read_exit(Path(run), started) if run else {}
    code = int(record.get("code", code))
    start = Start(int(os.environ.get("SLURM_RESTART_COUNT", "0")), code, step_of(record, run), time.time())
    starts = note(path.parent / file_name("starts", task, "jsonl"), start)
    again, reason = decide(starts, bool(asked["requeue"]), int(asked["retries"]))
    if again:
        again, reason = requeue(os.environ["SLURM_JOB_ID"], record, reason)
    print(f"slurm: code {code}: {reason}", flush=True)
    if not again:
        write_json(path.parent / file_name("end", task, "json"), {"code": code, "reason": reason, "time": time.time()})
    return code


def file_name(stem: str, task: str | int | None, ending: str) -> str:
    """The name of a file of a job, or of one task of an array."""
    return f"{stem}.{ending}" if task is None else f"{stem}-{task}.{ending}"


def step_of(record: dict[str, Any], run: str | None) -> int | None:
    """The step of the newest checkpoint, by exit.json, else by the run's directory."""
    if "newest_checkpoint_step" in record or run is None:
        return record.get("newest_checkpoint_step")
    found = [int(path.name[5:]) for path in Path(run).glob("checkpoints/step-*") if path.name[5:].isdigit()]
    return max(found, default=None)


def note(path: Path, start: Start) -> list[Start]:
    """Add this start to those before it; all of them."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(start)) + "\n")
    starts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, TypeError):  # a line that a full disk cut short
            starts.append(Start(**json.loads(line)))
    return starts


def decide(starts: list[Start], requeue: bool, retries: int) -> tuple[bool, str]:
    """Whether the job goes back into the queue, and why. starts: oldest first, the one that has just ended last."""
    code = starts[-1].code
    if code == ExitCode.DONE:
        return False, "done"
    if not (code in CURED or code > 128):
        return False, "a further start would end the same way"
    if not requeue:
        return False, "launcher.slurm.requeue is off; the same command goes on"
    without = 0
    for before, after in zip(reversed(starts[:-1]), reversed(starts), strict=False):
        if (after.step or 0) > (before.step or 0):
            break
        without += 1
    if without >= retries:
        return False, f"{without} starts in a row brought no newer checkpoint (launcher.slurm.retries={retries})"
    return True, "back into the queue: the same command goes on"


def requeue(id: str, record: dict[str, Any], reason: str) -> tuple[bool, str]:
    """Put the job back, without the nodes that fell silent. Whether Slurm did so, and what there is to say."""
    try:
        jobs = show_jobs(id) or [{}]
        if jobs[0].get("Requeue") == "0":
            return False, "it was cancelled"
        if silent := silent_nodes(record, jobs[0].get("NodeList", "")):
            before = [name for name in (jobs[0].get("ExcNodeList", "(null)"),) if name != "(null)"]
            slurm("scontrol", "update", f"JobId={id}", f"ExcNodeList={','.join([*before, *silent])}")
            reason += f", without {', '.join(silent)}"
        slurm("scontrol", "requeue", id)
    except Refused as error:
        return False, f"Slurm does not take it back: {error.text}"
    return True, reason


def silent_nodes(record: dict[str, Any], node_list: str) -> list[str]:
    """Nodes of the job that exit.json names as silent: they went away, or gave no sign of life."""
    if record.get("code") != ExitCode.HANG or not node_list:
        return []
    title = str(record.get("title", ""))
    hosts = _WENT_AWAY.findall(title) if "went away" in title else []
    for problem in record.get("problems", []):
        _, silent, names = str(problem.get("rule", "")).partition("no sign of life from ")
        hosts += _NO_SIGN_OF_LIFE.findall(names) if silent else []
    nodes = slurm("scontrol", "show", "hostnames", node_list).split()
    short = {host.partition(".")[0] for host in hosts}
    return [node for node in nodes if node.partition(".")[0] in short]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
