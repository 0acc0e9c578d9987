"""scripts/compare_runs.py: what it finds of runs whose records are known, and what it says of what is no run."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import harness
from tests.end_to_end.test_readme import commands
from trainer.commands.compare_runs.comparison import as_json, compare
from trainer.commands.compare_runs.page import page
from trainer.commands.compare_runs.runs import CompareError, collect
from trainer.commands.compare_runs.table import describe
from trainer.observe.svg import thin

NASTY = """<img src=x onerror=alert(1)>&'"</script><b>"""


def make(run: Path, losses: dict[int, float | None], speeds: list[float] | None = None, **settings: Any) -> Path:
    """A run's directory. settings: by group, as config.yaml has them."""
    run.mkdir(parents=True)
    records = [
        {"kind": "step", "step": step, "loss": loss, "tokens_per_second": (speeds or [100.0] * len(losses))[n]}
        for n, (step, loss) in enumerate(losses.items())
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "config.yaml").write_text(yaml.safe_dump({"defaults": ["schema"], "run": {"name": run.name}, **settings}))
    return run


def compared(*runs: Path) -> dict[str, Any]:
    return as_json(compare(collect(runs)))


FP32 = {"precision": {"mode": "fp32"}}


def test_only_what_differs_is_shown_and_a_missing_key_is_the_default(tmp_path: Path) -> None:
    a = make(tmp_path / "a", {1: 2.0}, seed=7, optim={"lr": 1e-3}, data={"sources": [{"name": "x", "weight": 1}]})
    b = make(tmp_path / "b", {1: 2.0}, seed=7, optim={"lr": 3e-3}, data={"sources": [{"name": "x", "weight": 2}]})
    c = make(tmp_path / "c", {1: 2.0}, seed=7, optim={"lr": 1e-3, "name": "adamw"}, data={"sources": [{"name": "x"}]})
    found = compared(a, b, c)["settings"]
    assert found == {"optim.lr": [1e-3, 3e-3, 1e-3], "data.sources.0.weight": [1, 2, 1.0]}


def test_losses_speed_and_end(tmp_path: Path) -> None:
    run = make(tmp_path / "a", {1: 8.0, 2: 3.0, 3: 5.0, 4: None}, [1.0, 100.0, 102.0, 110.0])
    (run / "exit.json").write_text('{"code": 11, "name": "NONFINITE"}')
    (found,) = compared(run)["runs"]
    assert found["last"] == {"step": 4, "value": None}
    assert found["best"] == {"step": 2, "value": 3.0}
    assert (found["steps"], found["tokens_per_second"], found["exit"]) == (4, 101.0, "11 NONFINITE")


@pytest.mark.parametrize(
    ("settings", "other", "until", "parts", "tolerance"),
    [
        (FP32, {1: 4.0, 2: 3.0, 3: 2.0}, 3, None, 1e-5),
        (FP32, {1: 4.0, 2: 3.000015, 3: 2.0}, 1, None, 1e-5),
        (FP32, {1: 4.0, 2: 3.000015, 3: 2.00003}, 1, 3, 1e-5),
        ({"seed": 7}, {1: 4.0, 2: 3.000015, 3: 2.00003}, 1, None, 5e-3),
        (FP32, {1: 4.1, 2: 3.0}, None, 1, 1e-5),
        (FP32, {1: 4.0, 2: None}, 1, 2, 1e-5),
        (FP32, {1: 4.0, 3: 2.0, 5: 1.0}, 3, None, 1e-5),
        (FP32, {7: 4.0}, None, None, 1e-5),
    ],
)
def test_where_two_runs_part(
    tmp_path: Path, settings: dict[str, Any], other: dict[int, float | None], until: int, parts: int, tolerance: float
) -> None:
    a = make(tmp_path / "a", {1: 4.0, 2: 3.0, 3: 2.0}, **settings)
    (found,) = compared(a, make(tmp_path / "b", other, **settings))["partings"]
    assert (found["equal_until"], found["parts_at"], found["tolerance"]) == (until, parts, tolerance)
    assert found["uneven"] == (other.keys() in ({1, 3, 5}, {7}))
    if parts == 3:
        assert found["relative"] == pytest.approx(1.5e-5, rel=1e-6)


def test_losses_that_were_not_finite_at_the_same_step_are_equal(tmp_path: Path) -> None:
    (found,) = compared(make(tmp_path / "a", {1: 4.0, 2: None}), make(tmp_path / "b", {1: 4.0, 2: None}))["partings"]
    assert (found["equal_until"], found["parts_at"]) == (2, None)


def test_a_directory_of_runs_stands_for_them_each_once(tmp_path: Path) -> None:
    for name in ("lr=1", "lr=2"):
        make(tmp_path / "runs" / name, {1: 2.0})
    (tmp_path / "runs" / ".sweeps" / "launch").mkdir(parents=True)
    found = compared(tmp_path / "runs", tmp_path / "runs" / "lr=2", make(tmp_path / "other" / "lr=1", {1: 2.0}))
    assert [run["name"] for run in found["runs"]] == [
        str(tmp_path / "runs" / "lr=1"), "lr=2", str(tmp_path / "other" / "lr=1")
    ]  # fmt: skip


def test_a_run_without_a_step_is_shown_beside_the_others(tmp_path: Path) -> None:
    new = make(tmp_path / "new", {}, **FP32)
    (new / "metrics.jsonl").unlink()
    text = "\n".join(describe(compare(collect([make(tmp_path / "a", {1: 2.0}, **FP32), new]))))
    assert "no step yet" in text
    assert "no step in common" in text
    assert "no exit.json: it runs, or was killed" in text


def test_more_runs_than_keys_are_rows(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"r{n}", {1: 2.0}, optim={"lr": n / 8}) for n in range(3)]
    lines = list(describe(compare(collect(runs))))
    assert lines[lines.index("settings that differ") + 1 :][:4] == [
        "run  optim.lr", "r0   0.0", "r1   0.125", "r2   0.25"
    ]  # fmt: skip


def test_everything_that_is_no_run_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken, cut = make(tmp_path / "broken", {1: 2.0}), make(tmp_path / "cut", {1: 2.0})
    (broken / "config.yaml").write_text("a: [")
    (cut / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(CompareError) as raised:
        collect([tmp_path / "none", tmp_path / "empty", broken, cut])
    said = raised.value.report()
    assert "4 problems (exit 3)" in said
    for words in ("or a directory of runs", "its config.yaml can be read", "line 1 is a record"):
        assert words in said


def test_a_long_curve_is_thinned_and_keeps_its_spikes() -> None:
    losses = [(step, 3.0 + math.sin(step / 500)) for step in range(1, 20_001)]
    losses[7_000], losses[9_000], losses[9_001] = (7_001, 50.0), (9_001, -1.0), (9_002, math.nan)
    thinned = thin(losses)
    assert len(thinned) <= 620
    assert {losses[0], losses[7_000], losses[9_000], losses[-1]} <= set(thinned)
    assert any(math.isnan(loss) for _, loss in thinned)
    assert [step for step, _ in thinned] == sorted({step for step, _ in thinned})


def test_a_page_has_no_address_and_no_tag_of_a_name(tmp_path: Path) -> None:
    evil = make(tmp_path / "runs" / "evil", {1: 2.0, 2: 1.5}, model={"name": NASTY})
    named = evil.rename(evil.parent / NASTY.replace("/", "")[:60])
    text = page(compare(collect([named, make(tmp_path / "a", {1: 2.0, 2: 1.0})])))
    assert "<img" not in text
    assert "<b>" not in text
    assert text.count("</script>") == 2
    assert not re.search(r"https?://|src=|@import", text.replace("src=x", ""))


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    text = "\n".join(describe(compare(collect([make(tmp_path / "a\x1b[2J\nb", {1: 2.0})]))))
    assert "\x1b" not in text
    assert r"a\x1b[2J\nb" in text


def script(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "compare_runs.py"), *arguments],
        cwd=cwd,
        env={**harness.environment(), "PYTHONPATH": str(harness.ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a", "b", "--json", "--html", "c.html"], 0, '"parts_at": 2'),
        (["a"], 0, "one run: there is nothing to compare it with"),
        (["none"], 3, "or a directory of runs"),
        (["a", "--html", "absent/c.html"], 3, "a file that can be written: No such file"),
        ([], 3, "the following arguments are required"),
    ],
)
def test_the_script(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    make(tmp_path / "a", {1: 2.0, 2: 1.0})
    make(tmp_path / "b", {1: 2.0, 2: 1.5})
    done = script(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "c.html").is_file() == ("c.html" in arguments)


def test_the_pages_commands(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "tiny", {1: 2.0, 2: 1.0})
    make(tmp_path / "runs" / "other", {1: 2.0, 2: 1.5})
    lines = commands("docs/compare.md")
    assert len(lines) == 3
    for line in lines:
        done = script(tmp_path, *shlex.split(line)[2:])
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "compare.html").is_file()
