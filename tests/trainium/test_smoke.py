"""The smoke test's page, line by line, on runs that are made up: those of a healthy trn1, and of a sick one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from trainer.commands.smoke.jobs import Job, Outcome, Setting
from trainer.commands.smoke.machine import PRETENDED
from trainer.commands.smoke.run import smoke
from trainer.commands.smoke.sums import NAME, line, measure
from trainer.errors import ConfigError
from trainer.trainium.host import Host

GOLDEN = ROOT / "tests" / "golden" / "smoke_tiny.json"
CURVES = json.loads(GOLDEN.read_text())["curves"]
CACHE = "neuron-compile-cache"
Sicken = Callable[[Path, Job, int], None]
"""Does something to a run that has just been made up: its root, its job, and the number of the launch from 1."""


def step(number: int, loss: float, norm: float) -> dict[str, Any]:
    counts = {"tokens": 2048 * number, "target_tokens": 2000 + number}
    speed = {"tokens_per_second": 5e4, "mfu": 0.25, "step_seconds": 0.04}
    return {"kind": "step", "step": number, "loss": loss, "grad_norm": norm, "finite": True, **counts, **speed}


def make_up(root: Path, job: Job) -> None:
    """Leave what a healthy run of the job would: records, configuration, a checkpoint, compiled graphs."""
    run = root / job.name
    (run / "checkpoints" / "step-00000020").mkdir(parents=True, exist_ok=True)
    precision = next(o for o in job.overrides if o.startswith("precision=")).partition("=")[2]
    if job.name.startswith("tiny"):
        curve = CURVES[precision]
        model = {"vocab": 512, "hidden": 128, "init_std": 0.02}
    else:  # ln 102400 = 11.537, and half of 4096 * 0.006 ** 2 = 0.074 more
        curve = {"loss": [11.6 - 0.1 * n for n in range(20)], "norm": [1.0] * 20}
        model = {"vocab": 102400, "hidden": 4096, "init_std": 0.006}
    last = 10 if "train.stop_after_steps=10" in job.overrides else 20
    lines = [json.dumps(step(n + 1, curve["loss"][n], curve["norm"][n])) for n in range(last)]
    lines.insert(last // 2, json.dumps({"kind": "save", "step": last // 2}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "config.yaml").write_text(json.dumps({"model": model, "precision": {"mode": precision}}))
    files = {"model/rank-00000.safetensors": {"sha256": "1f"}, "optimizer/rank-00000.safetensors": {"sha256": "2e"}}
    manifest = {"files": {**files, "config.yaml": {"sha256": f"of {job.name}"}}}
    (run / "checkpoints" / "step-00000020" / "manifest.json").write_text(json.dumps(manifest))
    for graph in range(3):
        compile_graph(root, f"MODULE_{job.name.removesuffix('-halves')}-{graph}+d41d8cd9")


def compile_graph(root: Path, name: str) -> None:
    """A compiled graph in the cache, as pytorch-neuron-parallel-compile.rst shows its path."""
    directory = root / CACHE / "neuronxcc-2.23.6484.0+a69f71e55" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.neff").touch()


def nothing(root: Path, job: Job, launch: int) -> None:
    """A healthy run."""


HEALTHY = {"embedding": 4096.0, "norm": 4096.0, "bias": 4096.0, "matrix": 4096.0}


def page_of(
    tmp_path: Path,
    sicken: Sicken = nothing,
    found: Host = PRETENDED,
    codes: dict[str, int] | None = None,
    summed: Mapping[str, float] | str = HEALTHY,
) -> tuple[int, dict[str, str], list[str]]:
    """Exit code, verdict by line, and the commands that ran, of a smoke test on a device that is made up."""
    commands: list[str] = []

    def execute(job: Job, setting: Setting) -> Outcome:
        commands.append(" ".join(job.command(setting)))
        make_up(setting.root, job)
        sicken(setting.root, job, len(commands))
        code = (codes or {}).get(job.name, 0)
        return Outcome(job, setting.root / job.name, code, "" if code == 0 else f"exit {code}: made up")

    setting = Setting(tmp_path / "smoke", tmp_path / "smoke" / CACHE, dry=False, timeout_seconds=1)
    code = smoke(setting, GOLDEN, found, execute, lambda _: summed)
    return code, verdicts((tmp_path / "smoke" / "page.md").read_text()), commands


def verdicts(page: str) -> dict[str, str]:
    """What is on a page: verdict by line."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| ")]
    return {row[1]: row[0] for row in rows[1:]}


def not_passed(lines: dict[str, str]) -> set[str]:
    return {name for name, verdict in lines.items() if verdict != "pass"}


def test_a_healthy_device_passes_every_line(tmp_path: Path) -> None:
    code, lines, commands = page_of(tmp_path)
    assert (code, not_passed(lines)) == (0, set())
    assert len(lines) == 20
    assert [int(c.split("--nproc_per_node ")[1].split()[0]) for c in commands] == [8, 32, 32, 32, 8, 32]
    assert all(" backend=neuron " in c and " parallel.tp=8 " in c and "--standalone" not in c for c in commands)
    assert ["recipe=deepseek7b" in c for c in commands] == [False] * 4 + [True] * 2
    assert not any("model.layers" in c for c in commands[4:]), "the 7B recipe is not shrunk on a device"


def edit_step(job: str, launch: int, number: int, **values: Any) -> Sicken:
    def sicken(root: Path, made: Job, at: int) -> None:
        if made.name != job or at != launch:
            return
        path = root / job / "metrics.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            if record["kind"] == "step" and record["step"] == number:
                record.update({k: v(record[k]) if callable(v) else v for k, v in values.items()})
        path.write_text("".join(json.dumps(record) + "\n" for record in records))

    return sicken


def late_graph(root: Path, job: Job, launch: int) -> None:
    if launch == 3:
        compile_graph(root, "MODULE_late+d41d8cd9")


def no_graphs(root: Path, job: Job, launch: int) -> None:
    for neff in (root / CACHE).glob("*/*/model.neff"):
        neff.unlink()


def other_moments(root: Path, job: Job, launch: int) -> None:
    if launch == 4:
        path = root / job.name / "checkpoints" / "step-00000020" / "manifest.json"
        path.write_text(path.read_text().replace("2e", "2d"))


def no_records(root: Path, job: Job, launch: int) -> None:
    if job.name == "7b-32":
        (root / job.name / "metrics.jsonl").unlink()


def no_checkpoint(root: Path, job: Job, launch: int) -> None:
    if launch == 4:
        (root / job.name / "checkpoints" / "step-00000020" / "manifest.json").unlink()


def times(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


@pytest.mark.parametrize(
    ("sicken", "failing"),
    [
        (edit_step("tiny-8", 1, 7, loss=times(1 + 2e-4)), {"tiny-8 curve"}),
        (edit_step("tiny-8", 1, 7, loss=times(1 + 0.5e-4)), set()),
        (edit_step("tiny-8", 1, 20, grad_norm=times(1 - 2e-3)), {"tiny-8 curve"}),
        (edit_step("tiny-8", 1, 3, loss=None, finite=False), {"tiny-8 curve"}),
        (edit_step("tiny-32", 2, 1, loss=times(1.003)), {"tiny-32 curve", "resume: curve"}),
        (edit_step("tiny-32", 2, 20, loss=times(1.006)), {"tiny-32 curve", "resume: curve"}),
        (edit_step("tiny-32-halves", 4, 11, loss=times(1 + 1e-12)), {"resume: curve"}),
        (edit_step("tiny-32-halves", 4, 15, target_tokens=7), {"resume: curve"}),
        (edit_step("7b-8", 5, 1, loss=12.0), {"7b-8 curve"}),
        (edit_step("7b-8", 5, 20, loss=11.7), {"7b-8 curve"}),
        (edit_step("7b-32", 6, 20, grad_norm=None), {"7b-32 curve", "7b-32 speed"}),
        (other_moments, {"resume: checkpoint"}),
        (no_checkpoint, {"resume: checkpoint"}),
        (late_graph, {"graphs of tiny-32"}),
        (no_graphs, {"graphs of tiny-32"}),
        (no_records, {"7b-32 curve", "7b-32 speed"}),
    ],
)
def test_a_fault_fails_its_line_and_no_other(tmp_path: Path, sicken: Sicken, failing: set[str]) -> None:
    code, lines, _ = page_of(tmp_path, sicken)
    assert (not_passed(lines), code) == (failing, 14 if failing else 0)


@pytest.mark.parametrize("summed", [{**HEALTHY, "embedding": 256.0}, {**HEALTHY, "bias": 4070.0}, {}, "no device"])
def test_a_sum_that_loses_parts_fails(tmp_path: Path, summed: Mapping[str, float] | str) -> None:
    code, lines, _ = page_of(tmp_path, summed=summed)
    assert (code, not_passed(lines)) == (14, {NAME})


@pytest.mark.parametrize(
    ("dry", "variables"),
    [
        pytest.param(True, {}, id="cpu"),
        pytest.param(False, {"PJRT_DEVICE": "CPU"}, id="xla", marks=pytest.mark.slow),
    ],
)
def test_the_sums_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool, variables: dict[str, str]
) -> None:
    """As in a dry run, and as on a device with XLA's CPU in its place."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = measure(Setting(tmp_path, tmp_path / CACHE, dry, timeout_seconds=1))
    assert found == HEALTHY
    assert line(found).verdict == "pass"


def test_an_impossible_mfu_fails(tmp_path: Path) -> None:
    faults = [edit_step("7b-8", 5, number, mfu=1.2) for number in range(10, 21)]

    def sicken(root: Path, job: Job, launch: int) -> None:
        for fault in faults:
            fault(root, job, launch)

    assert not_passed(page_of(tmp_path, sicken)[1]) == {"7b-8 speed"}


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    code, lines, _ = page_of(tmp_path, codes={"7b-8": 1})
    assert (code, not_passed(lines)) == (14, {"7b-8 runs"})


@pytest.mark.parametrize(
    ("found", "failing"),
    [
        (replace(PRETENDED, devices=1), {"devices"}),
        (replace(PRETENDED, driver=None), {"driver"}),
        (replace(PRETENDED, driver="2.30.2.0"), {"driver"}),
        (replace(PRETENDED, packages={**PRETENDED.packages, "neuronx-cc": "1.0.post1"}), {"packages"}),
        (replace(PRETENDED, packages={}), {"packages"}),
    ],
)
def test_nothing_runs_on_a_machine_that_is_not_ready(tmp_path: Path, found: Host, failing: set[str]) -> None:
    code, lines, commands = page_of(tmp_path, found=found)
    assert (code, not_passed(lines), commands) == (14, {*failing, "runs"}, [])


def test_without_a_device_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DRY=1"):
        page_of(tmp_path, found=replace(PRETENDED, devices=0))
    assert not (tmp_path / "smoke").exists()


def test_an_older_smoke_test_is_not_gone_on_with(tmp_path: Path) -> None:
    assert page_of(tmp_path)[0] == 0
    with pytest.raises(ConfigError, match="does not exist yet"):
        page_of(tmp_path)


def test_the_command_says_that_there_is_no_device_and_exits_3(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "smoke.py"), "--root", str(tmp_path / "smoke")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if Path("/dev/neuron0").exists():
        pytest.skip("there is a device here")
    assert done.returncode == 3
    assert "this machine has no Neuron device" in done.stderr
