"""Start a job on this machine or on a cluster: python scripts/submit.py recipe=tiny launcher=local [nodes=N] [--follow]

The command line is that of scripts/train.py, --multirun for a sweep included; docs/clusters.md has the rest.
"""

from __future__ import annotations

import sys

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.commands.submit.act import act
from trainer.commands.submit.jobs import Job, collect
from trainer.commands.submit.options import Options, take_options, usage
from trainer.errors import ExitCode, RunError
from trainer.run.ending import tell
from trainer.run.world import World

jobs: list[Job] = []


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    collect(composed, jobs)


def submit(options: Options) -> int:
    """Compose every job, and act only if all of them do."""
    code = entry.enter(main, launch=False)
    if code:
        return code
    if not jobs:  # --help, say
        print(usage(), file=sys.stderr)
        return code
    try:
        return act(jobs, options)
    except RunError as error:
        return tell(error, World(), None)


if __name__ == "__main__":
    asked = take_options()
    if isinstance(asked, str):
        print(asked, usage(), sep="\n", file=sys.stderr)
        sys.exit(int(ExitCode.CONFIG))
    sys.exit(submit(asked))
