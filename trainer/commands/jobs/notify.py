"""Who is told how an occurrence has ended: a webhook and a command, with one JSON object."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from trainer.errors import DataError, Problem
from trainer.jobs.events import Occurrence
from trainer.jobs.work import Job
from trainer.redact import redact

SECONDS = 20


def message(occurrence: Occurrence) -> Mapping[str, Any]:
    """What is told."""
    found = {
        "job": occurrence.job,
        "slot": occurrence.slot,
        "end": occurrence.end,
        "code": occurrence.code,
        "why": occurrence.why,
        "version": occurrence.record("publish").get("version"),
        "run": occurrence.record("train").get("run"),
    }
    plain: Mapping[str, Any] = redact(found)
    return plain


def tell(job: Job, occurrence: Occurrence) -> str:
    """Who was told. Raises DataError where one of them could not be."""
    body = json.dumps(message(occurrence)).encode()
    told = []
    if (variable := job.config.notify.webhook_variable) is not None:
        _post(variable, body)
        told.append(f"the address in {variable}")
    if job.config.notify.command:
        _run(list(job.config.notify.command), body)
        told.append(job.config.notify.command[0])
    return " and ".join(told) or "nobody: notify names none"


def _post(variable: str, body: bytes) -> None:
    """The address itself is a secret: no message holds it."""
    address = os.environ.get(variable, "")
    if not address.startswith(("https://", "http://")):
        rule = "is an environment variable with an address, https://..."
        raise DataError(Problem("notify.webhook_variable", variable, rule, f"set {variable} where tick runs"))
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(_Unmoved).open(request, timeout=SECONDS):
            return
    except urllib.error.HTTPError as error:
        why = f"answered with {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # whose texts may hold the address
        why = f"did not answer ({type(error).__name__})"
    raise DataError(
        Problem("notify.webhook_variable", variable, f"takes the message; it {why}", "look at the receiver")
    )


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """urllib follows a redirect without the message: whoever is there would answer, and nobody be told."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _run(command: list[str], body: bytes) -> None:
    key = "notify.command"
    try:
        done = subprocess.run(command, input=body, timeout=SECONDS, capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(Problem(key, command[0], f"runs: {type(error).__name__}", "correct the command")) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        rule = f"ends with 0; it ended with {done.returncode} {' '.join(said)}"
        raise DataError(Problem(key, command[0], rule, "try it by hand with the message as its input"))
