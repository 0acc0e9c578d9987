"""Processes that a scheduler started side by side without telling them about each other: srun -n, mpirun -n."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

COUNTS = {
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
}
"""Variable with the number of tasks, and the one with this task's number: Slurm's step, Open MPI, MVAPICH, MPICH and
Intel MPI.

SLURM_NTASKS does not tell: it is 2 in a batch script and in a shell of `salloc -n 2` too, where one process runs.
"""


@dataclass(frozen=True)
class Tasks:
    """This process is one of several tasks, and nobody has set WORLD_SIZE."""

    variable: str
    count: int
    number: int
    nodes: int | None = None
    """Nodes of the Slurm step; None where it is not known."""
    cpus: int = 1
    """CPUs of a task, as far as Slurm was asked for them."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Tasks | None:
        """None for one task, for workers of torchrun or scripts/launch.py, and in a shell of `srun --pty`."""
        if "WORLD_SIZE" in environment:
            return None
        for variable, number in COUNTS.items():
            if variable.startswith("SLURM") and "SLURM_PTY_PORT" in environment:
                continue  # a person's shell in the first task: what is typed there runs once
            count = _number(environment, variable)
            if count is not None and count > 1:
                nodes = _number(environment, "SLURM_STEP_NUM_NODES") if variable.startswith("SLURM") else None
                cpus = _number(environment, "SLURM_CPUS_PER_TASK") or 1
                return cls(variable, count, _number(environment, number) or 0, nodes, cpus)
        return None


def _number(environment: Mapping[str, str], variable: str) -> int | None:
    text = environment.get(variable, "")
    return int(text) if text.isdecimal() else None
