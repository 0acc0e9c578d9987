"""Keys of `launcher`: what starts a job, on how many nodes, and what each engine has to be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainer.config.groups.launcher_batch import BatchConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig


@dataclass(frozen=True)
class LocalConfig:
    register: str = "runs/.launches"
    """Directory in which jobs of this machine are found by their names: a small file for each."""


@dataclass(frozen=True)
class SlurmConfig:
    partition: str | None = None
    """As sbatch has it. Unset: the cluster's default."""
    account: str | None = None
    """As sbatch has it."""
    qos: str | None = None
    """As sbatch has it."""
    exclude: list[str] = field(default_factory=list)
    """Nodes not to use. One that falls silent in a run (exit 12) is added by itself for that job."""
    exclusive: bool = True
    """Whole nodes: training has their cores, and their ports."""
    requeue: bool = True
    """Go back into the queue after an end that a further start cures: a stop that saved (10), 12, 15, a killed worker,
    a node that failed."""
    retries: int = 3
    """How often in a row it does so without a newer checkpoint."""
    at_once: int | None = None
    """Runs of a sweep that may run at the same time. Unset: as many as the cluster has room for."""
    options: list[str] = field(default_factory=list)
    """Further lines for sbatch: --constraint=trn1, --gres=neuron:16."""


@dataclass(frozen=True)
class LauncherConfig:
    name: str = "local"
    """An entry of trainer/launchers/__init__.py | module:maker of a user's own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that a launcher of a user's own reads."""
    nodes: int = 1
    """Machines of a job. scripts/submit.py takes nodes=N for it."""
    processes: int | None = None
    """Processes of a node. Unset: 32 with backend=neuron, one for each NeuronCore of trn1.32xlarge; else 1."""
    limit_minutes: float | None = None
    """Longest that a job may run, in minutes. Before that it is asked to stop, and saves. Unset: no limit of ours."""
    price_per_node_hour: float | None = None
    """What a node costs in an hour, in any currency. Unset: unknown, and no limit of money can be set."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables of the job's environment; they go before ours. No secrets: they are kept with the run."""
    python: str | None = None
    """The interpreter on the nodes. Unset: the one that submits, or that of the image."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell on each node before Python starts: to load modules, to activate an environment."""
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)
    """What launcher=kubernetes has to be told."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """What launcher=batch has to be told."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """What launcher=local has to be told."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """What launcher=slurm has to be told."""
