"""The doctor's command: what it was asked, the lines of this machine, of the scheduler, and of the launch's ranks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainer.commands.doctor import machine, scheduler, system
from trainer.commands.doctor.line import Line
from trainer.run.world import World
from trainer.trainium.environment import CACHE, cache_directory
from trainer.trainium.host import detect

LAUNCH = Path(__file__).parents[3] / "scripts" / "launch.py"


def count(text: str) -> int:
    """A number, of which there is one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number: give 1 or more")
    return int(text)


def parser(description: str | None) -> argparse.ArgumentParser:
    """What scripts/doctor.py takes."""
    asked = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--nodes", type=count, default=1, help="nodes of the job that this machine is meant for")
    asked.add_argument("--backend", choices=tuple(system.PYTHONS), default="neuron", help="what is to train here")
    asked.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="the directory for runs: run.root"
    )
    asked.add_argument("--launcher", choices=("local", "slurm", "kubernetes", "batch"), default="local")
    asked.add_argument("--ranks", type=count, metavar="N", help="start N ranks here, and examine them together")
    asked.add_argument("--hosts", default="", metavar="A,B", help="hosts of the launch in order, to name silent ones")
    asked.add_argument("--seconds", type=float, default=60.0, help="longest wait for the other ranks (default 60)")
    asked.add_argument("--json", action="store_true", help="print JSON in the place of the table")
    return asked


def launch(asked: argparse.Namespace, arguments: list[str]) -> None:
    """Become the launcher of so many ranks of this script."""
    command = [
        sys.executable,
        str(LAUNCH),
        "--standalone",
        "--nproc_per_node",
        str(asked.ranks),
        sys.argv[0],
        *arguments,
    ]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def of_this_machine(asked: argparse.Namespace) -> Iterator[Line]:
    """The lines that need no other rank."""
    limits = system.limits(asked.runs, asked.backend)
    cache = cache_directory(os.environ) or CACHE
    yield from system.examine(limits, asked.backend, asked.nodes, asked.runs, cache)
    if asked.backend == "neuron":
        yield from machine.examine(detect(), asked.nodes)
    yield from scheduler.examine(asked.launcher)


def of_the_launch(asked: argparse.Namespace, world: World) -> list[Line] | bool:
    """The lines of all ranks on rank 0; on the others, whether all was fine. Raises HangError for a silent rank 0."""
    from trainer.commands.doctor import ranks
    from trainer.commands.doctor.present import Present

    peers = ranks.join(world, asked.seconds)
    per_node = world.local_size or 1
    hosts = tuple(filter(None, asked.hosts.split(",")))
    meeting = ranks.Meeting(peers, per_node, asked.runs, asked.seconds, hosts)
    meeting = replace(meeting, reduce=partial(ranks.gloo, peers, asked.seconds / 2))
    own = list(of_this_machine(asked)) if world.leads_node else []
    if world.rank:
        return ranks.attend(meeting, Present.here(world.rank, per_node, own))
    lines = [*own, *ranks.examine(meeting, Present.here(0, per_node))]
    ranks.end(meeting, all(line.fine for line in lines))
    return lines
