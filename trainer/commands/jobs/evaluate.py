"""The stages evaluate and export, as programs that a launcher starts: scripts/jobs.py evaluate PLAN, export PLAN.

What is scored is what would be published: the candidate is exported first, and its directory is evaluated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, DataError, Problem
from trainer.files import read_json, sha256, write_json
from trainer.jobs.gates import MS_PER_TOKEN, SIZE_GB

MODEL, ADAPTER, SCORES = "model", "adapter", "scores.json"
SCRIPTS = Path(__file__).parents[3] / "scripts"
FEW, MANY = 8, 40
"""Tokens of the two answers whose difference in time is the latency: loading and the prompt cancel out."""


def evaluate(path: Path) -> int:
    """Export the candidate, score it and the champion on every set. Writes the plan's results."""
    plan = _plan(path)
    candidate = Path(plan["candidate"])
    shutil.rmtree(candidate, ignore_errors=True)
    candidate.mkdir(parents=True)
    model = candidate / MODEL
    _run(plan, "export_hf.py", plan["run"], str(model), *(["--dtype", plan["dtype"]] if plan["dtype"] else []))
    prints = {one["name"]: content_of(one["paths"]) for one in plan["sets"]}
    found = {
        "candidate": _scores(plan, str(model), prints, path.parent),
        "champion": _scores(plan, plan["champion"], prints, path.parent) if plan["champion"] else None,
        "champion_version": plan["champion_version"],
    }
    for one in plan["sets"]:
        if content_of(one["paths"]) != prints[one["name"]]:
            rule = "stays as it is while two models are scored on it"
            raise DataError(Problem("sets", one["name"], rule, "freeze it: no job may write there"))
    write_json(candidate / SCORES, found["candidate"])
    write_json(Path(plan["results"]), found)
    return 0


def export(path: Path) -> int:
    """Beside the model: the adapter alone, where one was trained."""
    plan = _plan(path)
    candidate = Path(plan["candidate"])
    if plan["adapter"]:
        shutil.rmtree(candidate / ADAPTER, ignore_errors=True)
        _run(plan, "export_hf.py", "--adapter", plan["run"], str(candidate / ADAPTER))
    size = sum(file.stat().st_size for file in candidate.rglob("*") if file.is_file())
    write_json(Path(plan["results"]), {"directory": str(candidate), "bytes": size})
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


def content_of(paths: Sequence[str]) -> str:
    """SHA-256 over the files' contents, in the order of their names."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return hashlib.sha256("\n".join(map(sha256, files)).encode()).hexdigest()


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
    code = subprocess.run([plan["python"], str(SCRIPTS / script), *arguments], check=False).returncode
    if code:
        raise StageFailed(script, code)


class StageFailed(DataError):
    """One of the programs has failed, and has said why."""

    title = "this stage has failed"

    def __init__(self, script: str, code: int) -> None:
        super().__init__(Problem("scripts", script, f"ends with 0; it ended with {code}", "its report stands above"))
