"""Manifests: golden, valid by the published schemas, and what they say about codes, grace, limits and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launchers.rendered import GOLDEN, kubernetes, of_kubernetes, on_cpu, request
from tests.launchers.strict import errors
from trainer.launchers.kubernetes.launcher import KubernetesLauncher
from trainer.launchers.kubernetes.names import object_name
from trainer.trainium.environment import Variable

RENDERED = of_kubernetes()


def job_set(asked: Any, **settings: Any) -> dict[str, Any]:
    (found,) = yaml.safe_load_all(KubernetesLauncher(kubernetes(**settings)).render(asked)["jobset.yaml"])
    return dict(found)


def job(asked: Any, **settings: Any) -> dict[str, Any]:
    return dict(job_set(asked, **settings)["spec"]["replicatedJobs"][0]["template"]["spec"])


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_rendered_is_golden_and_valid(name: str) -> None:
    assert RENDERED[name] == (GOLDEN / name).read_text(), "python -m tests.launchers.write_manifests"
    for found in yaml.safe_load_all(RENDERED[name]):
        assert errors(found) == []


def test_golden_files_are_all_rendered() -> None:
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("kubernetes/**/*.yaml")} == set(RENDERED)


def containers(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of an object, wherever they are."""
    for key, value in found.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from [inner] if key == "containers" else containers(inner)


@pytest.mark.parametrize("name", ["jobset/jobset.yaml", "trainjob/runtime.yaml", "tick/cronjob.yaml"])
@pytest.mark.parametrize(
    "wrong",
    [{"readynessProbe": {}}, {"env": [{"name": "A", "valeu": "1"}]}, {"resources": {"limits": {"cpu": [1]}}}],
    ids=["unknown", "unknown below", "another type"],
)
def test_the_schemas_refuse(name: str, wrong: dict[str, Any]) -> None:
    (found,) = yaml.safe_load_all(RENDERED[f"kubernetes/{name}"])
    next(containers(found)).update(wrong)
    assert errors(found)


def test_the_schemas_refuse_a_name_twice_and_fields_of_another_release() -> None:
    (found,) = yaml.safe_load_all(RENDERED["kubernetes/jobset/jobset.yaml"])
    found["spec"]["replicatedJobs"] *= 2
    assert any("two entries" in error for error in errors(found))
    (found,) = yaml.safe_load_all(RENDERED["kubernetes/trainjob/runtime.yaml"])
    found["spec"]["mlPolicy"]["torch"] = {"numProcPerNode": "auto", "elasticPolicy": {"minNodes": 1}}
    assert {word for error in errors(found) for word in re.findall("numProcPerNode|elasticPolicy", error)}


def test_a_pod_has_all_of_a_node() -> None:
    pod = job(request())["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits == {"aws.amazon.com/neuron": "16", "vpc.amazonaws.com/efa": "8"}
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "trn1.32xlarge"}
    assert {taint["key"] for taint in pod["tolerations"]} == set(limits)
    environment = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    assert environment["FI_PROVIDER"] == "efa"
    assert environment["PJRT_DEVICE"] == "NEURON"
    assert "nodeSelector" not in job(on_cpu(), instance=None)["template"]["spec"]


def test_the_end_is_awaited_longer_than_the_workers_take() -> None:
    assert job(request(grace_seconds=120.5))["template"]["spec"]["terminationGracePeriodSeconds"] == 151
    found = job(request(grace_seconds=120.0, limit_minutes=60.0))
    assert found["activeDeadlineSeconds"] == 3600 - 150


def decision(code: int | None, found: dict[str, Any]) -> str:
    """What Kubernetes' Job controller and JobSet do about a pod's end. code: None for a node that was lost."""
    message, rules = None, found["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    for number, rule in enumerate(rules):
        by = rule.get("onExitCodes")
        if by and code in by["values"]:
            assert by["values"] == sorted(set(by["values"])), "the server wants them in order"
            message = f"Container node for pod a/b failed with exit code {code} matching FailJob rule at index {number}"
        elif not by and code is None:
            message = f"Pod a/b has condition DisruptionTarget matching FailJob rule at index {number}"
        if message:
            break
    reason = "PodFailurePolicy" if message else "BackoffLimitExceeded"
    for rule in found["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message or "") for pattern in patterns):
            return str(rule["action"])
    return "RestartJobSet"


FINAL, AGAIN, COUNTED = "FailJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJobSet"


@pytest.mark.parametrize(
    ("code", "action"),
    [(3, FINAL), (4, FINAL), (11, FINAL), (13, FINAL), (14, FINAL), (10, AGAIN), (None, AGAIN)]
    + [(code, COUNTED) for code in (1, 12, 15, 100, 137, 143)],
)
def test_what_follows_from_an_exit_code(code: int | None, action: str) -> None:
    assert decision(code, job_set(request(), restarts=5)) == action
    assert job_set(request(), restarts=5)["spec"]["failurePolicy"]["maxRestarts"] == 5


def test_a_limit_of_time_ends_the_set() -> None:
    rules = job_set(request())["spec"]["failurePolicy"]["rules"]
    assert [rule["action"] for rule in rules if "DeadlineExceeded" in rule["onJobFailureReasons"]] == [FINAL]


def test_nodes_meet_at_the_first_ones_name() -> None:
    """Of a JobSet's pod: <jobset>-<replicated job>-<job>-<pod>.<subdomain>, the subdomain being the JobSet's name."""
    command = job(request())["template"]["spec"]["containers"][0]["command"]
    assert command[:2] == ["bash", "-c"]
    last = command[2].splitlines()[-1]
    assert last.startswith("exec python scripts/launch.py --nnodes 4 ")
    assert "--rdzv_endpoint nightly-20260930-node-0-0.nightly-20260930:29500 " in last
    alone = job(on_cpu(), instance=None)["template"]["spec"]["containers"][0]["command"][2].splitlines()[-1]
    assert alone == (
        "exec python scripts/launch.py --standalone --nproc_per_node 2"
        """ scripts/train.py recipe=tiny 'run.name=it'"'"'s tiny'"""
    )


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a command or a value: $$ is $, $(NAME) the variable, anything else stays."""
    return re.sub(
        r"\$(\$|\(([^)]*)\))", lambda found: "$" if found[1] == "$" else variables.get(found[2], found[0]), text
    )


def test_dollars_reach_the_shell() -> None:
    config = replace(kubernetes(), setup=["echo $$ $(HOME) $HOME $$(HOME)"])
    asked = request(environment=(Variable("HOME", "/root", "", ""), Variable("PRICE", "5$$ $(HOME)", "", "")))
    found = yaml.safe_load(KubernetesLauncher(config).render(asked)["jobset.yaml"])
    worker = next(containers(found))
    variables = {variable["name"]: variable["value"] for variable in worker["env"]}
    assert "echo $$ $(HOME) $HOME $$(HOME)\n" in expanded(worker["command"][2], variables)
    assert expanded(variables["PRICE"], variables) == "5$$ $(HOME)"


def test_names_fit_and_stay_apart() -> None:
    names = ["a" * 46, "a" * 47, "a" * 52, "7b", "j7b", "a" * 37 + "-" + "b" * 14, "a" * 37 + "-" + "b" * 13]
    made = [object_name(name) for name in names]
    assert made[0] == names[0]
    assert len(set(made)) == len(names)
    for name in made:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), "RFC 1035"
        assert len(f"{name}-node-0-999-abcde") <= 63


@pytest.mark.parametrize(
    ("asked", "settings", "key"),
    [
        ({}, {"image": None}, "launcher.kubernetes.image"),
        ({}, {"image": "trainer 1"}, "launcher.kubernetes.image"),
        ({}, {"volume_claim": None}, "launcher.kubernetes.volume_claim"),
        ({}, {"kind": "pytorchjob"}, "launcher.kubernetes.kind"),
        ({}, {"runtime": "torch-distributed"}, "launcher.kubernetes.runtime"),
        ({}, {"kind": "trainjob", "runtime": "torch", "secret": "wandb"}, "launcher.kubernetes.secret"),
        ({}, {"namespace": "My_Team"}, "launcher.kubernetes.namespace"),
        ({}, {"shared_memory": "16 GB"}, "launcher.kubernetes.shared_memory"),
        ({}, {"resources": {"memory": "8GiB"}}, "launcher.kubernetes.resources.memory"),
        ({}, {"restarts": -1}, "launcher.kubernetes.restarts"),
        ({}, {"instance": "trn1.2xlarge"}, "launcher.kubernetes.instance"),
        ({"limit_minutes": 2.0}, {}, "launcher.limit_minutes"),
        ({"run": Path("/data/runs/nightly")}, {}, "run.root"),
        ({"run": Path("/home/user/trainer/other/nightly")}, {}, "run.root"),
    ],
)
def test_a_mistake_is_one_problem(asked: dict[str, Any], settings: dict[str, Any], key: str) -> None:
    launcher = KubernetesLauncher(kubernetes(**settings))
    wanted = request(**asked)
    (problem,) = launcher.problems(wanted, launcher.render(wanted))
    assert problem.key == key
    assert problem.remedy


@pytest.mark.parametrize("run", [Path("runs/nightly"), Path("/home/user/trainer/runs/a"), Path("/opt/trainer/runs/a")])
def test_a_run_on_the_volume_is_none(run: Path) -> None:
    launcher = KubernetesLauncher(kubernetes())
    assert launcher.problems(request(run=run), {}) == []
