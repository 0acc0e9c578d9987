"""From a configuration to a request: the processes of its job, and what must hold before it is submitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.launchers.base import Launcher
from trainer.launchers.environment import block
from trainer.launchers.inputs import unmounted
from trainer.launchers.request import Request, Task
from trainer.rules.check import RULES, problems_of
from trainer.rules.neuron import neuron_machine
from trainer.rules.quantities import backend_name, pretended
from trainer.rules.tasks import tasks
from trainer.run.directory import run_path
from trainer.run.world import World
from trainer.trainium.topology import CORES_OF_A_NODE

HERE = "local"
"""The launcher whose jobs run on this machine."""
ELSEWHERE = [rule for rule in RULES if rule not in (neuron_machine, tasks)]
"""Rules that hold on any machine: those left out look at the one at hand."""


def world_of(config: Config, here: World) -> World:
    """The processes of the job. here: this process, on the machine that submits."""
    local = config.launcher.name == HERE
    there = replace(here, size=1, rank=0, local_rank=None, local_size=None, tasks=None)
    if not local:
        there = replace(there, trainium=config.backend.name == "neuron", host=None, neuron_on_cpu=False, cpu_bf16=True)
    on_trainium = backend_name(config, there) == "neuron" and not there.neuron_on_cpu
    processes = config.launcher.processes or (CORES_OF_A_NODE if on_trainium else 1)
    there = replace(there, size=max(1, config.launcher.nodes) * processes, local_size=processes)
    return pretended(config, there)


def request_of(
    config: Config, world: World, name: str, directory: Path, command: tuple[str, ...], tasks: tuple[Task, ...] = ()
) -> Request:
    """A request to train. world: as world_of has it. command, tasks: as in Request, of scripts/train.py."""
    launcher = config.launcher
    return Request(
        name=name,
        command=command,
        directory=directory.absolute(),
        nodes=launcher.nodes,
        processes=world.local_size or 1,
        grace_seconds=config.reliability.grace_seconds,
        limit_minutes=launcher.limit_minutes,
        run=None if tasks or world.launched is not None else run_path(config).absolute(),
        environment=block(config, world),
        tasks=tasks,
    )


def configuration_problems(config: Config, world: World) -> list[Problem]:
    """What scripts/train.py would refuse there, as far as it can be told here. world: as world_of has it."""
    if config.launcher.name == HERE:
        return problems_of(config, world, RULES)
    return [*problems_of(config, world, ELSEWHERE), *unmounted(config)]


def launcher_problems(launcher: Launcher, request: Request) -> list[Problem]:
    """What the engine says about the request and its rendered files."""
    return launcher.problems(request, launcher.render(request))
