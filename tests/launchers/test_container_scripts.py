"""The lines that a container is given, run: two nodes meet, train, hear a signal, and end with their run's code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests import harness
from tests.launchers.jobs import wait_for
from tests.launchers.rendered import batch, kubernetes, request
from trainer.launchers.batch.containers import MAIN
from trainer.launchers.batch.launcher import BatchLauncher
from trainer.launchers.kubernetes.launcher import KubernetesLauncher
from trainer.launchers.kubernetes.names import first_host
from trainer.launchers.request import Request
from trainer.trainium.torchrun import PORT

pytestmark = pytest.mark.slow
NODES = 2


def lines_for_batch(wanted: Request) -> str:
    config = replace(batch(directory=str(harness.ROOT)), python=sys.executable)
    found = json.loads(BatchLauncher(config).render(wanted)["job-definition.json"])
    return str(found["nodeProperties"]["nodeRangeProperties"][0]["container"]["command"][2])


def lines_for_kubernetes(wanted: Request) -> str:
    """As the container gets them; the name of the first pod is this machine's."""
    config = replace(kubernetes(), python=sys.executable)
    found = yaml.safe_load(KubernetesLauncher(config).render(wanted)["jobset.yaml"])
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return str(pod["containers"][0]["command"][2].replace("$$", "$").replace(first_host(wanted.name), "localhost"))


@pytest.mark.parametrize(
    "lines", [lines_for_batch, pytest.param(lines_for_kubernetes, marks=pytest.mark.long)], ids=["batch", "kubernetes"]
)
def test_two_nodes_run_the_lines(lines: Callable[[Request], str], tmp_path: Path) -> None:
    corpus = harness.write_corpus(tmp_path / "corpus")
    own = [f"run.root={tmp_path}", "run.name=nodes", f"data.cache_dir={tmp_path / 'cache'}", "train.steps=100000"]
    overrides = [*harness.SMALL, *own, f"data.sources=[{{paths: ['{corpus}/*.txt']}}]"]
    wanted = request(nodes=NODES, processes=1, command=("scripts/train.py", *overrides), environment=())
    nodes = start(lines(wanted).replace(f":{PORT}", f":{harness.free_port()}"), tmp_path)
    metrics = tmp_path / "nodes" / "metrics.jsonl"
    try:
        wait_for(lambda: ended(nodes) or (metrics.exists() and harness.last_step(metrics) >= 3), seconds=180)
        assert not ended(nodes), (tmp_path / "node0.log").read_text()
        nodes[1].send_signal(signal.SIGTERM)  # one pod is evicted, one machine reclaimed
        assert [node.wait(timeout=120) for node in nodes] == [10, 10]
    finally:
        for node in nodes:
            node.kill()
    record = json.loads((tmp_path / "nodes" / "exit.json").read_text())
    assert record["code"] == 10
    assert record["newest_checkpoint_step"] >= 3


def start(lines: str, directory: Path) -> list[subprocess.Popen[bytes]]:
    """A shell for each node, with the variables that Batch gives it."""
    found = []
    for number in range(NODES):
        given = {"AWS_BATCH_JOB_ID": f"job#{number}", "AWS_BATCH_JOB_ATTEMPT": "1"}
        if number:
            given[MAIN] = "127.0.0.1"
        with open(directory / f"node{number}.log", "wb") as log:
            shell = ["bash", "-c", lines]
            environment = harness.environment() | given
            found.append(subprocess.Popen(shell, cwd=harness.ROOT, env=environment, stdout=log, stderr=log))
    return found


def ended(nodes: list[subprocess.Popen[bytes]]) -> bool:
    return any(node.poll() is not None for node in nodes)
