"""What the campaign believes: manifests by its own reading, and runs by comparing bytes. No code of the trainer's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests import harness
from tests.faults.campaign.settings import STEPS

CURVE = {"step": ("step", "loss", "grad_norm"), "evaluation": ("step", "heldout_loss", "bits_per_byte", "sample")}


def stored(run: Path) -> list[int]:
    """Steps of what has the name of a checkpoint, newest first."""
    return sorted((int(path.name[5:]) for path in run.glob("checkpoints/step-*")), reverse=True)


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def fault(path: Path) -> str:
    """What is wrong with a checkpoint; nothing if its manifest lists what is there, with sizes and digests."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        listed = {name: (about["size"], about["sha256"]) for name, about in manifest["files"].items()}
        if (manifest["format"], manifest["step"]) != (2, int(path.name[5:])):
            return "format or step of the manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"manifest: {error!r}"
    there = [file for file in path.rglob("*") if file.is_file() and file != path / "manifest.json"]
    found = {str(file.relative_to(path)): file.read_bytes() for file in there}
    if found.keys() != listed.keys():
        return f"files: {sorted(found.keys() ^ listed.keys())}"
    wrong = [n for n, data in found.items() if listed[n] != (len(data), hashlib.sha256(data).hexdigest())]
    return f"size or digest: {wrong}" if wrong else ""


def newest_sound(run: Path) -> int:
    """The step that the next start has to go on from; 0 without a checkpoint, -1 where none is sound."""
    steps = stored(run)
    return next((step for step in steps if not fault(checkpoint(run, step))), -1 if steps else 0)


def recorded(run: Path) -> int:
    """The last step in metrics.jsonl."""
    return harness.last_step(run / "metrics.jsonl")


def differences(run: Path, reference: Path, unevaluated: bool = False) -> list[str]:
    """How a finished run is not, to the last bit, the one that nobody disturbed.

    unevaluated: it was stopped, which costs an evaluation that was under way, unless that was the last.
    """
    found = []
    for kind, fields in CURVE.items():
        mine, theirs = (
            [[line[field] for field in fields] for line in harness.records(each, kind)] for each in (run, reference)
        )
        if unevaluated and kind == "evaluation":
            theirs = [line for line in theirs if line in mine or line[0] == STEPS]
        if mine != theirs:
            found.append(f"the {kind} records of metrics.jsonl")
    if (run / "result.json").read_bytes() != (reference / "result.json").read_bytes():
        found.append("result.json")
    if stored(run) != stored(reference):
        found.append(f"checkpoints {stored(run)}, not {stored(reference)}")
        return found
    assert stored(run)[0] == STEPS
    for step in stored(run):
        try:
            harness.assert_same_checkpoint(checkpoint(run, step), checkpoint(reference, step))
        except AssertionError as error:
            found.append(f"step {step}: {str(error).splitlines()[0]}")
    return found


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run that a refused launch has to leave as it is."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in ("exit.json", ".lock"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}
