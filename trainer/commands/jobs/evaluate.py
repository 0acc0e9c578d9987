"""The stages evaluate and export, as programs that a launcher starts: scripts/jobs.py evaluate PLAN, export PLAN.

What is scored is what would be published: the candidate is exported first, and its directory is evaluated.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.commands.jobs.sets import content_of
from trainer.errors import ConfigError, DataError, Problem, RunError
from trainer.files import read_json, write_json
from trainer.jobs.gates import MS_PER_TOKEN, SIZE_GB
from trainer.run.exit_json import write_exit

LAST_LINES = 3
MODEL, ADAPTER, SCORES = "model", "adapter", "scores.json"
SCRIPTS = Path(__file__).parents[3] / "scripts"
FEW, MANY = 8, 40
"""Tokens of the two answers whose difference in time is the latency: loading and the prompt cancel out."""


def evaluate(path: Path) -> int:
    """Export the candidate, score it and the champion on every set. Writes the plan's results."""
    return _stage(path, _evaluate)


def export(path: Path) -> int:
    """Beside the model: the adapter alone, where one was trained."""
    return _stage(path, _export)


def _evaluate(plan: Mapping[str, Any], here: Path) -> None:
    candidate = Path(plan["candidate"])
    shutil.rmtree(candidate, ignore_errors=True)
    candidate.mkdir(parents=True)
    model = candidate / MODEL
    _run(plan, "export_hf.py", plan["run"], str(model), *(["--dtype", plan["dtype"]] if plan["dtype"] else []))
    prints = {one["name"]: content_of(one["paths"]) for one in plan["sets"]}
    found = {
        "candidate": _scores(plan, str(model), prints, here),
        "champion": _scores(plan, plan["champion"], prints, here) if plan["champion"] else None,
        "champion_version": plan["champion_version"],
    }
    for one in plan["sets"]:
        if content_of(one["paths"]) != prints[one["name"]]:
            rule = "stays as it is while two models are scored on it"
            raise DataError(Problem("sets", one["name"], rule, "freeze it: no job may write there"))
    write_json(candidate / SCORES, found["candidate"])
    write_json(Path(plan["results"]), found)


def _export(plan: Mapping[str, Any], here: Path) -> None:
    candidate = Path(plan["candidate"])
    if plan["adapter"]:
        shutil.rmtree(candidate / ADAPTER, ignore_errors=True)
        _run(plan, "export_hf.py", "--adapter", plan["run"], str(candidate / ADAPTER))
    size = sum(file.stat().st_size for file in candidate.rglob("*") if file.is_file())
    write_json(Path(plan["results"]), {"directory": str(candidate), "bytes": size})


def _stage(path: Path, do: Callable[[Mapping[str, Any], Path], None]) -> int:
    """What goes wrong is written beside the plan: a tick reads it there, for the ledger."""
    plan = _plan(path)
    try:
        do(plan, path.parent)
    except RunError as error:
        write_exit(path.parent, int(error.code), 0, error.title, error)
        raise
    return 0


def _plan(path: Path) -> Mapping[str, Any]:
    """What submit has written. Raises ConfigError."""
    try:
        found: Mapping[str, Any] = read_json(path)
        found["candidate"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = f"is what a tick has written for this stage ({type(error).__name__})"
        raise ConfigError(Problem("PLAN", str(path), rule, "let tick or run start the stage")) from None
    return found


def _scores(plan: Mapping[str, Any], model: str, prints: Mapping[str, str], here: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in plan["sets"]:
        output = here / f"set-{one['name']}.json"
        output.unlink(missing_ok=True)
        kind = "--tasks" if one["kind"] == "tasks" else "--chat" if one["chat"] else "--data"
        shape = ["--shape", one["chat"]] if one["chat"] else []
        length = ["--seq-len", str(one["seq_len"])] if one["seq_len"] else []
        _run(plan, "eval.py", model, kind, *one["paths"], *shape, *length, "--output", str(output))
        found[one["name"]] = {**_figures(read_json(output)), "fingerprint": prints[one["name"]]}
    weights = [file.stat().st_size for file in Path(model).glob("*.safetensors")]
    found[SIZE_GB] = sum(weights) / 1e9
    if plan["latency"]:
        found[MS_PER_TOKEN] = _latency(plan, model)
    return found


def _figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Over all files of a set: the loss by targets, accuracy by items."""
    texts = [*result["data"], *result.get("chats", ())]
    if texts:
        count = sum(one["targets"] for one in texts)
        losses = [one["loss"] for one in texts]
        whole = None if None in losses else sum(one["loss"] * one["targets"] for one in texts) / count
        return {"loss": whole}
    tasks = result["tasks"]
    count = sum(one["items"] for one in tasks)
    right = sum(one.get("acc", one.get("exact_match")) * one["items"] for one in tasks)
    return {"accuracy": right / count}


def _latency(plan: Mapping[str, Any], model: str) -> float:
    """Milliseconds of a token, one answer at a time; the difference of two answers of one process each."""
    seconds = []
    for count in (FEW, MANY):
        begin = time.perf_counter()
        _run(plan, "generate.py", model, "--prompt", "The", "--tokens", str(count), "--json")
        seconds.append(time.perf_counter() - begin)
    return max(0.0, seconds[1] - seconds[0]) * 1000 / (MANY - FEW)


def _run(plan: Mapping[str, Any], script: str, *arguments: str) -> None:
    """A script of ours. Its report is in the stage's log; its code becomes this program's."""
    print(json.dumps([script, *arguments]), flush=True)
    command = [plan["python"], str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, errors="replace")
    print(done.stderr, end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise StageFailed(script, done.returncode, done.stderr)


class StageFailed(DataError):
    """One of the programs has failed, and has said why: its last words are part of the problem."""

    title = "this stage has failed"

    def __init__(self, script: str, code: int, said: str) -> None:
        last = " ".join(" ".join(said.splitlines()[-LAST_LINES:]).split())
        rule = f"ends with 0; it ended with {code}: {last}"
        super().__init__(Problem("scripts", script, rule, "mend that, and rerun the job"))
