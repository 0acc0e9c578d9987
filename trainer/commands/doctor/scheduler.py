"""Whether the engine that starts jobs answers, and lets this user: Slurm, Kubernetes, AWS Batch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trainer.commands.doctor.line import Line

SECONDS = 15.0
"""Longest that one question may take."""
NO_PROGRAM, NO_ANSWER = 127, 124
CUSTOM = {"jobset": "jobsets.jobset.x-k8s.io", "trainjob": "trainjobs.trainer.kubeflow.org"}
"""Kinds of job that a cluster has to have been taught."""


@dataclass(frozen=True)
class Answer:
    """What a program said. code: its exit code, or one of the two above."""

    code: int
    text: str


Ask = Callable[[Sequence[str]], Answer]


def ask(command: Sequence[str]) -> Answer:
    """Run a program that answers at once."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        return Answer(NO_PROGRAM, f"no program {command[0]}")
    except subprocess.TimeoutExpired:
        return Answer(NO_ANSWER, f"no answer in {SECONDS:g} s")
    except OSError as error:
        return Answer(NO_PROGRAM, error.strerror or str(error))
    return Answer(done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip())


def examine(launcher: str, ask: Ask = ask) -> Iterator[Line]:
    """Lines for launcher=... A launcher that runs here has none."""
    if launcher == "slurm":
        yield from _slurm(ask)
    elif launcher == "kubernetes":
        yield from _kubernetes(ask)
    elif launcher == "batch":
        yield account(identity())


def _slurm(ask: Ask) -> Iterator[Line]:
    installed = ask(["sbatch", "--version"])
    remedy = "sudo apt-get install slurm-client, or log in on the cluster's head node"
    yield Line("sbatch", _first(installed), "Slurm's clients", installed.code == 0, remedy)
    if installed.code:
        return
    ping = ask(["scontrol", "ping"])
    up = ping.code == 0 and " UP" in ping.text
    remedy = (
        "systemctl status slurmctld munge on the head node; SlurmctldHost in slurm.conf; clocks, which munge compares"
    )
    yield Line("slurmctld", _first(ping), "a controller that is UP", up, remedy)
    if up:
        partitions = ask(["sinfo", "--noheader", "--format=%P %a %D %t"])
        usable = [row for row in partitions.text.splitlines() if _takes_jobs(row)]
        found = f"{len(usable)} of {len(partitions.text.splitlines())} take jobs"
        remedy = "sinfo -R says why nodes are down; scontrol update nodename=NAME state=resume"
        yield Line("partitions", found, "one with nodes that are not down", bool(usable), remedy)


def _takes_jobs(row: str) -> bool:
    """A row of sinfo: partition, up or down, nodes, and their state, which ends with * where they do not answer."""
    fields = row.split()
    return len(fields) == 4 and fields[1] == "up" and fields[3] in ("idle", "mix", "alloc", "comp", "resv")


def _kubernetes(ask: Ask) -> Iterator[Line]:
    version = ask(["kubectl", "version", "--output", "json"])
    if version.code == NO_PROGRAM:
        yield Line("kubectl", _first(version), "installed", False, "install kubectl (kubernetes.io/docs/tasks/tools)")
        return
    server = _server(version.text) if version.code == 0 else ""
    remedy = (
        "kubectl config current-context says which cluster; aws eks update-kubeconfig --name CLUSTER renews its entry"
    )
    yield Line("API server", server or _first(version), "answers", bool(server), remedy)
    if not server:
        return
    allowed = ask(["kubectl", "auth", "can-i", "create", "jobs.batch"])
    remedy = "ask for a RoleBinding to create jobs in the namespace, or launcher.kubernetes.namespace=<yours>"
    yield Line("may create jobs", _first(allowed) or "no", "yes", allowed.text.splitlines()[-1:] == ["yes"], remedy)
    known = [kind for kind, name in CUSTOM.items() if ask(["kubectl", "get", "crd", name]).code == 0]
    remedy = "kubectl apply --server-side -f <manifests.yaml of a JobSet release> (github.com/kubernetes-sigs/jobset)"
    yield Line("kinds of job", ", ".join(known) or "none", "jobset or trainjob", bool(known), remedy)


def _server(text: str) -> str:
    try:
        return str(json.loads(text)["serverVersion"]["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return ""


def identity() -> Answer:
    """Who AWS takes this process for, and whether Batch answers it."""
    try:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=SECONDS, retries={"total_max_attempts": 2})
        session = boto3.session.Session()
        who = session.client("sts", config=config).get_caller_identity()["Arn"]
        session.client("batch", config=config).describe_job_queues(maxResults=1)
    except ImportError:
        return Answer(NO_PROGRAM, "boto3 is not installed")
    except Exception as error:  # botocore has an exception for each way in which there is no answer
        return Answer(1, f"{type(error).__name__}: {error}")
    return Answer(0, str(who))


REMEDIES = {
    "boto3": "pip install -e .[s3]",
    "NoCredentials": "aws configure, or give the instance a role; aws sts get-caller-identity shows who you are",
    "NoRegion": "export AWS_DEFAULT_REGION=<the region of the queue>",
    "Expired": "log in again: aws sso login, or renew AWS_SESSION_TOKEN",
    "AccessDenied": "let the role call batch:DescribeJobQueues, SubmitJob, RegisterJobDefinition and TerminateJob",
    "SignatureDoesNotMatch": "compare the machine's clock with timedatectl, and the secret key with the account's",
    "": "look at the network: a VPC without a gateway needs endpoints for sts and batch",
}
"""By a word of the answer."""


def account(answer: Answer) -> Line:
    """The line on what ``identity`` found."""
    remedy = next(remedy for word, remedy in REMEDIES.items() if word in answer.text)
    return Line("AWS Batch", _first(answer), "answers this account", answer.code == 0, remedy)


def _first(answer: Answer) -> str:
    """The first line of what was said, as far as a table takes it."""
    return next(iter(answer.text.splitlines()), "")[:100]
