"""Every rendered file, as it was reviewed. `python -m tests.launchers.test_golden` writes them anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import ROOT
from trainer.config.groups.launcher import LauncherConfig, SlurmConfig
from trainer.config.groups.parallel import ParallelConfig
from trainer.config.groups.reliability import ReliabilityConfig
from trainer.config.groups.run import RunConfig
from trainer.config.schema import Config
from trainer.launchers.asking import request_of, world_of
from trainer.launchers.making import launcher_of
from trainer.launchers.request import Request, Task
from trainer.run.world import World

GOLDEN = ROOT / "tests" / "golden" / "launchers"
MORE = ["--constraint=trn1", "--mail-type=FAIL"]
CLUSTER = SlurmConfig(partition="trn1", account="research", exclude=["bad-7"], at_once=2, options=MORE)
SWEPT = ("recipe=llama3_8b", "optim.lr=0.001", 'run.name="sweep-optim.lr=0.001"')
TASKS = (
    Task(SWEPT, Path("/shared/runs/a")),
    Task(("recipe=llama3_8b", "seed=2", "run.name=b"), Path("/shared/runs/b")),
)


def local(**more: object) -> LauncherConfig:
    return LauncherConfig(python="python3", **more)  # type: ignore[arg-type]


def slurm(**more: object) -> LauncherConfig:
    return local(name="slurm", slurm=CLUSTER, limit_minutes=720.0, **more)


def asked(launcher: LauncherConfig, backend: str, tasks: tuple[Task, ...] = ()) -> Request:
    """The request for a run of a recipe."""
    config = Config(
        recipe="llama3_8b",
        run=RunConfig(root="/shared/runs", name="it's 100%"),
        reliability=ReliabilityConfig(grace_seconds=300.5),
        parallel=ParallelConfig(tp=8),
        launcher=launcher,
    )
    config = replace(config, backend=replace(config.backend, name=backend))
    own = () if tasks else ("recipe=llama3_8b", 'run.name="it\'s 100%"')
    directory = Path("/shared/runs/it's 100%/launch/0001")
    request = request_of(
        config, world_of(config, World()), "it-s-100-0001-0a1b2c3d", directory, ("scripts/train.py", *own), tasks
    )
    return replace(request, working_directory=Path("/shared/my work"))


CASES: Mapping[str, Callable[[], tuple[LauncherConfig, Request]]] = {
    "local": lambda: (c := local(processes=2, setup=["module load neuron"]), asked(c, "native")),
    "local_sweep": lambda: (c := local(), asked(c, "native", TASKS)),
    "slurm_one_node": lambda: (c := slurm(processes=2), asked(c, "native")),
    "slurm_trn1": lambda: (
        c := slurm(nodes=4, setup=["module load neuron"], environment={"FI_LOG_LEVEL": "warn"}),
        asked(c, "neuron"),
    ),
    "slurm_sweep": lambda: (c := slurm(), asked(c, "native", TASKS)),
}


def rendered(case: str) -> dict[str, str]:
    config, request = CASES[case]()
    files = launcher_of(config).render(request)
    return {name: content.replace(str(ROOT), "/tree") for name, content in files.items()}


@pytest.mark.parametrize("case", CASES)
def test_rendered_files_are_the_reviewed_ones(case: str) -> None:
    reviewed = {path.name: path.read_text() for path in (GOLDEN / case).iterdir()}
    assert rendered(case) == reviewed


@pytest.mark.parametrize("case", CASES)
def test_the_same_request_gives_the_same_files(case: str) -> None:
    assert rendered(case) == rendered(case)


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / case).mkdir(parents=True, exist_ok=True)
        for name, content in rendered(case).items():
            (GOLDEN / case / name).write_text(content)
