"""kubectl as a subprocess: no client of our own, and whatever way the user logs in."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.errors import Problem
from trainer.launchers.base import LaunchError

KEY = "launcher.kubernetes"
SECONDS = 60
"""Longest that one call may take; requests to the server take half of it at most."""
REMEDIES = (
    ("AlreadyExists", "find it by this name, or take another"),
    ("no matches for kind", "install JobSet, or Kubeflow Trainer, in the cluster (docs/kubernetes.md)"),
    ("the server doesn't have a resource type", "install JobSet, or Kubeflow Trainer, in the cluster"),
    ("Forbidden", "let your user, or the pod's service account, do this (docs/kubernetes.md, access)"),
    ("NotFound", "check launcher.kubernetes.namespace; the rest is in the message"),
    ("does not exist", "kubectl config get-contexts lists the names for launcher.kubernetes.context"),
    ("connect", "check that the cluster is up: kubectl cluster-info"),
    ("denied the request", "mend what the cluster's own rule names"),
)
"""What kubectl's message has in it -> what to do about it; the first that fits."""
LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
"""How a line of its client library's log begins: each try that failed, before kubectl says so itself."""


class Kubectl:
    """Calls in one context and namespace."""

    def __init__(self, settings: KubernetesConfig) -> None:
        self._where = [f"--namespace={settings.namespace}", f"--request-timeout={SECONDS // 2}s"]
        if settings.context:
            self._where.append(f"--context={settings.context}")

    def call(self, *arguments: str, text: str | None = None) -> str:
        """What it prints. text: what it reads. Raises LaunchError where it fails, with its own words."""
        try:
            done = subprocess.run(
                ["kubectl", *arguments, *self._where],
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise LaunchError(Problem(KEY, "kubectl", "is on PATH; it is not", "install kubectl")) from None
        except subprocess.TimeoutExpired:
            rule = f"answers within {SECONDS} s"
            raise LaunchError(Problem(KEY, f"kubectl {arguments[0]}", rule, "kubectl cluster-info")) from None
        if done.returncode:
            raise LaunchError(_problem(arguments[0], done.stderr))
        return done.stdout

    def lines(self, *arguments: str) -> Iterator[str]:
        """Its lines as they come; none where it fails: a pod that has not begun has no log."""
        try:
            process = subprocess.Popen(
                ["kubectl", *arguments, *self._where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
        except FileNotFoundError:
            return
        try:
            assert process.stdout is not None  # a pipe
            for line in process.stdout:
                yield line.rstrip("\r\n")
        finally:  # also where nobody wants the rest
            process.kill()
            process.communicate()


def _problem(verb: str, message: str) -> Problem:
    last = [line for line in message.splitlines() if not LOG_LINE.match(line)] or message.splitlines()[-1:]
    said = " ".join(" ".join(last).split()) or "it said nothing"
    remedy = next((remedy for word, remedy in REMEDIES if word in message), "see kubectl's message")
    return Problem(KEY, f"kubectl {verb}", f"succeeds; it says: {said}", remedy)
