"""From submission to the end through kubectl: a stand-in that keeps objects; the tests are the controllers."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launchers import fake_kubectl
from tests.launchers.rendered import kubernetes, request
from trainer.launchers.base import LaunchError, State
from trainer.launchers.kubernetes.launcher import RESOURCES, KubernetesLauncher
from trainer.launchers.request import Request

TREE = Path(__file__).parents[2]
NAME = "nightly-20260930"
BORN = "2026-09-30T01:00:00Z"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fake_kubectl.Cluster:
    """An empty one, which a stand-in for kubectl on PATH reaches."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -m tests.launchers.fake_kubectl "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TREE), *sys.path]))
    monkeypatch.setenv("FAKE_CLUSTER", str(tmp_path / "cluster"))
    (tmp_path / "cluster").mkdir()
    return fake_kubectl.Cluster(tmp_path / "cluster")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_kubectl.Cluster]:
    """An empty one, which the real kubectl reaches."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    from tests.launchers.api_server import ApiServer

    server = ApiServer(fake_kubectl.Cluster(tmp_path / "cluster"))
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
    config |= {"clusters": [{"name": "here", "cluster": {"server": server.url}}]}
    config |= {"contexts": [{"name": "here", "context": {"cluster": "here", "user": ""}}]}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))  # where it keeps what it has discovered
    yield server.cluster
    server.close()


def asked(tmp_path: Path) -> Request:
    return request(directory=tmp_path / "launch", run=tmp_path / "runs" / "nightly", working_directory=tmp_path)


def change(cluster: fake_kubectl.Cluster, kind: str, status: dict[str, Any], **spec: Any) -> None:
    """As the controller does."""
    found = cluster.get(RESOURCES[kind], "default", NAME)
    assert found is not None
    found["metadata"]["creationTimestamp"] = BORN
    found["status"] = status
    found["spec"] |= spec
    cluster.put(found)


def pod(cluster: fake_kubectl.Cluster, index: int, state: dict[str, Any], start: int = 1, **status: Any) -> str:
    """The name of one of the set's."""
    labels = {"jobset.sigs.k8s.io/jobset-name": NAME, "batch.kubernetes.io/job-completion-index": str(index)}
    containers = [{"name": "node", "state": state}] if state else []
    metadata = {"name": f"{NAME}-node-0-{index}-start{start}", "namespace": "default", "labels": labels}
    metadata["creationTimestamp"] = f"2026-09-30T0{start}:00:00Z"
    found = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "node"}]}}
    cluster.put({**found, "status": {"containerStatuses": containers, **status}})
    return str(metadata["name"])


def true(kind: str, message: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": message}]}


@pytest.mark.parametrize("kind", ["jobset", "trainjob"])
def test_a_job_from_its_beginning_to_its_end(kind: str, cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    follow(kind, cluster, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jobset", "trainjob"])
def test_the_same_by_the_real_kubectl(kind: str, served: fake_kubectl.Cluster, tmp_path: Path) -> None:
    follow(kind, served, tmp_path)


def follow(kind: str, cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    """Submitted, ready, complete, refused a second time, deleted."""
    launcher, wanted = KubernetesLauncher(kubernetes(kind=kind)), asked(tmp_path)
    assert launcher.find(NAME) is None
    id = launcher.submit(wanted)
    assert launcher.find(NAME) == id
    kept = yaml.safe_load((tmp_path / "launch" / f"{kind}.yaml").read_text())
    assert cluster.get(RESOURCES[kind], "default", NAME)["spec"] == kept["spec"]  # type: ignore[index]
    assert launcher.status(id, wanted).state is State.PENDING
    ready = {"name": "node", "ready": 1, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0}
    change(cluster, kind, {"replicatedJobsStatus" if kind == "jobset" else "jobsStatus": [ready]})
    assert launcher.status(id, wanted).state is State.RUNNING
    change(cluster, kind, true("Completed" if kind == "jobset" else "Complete", "all jobs completed"))
    status = launcher.status(id, wanted)
    assert (status.state, status.code, status.reason) == (State.ENDED, 0, "all jobs completed")
    with pytest.raises(LaunchError, match="there is " + id):
        launcher.submit(wanted)
    launcher.cancel(id)
    launcher.cancel(id)
    assert launcher.find(NAME) is None
    assert launcher.status(id, wanted).state is State.UNKNOWN
    assert not list(cluster.root.rglob("*.json")), "the TrainingRuntime goes with its job"


def test_two_hosts_submit_at_once(
    cluster: fake_kubectl.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either submits: the server takes one."""
    first, second, wanted = KubernetesLauncher(kubernetes()), KubernetesLauncher(kubernetes()), asked(tmp_path)
    monkeypatch.setattr(second, "find", lambda name: None)
    first.submit(wanted)
    with pytest.raises(LaunchError, match="AlreadyExists") as caught:
        second.submit(wanted)
    assert caught.value.problems[0].remedy == "find it by this name, or take another"


def test_the_code_is_that_of_the_worker_that_ended_first(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    launcher, wanted = KubernetesLauncher(kubernetes()), asked(tmp_path)
    id = launcher.submit(wanted)
    for index, (code, second) in enumerate([(137, 9), (11, 5), (0, 1)]):
        pod(cluster, index, {"terminated": {"exitCode": code, "finishedAt": f"2026-09-30T02:00:0{second}Z"}})
    change(cluster, "jobset", true("Failed", "jobset failed due to one or more job failures"))
    status = launcher.status(id, wanted)
    assert (status.state, status.code) == (State.ENDED, 11)
    assert status.reason == "jobset failed due to one or more job failures"


@pytest.mark.parametrize(("time", "code"), [("2026-09-30T03:00:00+00:00", 10), ("2026-09-30T00:59:59+00:00", 137)])
def test_exit_json_goes_before_unless_it_is_an_earlier_launchs(
    time: str, code: int, cluster: fake_kubectl.Cluster, tmp_path: Path
) -> None:
    launcher, wanted = KubernetesLauncher(kubernetes()), asked(tmp_path)
    id = launcher.submit(wanted)
    pod(cluster, 0, {"terminated": {"exitCode": 137, "finishedAt": "2026-09-30T03:00:01Z"}})
    change(cluster, "jobset", true("Failed", "deadline"))
    assert wanted.run is not None
    wanted.run.mkdir(parents=True)
    (wanted.run / "exit.json").write_text(json.dumps({"code": 10, "title": "preempted, saved", "time": time}))
    assert launcher.status(id, wanted).code == code


def test_how_far_a_running_job_is(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    """status.trainerStatus of a TrainJob, status.restarts of a JobSet."""
    wanted = asked(tmp_path)
    for kind, jobs, more, reason in (
        ("trainjob", "jobsStatus", {"trainerStatus": {"progressPercentage": 40}}, "40 % done"),
        ("jobset", "replicatedJobsStatus", {"restarts": 2}, "started again 2 times"),
    ):
        launcher = KubernetesLauncher(kubernetes(kind=kind))
        id = launcher.submit(wanted)
        change(cluster, kind, {jobs: [{"name": "node", "ready": 1}], **more})
        status = launcher.status(id, wanted)
        assert (status.state, status.reason) == (State.RUNNING, reason)


def test_why_a_job_waits(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    launcher, wanted = KubernetesLauncher(kubernetes(queue="trn1")), asked(tmp_path)
    id = launcher.submit(wanted)
    change(cluster, "jobset", {}, suspend=True)
    assert launcher.status(id, wanted).reason == "waits in Kueue's queue trn1"
    change(cluster, "jobset", {}, suspend=False)
    short = "0/3 nodes are available: 3 Insufficient aws.amazon.com/neuron."
    pod(cluster, 0, {}, conditions=[{"type": "PodScheduled", "status": "False", "message": short}])
    status = launcher.status(id, wanted)
    assert (status.state, status.reason) == (State.PENDING, f"{NAME}-node-0-0-start1: {short}")
    pod(cluster, 0, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
    assert "Back-off pulling image" in launcher.status(id, wanted).reason


def test_lines_are_only_added_at_the_end(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    """Who follows counts them: of two starts of three nodes, the first one's pods deleted meanwhile."""
    launcher, wanted = KubernetesLauncher(kubernetes()), asked(tmp_path)
    id = launcher.submit(wanted)
    seen: list[str] = []

    def printed(index: int, start: int, *lines: str) -> None:
        name = pod(cluster, index, {}, start=start)
        path = cluster.path("pods", "default", name).with_suffix(".log")
        path.write_text("".join(f"{line}\n" for line in lines))

    def look() -> list[str]:
        found = [*launcher.logs(id, wanted)]
        assert found[: len(seen)] == seen
        seen[:] = found
        return found

    assert look() == []
    printed(1, 1, "b")
    printed(0, 1, "a 1")
    assert look() == ["a 1"]
    printed(0, 1, "a 1", "a 2")
    assert look() == ["a 1", "a 2"]
    for path in (cluster.root / "pods" / "default").glob("*"):
        path.unlink()
    assert look() == ["a 1", "a 2"]
    printed(0, 2, "again 1")
    printed(2, 2, "c")
    assert look() == ["a 1", "a 2", "again 1"]
    change(cluster, "jobset", true("Completed", "all"))
    assert look() == ["a 1", "a 2", "again 1", f"{NAME}-node-0-2-start2: c"]
    launcher.cancel(id)
    assert look() == seen


def test_a_server_that_is_away_or_refuses(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    launcher, wanted = KubernetesLauncher(kubernetes()), asked(tmp_path)
    id = launcher.submit(wanted)
    (cluster.root / "down").touch()
    status = launcher.status(id, wanted)
    assert (status.state, status.code) == (State.UNKNOWN, None)
    assert "was refused" in status.reason
    with pytest.raises(LaunchError, match="was refused") as caught:
        launcher.find(NAME)
    assert caught.value.problems[0].remedy == "check that the cluster is up: kubectl cluster-info"
    assert "memcache" not in str(caught.value), "its library's log says the same, again and again"


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="is on PATH; it is not"):
        KubernetesLauncher(kubernetes()).submit(asked(tmp_path))


@pytest.mark.slow
def test_from_the_command_line(cluster: fake_kubectl.Cluster, tmp_path: Path) -> None:
    """scripts/submit.py: the id, where it stands, no second one meanwhile, the end."""
    settings = ["image=a", "volume_claim=runs", "instance=null", "kind=trainjob"]
    words = ["recipe=tiny", "run.name=k", "launcher=kubernetes", *(f"launcher.kubernetes.{word}" for word in settings)]

    def submit(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TREE / "scripts" / "submit.py"), *words, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = submit()
    assert done.returncode == 0, done.stderr
    kind, name = done.stdout.strip().split("/")
    assert (kind, (tmp_path / "runs/k/launch/0001/trainjob.yaml").is_file()) == ("trainjob", True)
    assert cluster.get(RESOURCES["trainjob"], "default", name) is not None
    again = submit()
    assert again.returncode == 3
    assert "one live submission" in again.stderr + again.stdout or name in again.stderr + again.stdout
    assert submit("--cancel").returncode == 0
    assert cluster.get(RESOURCES["trainjob"], "default", name) is None


@pytest.mark.slow
def test_what_the_real_kubectl_says(served: fake_kubectl.Cluster, tmp_path: Path) -> None:
    """The words that remedies are found by, the codes of pods, their lines."""
    launcher, wanted = KubernetesLauncher(kubernetes()), asked(tmp_path)
    id = launcher.submit(wanted)
    second = KubernetesLauncher(kubernetes())
    with pytest.raises(LaunchError, match="AlreadyExists"):
        second._kubectl.call("create", "--filename=-", text=(tmp_path / "launch" / "jobset.yaml").read_text())
    wrong = (tmp_path / "launch" / "jobset.yaml").read_text().replace("suspend:", "suspended:")
    with pytest.raises(LaunchError, match="suspended"):
        second._kubectl.call("create", "--filename=-", "--validate=strict", text=wrong.replace(NAME, "other"))
    with pytest.raises(LaunchError, match="doesn't have a resource type") as caught:
        second._kubectl.call("get", "jobsets.example.org", NAME)
    assert "install JobSet" in caught.value.problems[0].remedy
    pod(served, 0, {"terminated": {"exitCode": 11, "finishedAt": "2026-09-30T02:00:00Z"}})
    served.path("pods", "default", f"{NAME}-node-0-0-start1").with_suffix(".log").write_text("step 1\nstep 2\n")
    assert [*launcher.logs(id, wanted)] == ["step 1", "step 2"]
    change(served, "jobset", true("Failed", "one failed"))
    assert launcher.status(id, wanted).code == 11
    with pytest.raises(LaunchError) as caught:
        KubernetesLauncher(kubernetes(context="nowhere")).find(NAME)
    assert "get-contexts" in caught.value.problems[0].remedy
