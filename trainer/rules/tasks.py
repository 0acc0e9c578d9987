"""Several tasks of a scheduler that would each train alone."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.run.tasks import Tasks
from trainer.run.world import World


def tasks(config: Config, world: World) -> Iterator[Problem]:
    """srun or mpirun started this as one of several tasks, without torchrun: each would be a world of one."""
    found = world.tasks
    if found is None or config.backend.name == "fake":
        return
    rule = f"{found.count} tasks and no WORLD_SIZE: each would train alone, and only one could hold the run"
    remedy = _remedy(found, config.recipe or "tiny") if found.number == 0 else "task 0 says how"
    yield Problem(found.variable, found.count, rule, remedy)


def _remedy(found: Tasks, recipe: str) -> str:
    """The command that starts as many processes, by one scripts/launch.py per node."""
    script, nodes = f"scripts/train.py recipe={recipe} ...", found.nodes
    after = " (and your overrides); to train alone in each task, set WORLD_SIZE=1"
    if nodes is None or found.count % nodes:
        command = f"python scripts/launch.py --standalone --nproc_per_node PROCESSES {script}"
        return f"start one scripts/launch.py per node; on a single node: {command}{after}"
    here = found.count // nodes
    srun = f"srun --nodes {nodes} --ntasks-per-node 1 --ntasks {nodes} --cpus-per-task {here * found.cpus}"
    if nodes == 1:
        command = f"{srun} python scripts/launch.py --standalone --nproc_per_node {here} {script}"
    else:  # in a shell of each task: outside of the job, these variables have no values
        first = "--rdzv_endpoint $(scontrol show hostnames $SLURM_STEP_NODELIST | head -n 1):29500"
        meet = f"--nnodes {nodes} --nproc_per_node {here} --rdzv_backend c10d {first} --rdzv_id $SLURM_JOB_ID"
        command = f"{srun} bash -c 'python scripts/launch.py {meet} {script}'"
    return f"start one scripts/launch.py per node: {command}{after}"
