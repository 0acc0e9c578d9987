"""Tasks of a scheduler that do not know of each other are refused, and nothing else is.

The variables are those of Slurm 22.05 and 24.11, as recorded in its batch scripts, shells and steps, and of Open MPI
and MPICH.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from trainer.run.tasks import Tasks

JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_JOB_NUM_NODES": "1"}
STEP = {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({**STEP, "SLURM_PROCID": "1"}, Tasks("SLURM_STEP_NUM_TASKS", 2, 1, 1)),
        ({**STEP, "SLURM_PROCID": "0", "SLURM_CPUS_PER_TASK": "4"}, Tasks("SLURM_STEP_NUM_TASKS", 2, 0, 1, 4)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, Tasks("OMPI_COMM_WORLD_SIZE", 4, 3)),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, Tasks("PMI_SIZE", 4, 2)),
        ({"MV2_COMM_WORLD_SIZE": "8", "MV2_COMM_WORLD_RANK": "0"}, Tasks("MV2_COMM_WORLD_SIZE", 8, 0)),
        # mpirun within a job of one Slurm task per node
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "2", "PMI_RANK": "1"}, Tasks("PMI_SIZE", 2, 1)),
        ({}, None),
        (JOB, None),  # a shell of salloc -n 2
        ({**JOB, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, None),  # sbatch -n 2
        # salloc -n 2 with use_interactive_step, or srun -n 1 --pty bash
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_PTY_PORT": "34889"}, None),
        ({**STEP, "SLURM_PROCID": "0", "SLURM_PTY_PORT": "34889"}, None),  # srun -n 2 --pty bash
        ({**STEP, "SLURM_PROCID": "0", "WORLD_SIZE": "2", "RANK": "0"}, None),  # a worker of torchrun
        ({**STEP, "SLURM_PROCID": "0", "WORLD_SIZE": "1"}, None),  # alone on purpose
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
    ],
)
def test_who_is_one_of_several(environment: dict[str, str], expected: Tasks | None) -> None:
    assert Tasks.from_environment(environment) == expected


def start(cwd: Path, *arguments: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = harness.environment() | more
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


TRAIN = str(harness.ROOT / "scripts" / "train.py")


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        (
            {"SLURM_PROCID": "0"},
            "start one scripts/launch.py per node: srun --nodes 1 --ntasks-per-node 1 --ntasks 1 --cpus-per-task 2 "
            "python scripts/launch.py --standalone --nproc_per_node 2 scripts/train.py recipe=tiny ...",
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_NODES": "2"},
            "srun --nodes 2 --ntasks-per-node 1 --ntasks 2 --cpus-per-task 1 bash -c 'python scripts/launch.py "
            "--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d "
            "--rdzv_endpoint $(scontrol show hostnames $SLURM_STEP_NODELIST | head -n 1):29500 "
            "--rdzv_id $SLURM_JOB_ID scripts/train.py recipe=tiny ...'",
        ),
        ({"SLURM_PROCID": "1"}, "task 0 says how"),
    ],
)
def test_a_task_of_srun_is_refused_with_what_to_type(tmp_path: Path, more: dict[str, str], remedy: str) -> None:
    done = start(tmp_path, TRAIN, "recipe=tiny", more=STEP | more)
    assert done.returncode == 3, done.stderr
    assert "SLURM_STEP_NUM_TASKS = 2" in done.stderr
    assert "2 tasks and no WORLD_SIZE" in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_what_trains_nothing_may_run_in_every_task(tmp_path: Path) -> None:
    """plan.py only looks, and so does a rehearsal."""
    done = start(tmp_path, str(harness.ROOT / "scripts" / "plan.py"), "recipe=tiny", more=STEP | {"SLURM_PROCID": "0"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_workers_of_launch_in_one_task_per_node_do_not_mind_slurm(tmp_path: Path) -> None:
    """srun with one scripts/launch.py per node, of two nodes: SLURM_STEP_NUM_TASKS is 2 there too."""
    harness.write_corpus(tmp_path / "corpus")
    launch = str(harness.ROOT / "scripts" / "launch.py")
    few = [*harness.SMALL, "precision=fp32", "train.stop_after_steps=2", "data.sources=[{paths: [corpus]}]"]
    two = ["--standalone", "--nproc_per_node", "2"]
    more = STEP | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_NODES": "2"}
    done = start(tmp_path, launch, *two, TRAIN, *few, more=more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 2 process(es)" in done.stdout
    assert (tmp_path / "runs" / "tiny" / "exit.json").is_file()
