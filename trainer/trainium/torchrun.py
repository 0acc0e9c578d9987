"""The command line of a job on trn1, with a reason for each argument and the variables that the run will set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.trainium.environment import Job, variables
from trainer.trainium.topology import CORES_OF_A_NODE

PORT = 29500
"""Port of torchrun's rendezvous; torchrun's own default."""


@dataclass(frozen=True)
class Argument:
    """A word or two of a command line."""

    text: str
    reason: str


def torchrun(nodes: int, name: str) -> list[Argument]:
    """torchrun and its arguments, up to the script. name: of the run, the same on every node and unlike other jobs'."""
    processes = Argument(
        f"--nproc_per_node {CORES_OF_A_NODE}", "a process for each NeuronCore; a job on several nodes uses all of each"
    )
    if nodes == 1:
        return [Argument("torchrun", "starts the processes and tells each its rank"), processes]
    return [
        Argument("torchrun", "the same command on every node: starts its processes and tells each its rank"),
        Argument(f"--nnodes {nodes}", "begins when so many nodes have come"),
        processes,
        Argument("--rdzv_backend c10d", "nodes meet at a store that one of them keeps: no other service is needed"),
        Argument(f"--rdzv_endpoint HOST:{PORT}", "HOST: the first node's address, which keeps that store"),
        Argument(f"--rdzv_id {name}", "keeps apart the jobs that meet at one address"),
    ]


def describe(nodes: int, name: str, script: list[str], job: Job) -> Iterator[str]:
    """The command line and the environment, each line with its reason. script: the script with its own arguments."""
    arguments = [*torchrun(nodes, name), Argument(" ".join(script), "the recipe and your overrides")]
    where = "one node" if nodes == 1 else f"{nodes} nodes over EFA; on each of them"
    yield f"{where}:"
    yield ""
    yield f"  {' '.join(argument.text for argument in arguments)}"
    yield ""
    yield from _columns([(argument.text, argument.reason) for argument in arguments])
    yield ""
    yield "  environment (the run sets it before XLA is loaded; your own harmless values stay):"
    yield from _columns([(f"{v.name}={quoted(v.value)}", v.reason) for v in variables(job)])


def quoted(value: str) -> str:
    """A value as a shell takes it."""
    return f"'{value}'" if " " in value else value


def _columns(rows: list[tuple[str, str]]) -> Iterator[str]:
    width = min(60, max(len(left) for left, _ in rows))
    for left, right in rows:
        yield f"    {left.ljust(width)}  {right}"
