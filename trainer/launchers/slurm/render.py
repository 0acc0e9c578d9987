"""The files of a Slurm job: what sbatch gets, what each node runs, and what decides whether the job goes on.

job.sbatch        on the first node: starts node.sh on every node by srun, then trainer.launchers.slurm.after
node.sh           on every node: the environment, and the launcher of the node's processes
after.json        for trainer.launchers.slurm.after
environment.json  the source of each variable
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.config.groups.launcher import LauncherConfig
from trainer.launchers import environment, script
from trainer.launchers.request import Request

BATCH, NODE, AFTER = "job.sbatch", "node.sh", "after.json"
EARLY_SECONDS = 60
"""Slurm sends the signal up to half a minute early, and the launcher takes some seconds more than the grace."""
MEETING = (
    "--nnodes {nodes}",
    '--rdzv_backend c10d --rdzv_endpoint "$MEET"',
    '--rdzv_id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv_conf is_host=$((SLURM_NODEID == 0))',
)
"""The first node keeps the store. The id changes with each start: what is left of an earlier one does not come in."""


def signal_seconds(request: Request) -> int:
    """How long before its limit the job is asked to stop. The grace covers a step and a save (trainer.rules.grace)."""
    return math.ceil(request.grace_seconds) + EARLY_SECONDS


def output_name(request: Request, task: int | None) -> str:
    """The file that a task prints to; None: the job's."""
    return "output.log" if task is None else f"output-{task}.log"


def render(request: Request, config: LauncherConfig) -> dict[str, str]:
    """File name -> content."""
    slurm = config.slurm
    after = {
        "directory": str(request.directory),
        "runs": [str(task.run) if task.run else None for task in request.tasks] or [str(request.run or "") or None],
        "requeue": slurm.requeue,
        "retries": slurm.retries,
    }
    return {
        BATCH: "\n".join(_batch(request, config)) + "\n",
        NODE: "\n".join(_node(request, config)) + "\n",
        AFTER: json.dumps(after, indent=2) + "\n",
        environment.FILE: environment.recorded(request.environment),
    }


def _options(request: Request, config: LauncherConfig) -> Iterator[str]:
    """sbatch's options, without --."""
    slurm = config.slurm
    yield f"job-name={request.name}"
    yield f"chdir={_word(request.working_directory)}"
    pattern = "output-%a.log" if request.tasks else output_name(request, None)
    yield f"output={_word(request.directory, escape=True)}/{pattern}"
    yield "open-mode=append"
    yield f"nodes={request.nodes}"
    yield "ntasks-per-node=1"
    if slurm.exclusive:
        yield "exclusive"
    # Slurm's own, after a node has failed: the job puts itself back for any other reason.
    yield "requeue" if slurm.requeue else "no-requeue"
    if request.limit_minutes is not None:
        yield f"time={math.ceil(request.limit_minutes)}"
        yield f"signal=USR1@{signal_seconds(request)}"
    if slurm.exclude:
        yield f"exclude={','.join(slurm.exclude)}"
    for name in ("partition", "account", "qos"):
        if (value := getattr(slurm, name)) is not None:
            yield f"{name}={_word(value)}"
    if request.tasks:
        most = f"%{slurm.at_once}" if slurm.at_once is not None else ""
        yield f"array=0-{len(request.tasks) - 1}{most}"
    yield from (option.removeprefix("--") for option in slurm.options)


def _batch(request: Request, config: LauncherConfig) -> Iterator[str]:
    yield "#!/bin/bash"
    for option in _options(request, config):
        yield f"#SBATCH --{option}"
    yield ""
    yield "started=$(date +%s)"
    if request.nodes > 1:
        yield "# Nodes meet at the first one's address, at a port that another job of that node does not have."
        yield 'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        yield "address=$(scontrol show node --oneliner \"$first\" | grep -o ' NodeAddr=[^ ]*' | cut -d = -f 2)"
        yield 'export MEET="${address:-$first}:$((20000 + SLURM_JOB_ID % 10000))"'
    yield "# One task a node, with all of its processors. Slurm's signals reach the tasks and not this script: USR1"
    yield "# before the limit, and from scancel -s USR1. A task that ends first does not end the others: they save."
    yield (
        f"srun --ntasks={request.nodes} --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 --cpu-bind=none --mpi=none"
        f" bash {shlex.quote(str(request.directory / NODE))}"
    )
    yield "code=$?"
    yield "# Back into the queue, or the end: it says which, and why."
    path = f"PYTHONPATH={shlex.quote(str(script.ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
    python = shlex.quote(config.python or sys.executable)
    after = shlex.quote(str(request.directory / AFTER))
    yield f'{path} exec {python} -m trainer.launchers.slurm.after {after} "$code" "$started"'


def _node(request: Request, config: LauncherConfig) -> Iterator[str]:
    yield "#!/bin/bash"
    yield f"# {request.name}, on each node"
    yield from script.prologue(request, config)
    yield ""
    meeting = tuple(words.replace("{nodes}", str(request.nodes)) for words in MEETING)
    run = script.command(request, config, meeting if request.nodes > 1 else script.ALONE)
    if request.tasks:
        yield 'case "$SLURM_ARRAY_TASK_ID" in'
        for number, task in enumerate(request.tasks):
            yield f"{number}) set -- {script.words(task.arguments)} ;;"
        yield "esac"
        run += ' "$@"'
    yield f"exec {run}"


def _word(value: str | Path, escape: bool = False) -> str:
    """A value for sbatch, which knows quotes; escape: in a file name % begins a pattern."""
    return shlex.quote(str(value).replace("%", "%%") if escape else str(value))
