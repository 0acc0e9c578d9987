"""The doctor on set-ups that are described: each that is broken is named, and the remedy says how to mend it.

What is wanted is AWS's documents', Slurm's and Kubernetes' (words of their commands as they print them).
"""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests import harness
from tests.unit.test_topology import BIG, PINNED, SDK_229, SDK_233, SMALL
from trainer.commands.doctor import machine, present, scheduler, system
from trainer.commands.doctor.line import Line, as_json, verdict
from trainer.commands.doctor.present import Present
from trainer.commands.doctor.run import parser
from trainer.commands.doctor.scheduler import Answer
from trainer.commands.doctor.system import Limits, reserved_ports
from trainer.trainium.host import Host

ROOMY = Limits(
    cache_gib=500,
    runs_gib=500,
    runs_error="",
    open_files=65535,
    processes=math.inf,
    locked_memory=math.inf,
    shared_memory_gib=64,
    ephemeral=(32768, 60999),
    reserved="41000",
)
RANKS = [
    Present(rank, rank // 2, f"node-{rank // 2}", f"boot-{rank // 2}", {"python": "3.12.3", "torch": "2.9.1"})
    for rank in range(4)
]
SLURM = {
    "sbatch --version": Answer(0, "slurm-wlm 22.05.8"),
    "scontrol ping": Answer(0, "Slurmctld(primary) at head is UP"),
    "sinfo --noheader": Answer(0, "debug* up 2 idle\nlong up 1 down*"),
}
KUBERNETES = {
    "kubectl version": Answer(0, '{"clientVersion": {}, "serverVersion": {"gitVersion": "v1.33.1"}}'),
    "kubectl auth": Answer(0, "yes"),
    "kubectl get crd jobsets": Answer(0, "jobsets.jobset.x-k8s.io"),
    "kubectl get crd trainjobs": Answer(1, 'Error from server (NotFound): "trainjobs.trainer.kubeflow.org" not found'),
}
ARN = "arn:aws:sts::123456789012:assumed-role/trainer/i-0"


def on(host: Host = BIG, here: Limits = ROOMY, nodes: int = 1, backend: str = "neuron") -> list[Line]:
    """The lines of one machine."""
    lines = list(system.examine(here, backend, nodes, Path("runs")))
    return lines + (list(machine.examine(host, nodes)) if backend == "neuron" else [])


def asked(launcher: str, answers: dict[str, Answer]) -> list[Line]:
    def ask(command: Sequence[str]) -> Answer:
        return next(answer for words, answer in answers.items() if " ".join(command).startswith(words))

    return list(scheduler.examine(launcher, ask))


def slurm(words: str, code: int, text: str) -> list[Line]:
    return asked("slurm", {words: Answer(code, text), **SLURM})


def kubernetes(words: str, code: int, text: str) -> list[Line]:
    return asked("kubernetes", {words: Answer(code, text), **KUBERNETES})


def batch(text: str) -> list[Line]:
    return [scheduler.account(Answer(1, text))]


def together(*ranks: Present) -> list[Line]:
    return list(present.agreement(ranks)) + list(present.machines(ranks))


def arrived(*ranks: Present, hosts: Sequence[str] = ()) -> list[Line]:
    return [present.arrival(ranks, 4, 2, hosts, 60.0)]


Setup = Callable[[], list[Line]]
BROKEN: dict[str, tuple[Setup, str, str]] = {
    "another kind of instance": (lambda: on(replace(BIG, instance="m5.large")), "instance", "rent one of them"),
    "a chip is gone": (lambda: on(replace(BIG, devices=15)), "Neuron devices", "modprobe neuron"),
    "no driver": (lambda: on(replace(BIG, driver=None)), "driver", "aws-neuronx-dkms=2.26.10"),
    "an old driver": (lambda: on(replace(BIG, driver="2.9.4.0")), "driver", "aws-neuronx-dkms=2.26.10"),
    "a newer runtime": (lambda: on(replace(BIG, runtime="2.34.10.0")), "runtime library", "runtime-lib=2.30.51"),
    "no EFA": (lambda: on(replace(BIG, efa=0), nodes=2), "EFA devices", "aws-efa-installer"),
    "a small instance for two nodes": (lambda: on(SMALL, nodes=2), "instance", "rent one"),
    "empty packages": (
        lambda: on(replace(BIG, packages={**PINNED, "torch-neuronx": "1.0"})), "torch-neuronx", "--extra-index-url"
    ),
    "the other product": (
        lambda: on(replace(BIG, packages={**PINNED, "torch-neuronx": "2.13.3.0", "torch": "2.13.0"})),
        "torch-neuronx", "another product, TorchNeuron",
    ),
    "packages of two releases": (
        lambda: on(replace(BIG, packages={**PINNED, "neuronx-cc": "2.27.5334.0"})), "neuronx-cc", "2.23.6484"
    ),
    "a variable that casts": (lambda: on(replace(BIG, variables={"XLA_USE_BF16": "1"})), "XLA_USE_BF16", "unset"),
    "a cache on NFS": (
        lambda: on(replace(BIG, variables={"NEURON_COMPILE_CACHE_URL": "/efs/c"}, cache_filesystem="nfs4")),
        "NEURON_COMPILE_CACHE_URL", "s3://bucket/prefix",
    ),
    "an old Python": (lambda: on(here=replace(ROOMY, python=(3, 9))), "python", "python3.12 -m venv"),
    "a Python without wheels": (lambda: on(here=replace(ROOMY, python=(3, 13))), "python", "AWS has no wheels"),
    "no room for graphs": (lambda: on(here=replace(ROOMY, cache_gib=8)), "disk", "root volume"),
    "no room for runs": (lambda: on(here=replace(ROOMY, runs_gib=1), backend="native"), "runs in runs", "run.root="),
    "runs cannot be written": (
        lambda: on(here=replace(ROOMY, runs_error="Read-only file system")), "runs in runs", "that you may write to"
    ),
    "few open files": (lambda: on(here=replace(ROOMY, open_files=1024)), "ulimit -n", "ulimit -n 65535"),
    "few processes": (lambda: on(here=replace(ROOMY, processes=512)), "ulimit -u", "--pids-limit"),
    "memory that cannot be locked": (
        lambda: on(here=replace(ROOMY, locked_memory=65536), nodes=2), "ulimit -l", "--ulimit memlock=-1"
    ),
    "little shared memory": (lambda: on(here=replace(ROOMY, shared_memory_gib=0.0625)), "/dev/shm", "--shm-size"),
    "a port for anybody": (
        lambda: on(here=replace(ROOMY, ephemeral=(1024, 65535))), "port 29500", "reserved_ports=41000,29500"
    ),
    "a port that is taken": (lambda: on(here=replace(ROOMY, taken=(29500,))), "port 29500", "ss -ltnp 'sport = :29500"),
    "a silent host": (lambda: arrived(*RANKS[:2], hosts=["a", "b"]), "ranks", "on b (ranks 2 to 3)"),
    "a silent rank": (lambda: arrived(*RANKS[:3]), "ranks", "on node-1 (rank 3)"),
    "a rank that came twice": (lambda: [present.doubles({0: 1, 1: 2})], "rank numbers", "--node_rank"),
    "a host that is listed twice": (
        lambda: together(*RANKS[:2], *(replace(one, machine="boot-0") for one in RANKS[2:])), "machines", "double entry"
    ),
    "two hosts of one name": (
        lambda: together(*RANKS[:2], *(replace(one, host="node-0") for one in RANKS[2:])), "host names", "hostnamectl"
    ),
    "other versions": (
        lambda: together(*RANKS[:3], replace(RANKS[3], versions={"python": "3.12.3", "torch": "2.8.0"})),
        "versions: torch", "on node-1: make setup",
    ),
    "another commit": (
        lambda: together(*(replace(RANKS[n], versions={"git_commit": str(n)}) for n in (0, 2))),
        "versions: the checkout", "on node-1: git checkout",
    ),
    "a limit of another node": (
        lambda: together(*RANKS[:2], replace(RANKS[2], mend=[vars(Line("disk", "8", "100", False, "a larger one"))])),
        "node-1: disk", "a larger one",
    ),
    "a clock": (lambda: [present.clocks({"node-1": -31.0, "node-2": 0.1})], "clocks", "on node-1: timedatectl"),
    "no Slurm": (lambda: slurm("sbatch", 127, "no program sbatch"), "sbatch", "slurm-client"),
    "no controller": (
        lambda: slurm("scontrol", 0, "Slurmctld(primary) at head is DOWN"), "slurmctld", "slurmctld munge"
    ),
    "nodes that are down": (lambda: slurm("sinfo", 0, "debug* up 2 down*"), "partitions", "sinfo -R"),
    "no kubectl": (lambda: kubernetes("kubectl v", 127, "no program kubectl"), "kubectl", "install kubectl"),
    "no API server": (
        lambda: kubernetes("kubectl v", 1, "The connection to the server localhost:8080 was refused"),
        "API server", "update-kubeconfig",
    ),
    "no right to create": (lambda: kubernetes("kubectl a", 1, "no"), "may create jobs", "RoleBinding"),
    "no JobSet": (
        lambda: kubernetes("kubectl get crd jobs", 1, "NotFound"), "kinds of job", "kubectl apply"
    ),
    "no credentials": (
        lambda: batch("NoCredentialsError: Unable to locate credentials"),
        "AWS Batch", "aws configure",
    ),
    "an expired token": (
        lambda: batch("ClientError: (ExpiredToken) when calling"), "AWS Batch", "sso login"
    ),
    "no right to Batch": (
        lambda: batch("ClientError: (AccessDeniedException)"), "AWS Batch", "DescribeJobQueues"
    ),
}  # fmt: skip
"""By name: the set-up, the first line that is not fine, and words of its remedy."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_setup_is_found_and_the_remedy_mends_it(name: str) -> None:
    setup, what, remedy = BROKEN[name]
    wrong = [line for line in setup() if not line.fine]
    assert wrong[0].what == what
    assert remedy in wrong[0].remedy


def sound() -> Iterator[list[Line]]:
    yield from (on(nodes=nodes) for nodes in (1, 4))
    yield on(backend="native")
    yield on(here=replace(ROOMY, ephemeral=(1024, 65535), reserved="29500,62000-62200"))
    yield on(replace(BIG, efa=0))
    yield asked("slurm", SLURM)
    yield asked("kubernetes", KUBERNETES)
    yield [scheduler.account(Answer(0, ARN))]
    yield together(*RANKS) + arrived(*RANKS) + [present.doubles({0: 1, 1: 1}), present.clocks({"node-1": 0.4})]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    for lines in sound():
        assert lines
        assert [line.what for line in lines if not line.fine] == []


@pytest.mark.parametrize(
    ("instance", "packages", "rule"),
    [
        (None, {**PINNED, "torch-neuronx": "2.13.3.0+x", "torch": "2.13.0"}, "another product, TorchNeuron"),
        ("trn2.48xlarge", PINNED, "2.9.* is the old product"),
        ("trn3.48xlarge", PINNED, "torch-neuronx==2.14.3.0 is its own"),
    ],
)
def test_the_two_products_of_one_name(instance: str | None, packages: dict[str, str], rule: str) -> None:
    """torch-neuronx 2.9.* is XLA, for trn1; 2.13 and later is TorchNeuron, for trn2 and trn3."""
    (line,) = [line for line in on(replace(BIG, instance=instance, packages=packages)) if line.what == "torch-neuronx"]
    assert not line.fine
    assert rule in line.remedy
    assert '"torch-neuronx==2.9.0.2.12.22436"' in line.remedy


@pytest.mark.parametrize(
    ("packages", "sdk", "flash"),
    [(PINNED, "SDK 2.28.1", "NKI"), (SDK_229, "SDK 2.29.1", "off"), (SDK_233, "2.33.0 (unverified)", "off")],
)
def test_the_release_and_its_attention(packages: dict[str, str], sdk: str, flash: str) -> None:
    lines = {line.what: line for line in on(replace(BIG, packages=packages))}
    assert all(line.fine for line in lines.values())
    assert sdk in lines["Neuron SDK"].found
    assert flash in lines["flash attention"].found


def test_reserved_ports_are_read_as_the_kernel_writes_them() -> None:
    assert reserved_ports("41000,44000-44002") == {41000, 44000, 44001, 44002}
    assert reserved_ports("") == set()


def test_the_table_for_programs_says_the_same() -> None:
    lines = on(here=replace(ROOMY, cache_gib=8))
    told = json.loads(json.dumps(as_json(lines)))
    assert told["mend"] == ["disk"]
    assert verdict(lines) == f"1 of {len(lines)} to mend: disk"
    assert [line["what"] for line in told["lines"]] == [line.what for line in lines]


def test_this_machine(tmp_path: Path) -> None:
    """Limits that can be compared: what cannot be written is tried, not asked for."""
    here = system.limits(tmp_path / "new" / "runs", "native", {"WORLD_SIZE": "2"})
    assert here.runs_error == ""
    assert here.runs_gib > 0
    assert here.taken == ()
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"
    (tmp_path / "file").write_text("")
    assert scheduler.ask(["no-such-program-here"]).code == scheduler.NO_PROGRAM
    assert scheduler.ask([sys.executable, "-c", "import sys; sys.exit('away')"]) == Answer(1, "away")


def test_the_pages_commands_are_understood() -> None:
    page = (harness.ROOT / "docs" / "doctor.md").read_text()
    commands = re.findall(r"scripts/doctor\.py(.*)", "\n".join(re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)))
    assert len(commands) == 5
    for command in commands:
        parser("").parse_args(shlex.split(command))
