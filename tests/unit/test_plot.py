"""scripts/plot.py: what is drawn of a run's records, and what is said of what cannot be drawn."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from tests import harness
from trainer.commands.plot import PlotError, draw, plot, smooth
from trainer.observe.curves import read


def step(number: int, loss: float | None) -> dict[str, Any]:
    return {"kind": "step", "step": number, "tokens": 8 * number, "loss": loss, "finite": loss is not None}


def evaluation(number: int, bits: float, zlib: float = 2.5) -> dict[str, Any]:
    return {"kind": "evaluation", "step": number, "bits_per_byte": bits, "zlib_bits_per_byte": zlib, "sample": "x"}


SAVE = {"kind": "save", "step": 2, "path": "runs/a/checkpoints/step-00000002", "seconds": 0.1}


def record(run: Path, *records: object) -> Path:
    """A run's directory with these records."""
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    return run


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


def problem(*runs: Path, out: Path) -> str:
    with pytest.raises(PlotError) as raised:
        plot(runs, out)
    assert raised.value.code == 3
    return raised.value.report()


def test_the_lines_are_the_records(tmp_path: Path) -> None:
    run = record(
        tmp_path / "a", step(1, 8.0), step(2, 6.5), evaluation(2, 2.25), SAVE, step(3, 5.0), evaluation(3, 2.0)
    )
    left, right = draw([read(run, "a")]).axes
    assert [points(line) for line in left.lines] == [[(1, 8.0), (2, 6.5), (3, 5.0)]]
    curve, zlib = right.lines
    assert points(curve) == [(2, 2.25), (3, 2.0)]
    assert list(zlib.get_ydata()) == [2.5, 2.5]
    assert [text.get_text() for text in right.texts] == ["zlib -9 on the same text: 2.50", "2.00"]
    assert (left.get_ylabel(), right.get_ylabel()) == ("nats per token", "bits per byte (lower is better)")


def test_each_run_has_its_color_and_equal_baselines_are_one_line(tmp_path: Path) -> None:
    a = record(tmp_path / "a", step(1, 8.0), evaluation(1, 2.0))
    b = record(tmp_path / "b", step(1, 7.0), evaluation(1, 2.2))
    c = record(tmp_path / "c$_$", step(1, 6.0), evaluation(1, 2.4, zlib=3.0))
    left, right = draw([read(run, run.name) for run in (a, b, c)]).axes
    assert [points(line) for line in left.lines] == [[(1, 8.0)], [(1, 7.0)], [(1, 6.0)]]
    assert len({line.get_color() for line in left.lines}) == 3
    assert [line.get_ydata()[0] for line in right.lines] == [2.0, 2.2, 2.4, 2.5, 3.0]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["run a", "run b", r"run c\$_\$"]
    assert right.get_legend().get_texts()[1].get_text() == "run b: 2.200"


def test_a_longer_run_shows_its_mean_over_every_step(tmp_path: Path) -> None:
    losses = [8.0 if number % 2 else 4.0 for number in range(1, 61)]
    run = record(tmp_path / "a", *(step(number, loss) for number, loss in enumerate(losses, 1)))
    raw, mean = draw([read(run, "a")]).axes[0].lines
    assert points(raw) == [(float(number), loss) for number, loss in enumerate(losses, 1)]
    # 60 steps: means of 3, which are 16/3 around a high step (4 + 8 + 4) and 20/3 around a low one.
    assert points(mean)[29] == (30, pytest.approx(20 / 3))
    assert points(mean)[30] == (31, pytest.approx(16 / 3))


def test_the_mean_narrows_at_the_beginning_and_leaves_out_what_is_not_finite() -> None:
    assert smooth([9.0, 6.0, 3.0, 0.0, 3.0], 4) == [9.0, 6.0, 4.2, 3.0, 2.0]
    gap = smooth([1.0, math.nan, 3.0], 2)
    assert gap == [1.0, 2.0, 3.0]
    assert math.isnan(smooth([math.nan], 2)[0])


def test_a_loss_that_was_not_finite_is_a_gap(tmp_path: Path) -> None:
    run = record(tmp_path / "a", step(1, 8.0), step(2, None), step(3, 5.0))
    losses = [loss for _, loss in points(draw([read(run, "a")]).axes[0].lines[0])]
    assert losses[::2] == [8.0, 5.0]
    assert math.isnan(losses[1])


def test_a_run_without_evaluations_has_a_curve_and_no_baseline(tmp_path: Path) -> None:
    left, right = draw([read(record(tmp_path / "a", step(1, 8.0)), "a")]).axes
    assert points(left.lines[0]) == [(1, 8.0)]
    assert [points(line) for line in right.lines] == [[]]


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    run = record(tmp_path / "a", step(1, 8.0))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "st')
    assert read(run, "a").loss == {1: 8.0}


def test_the_picture_is_900_by_420(tmp_path: Path) -> None:
    run = record(tmp_path / "a", step(1, 8.0), evaluation(1, 2.0))
    plot([run], tmp_path / "curve.png")
    assert imread(tmp_path / "curve.png").shape[:2] == (420, 900)
    plot([run], tmp_path / "curve.svg")
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    record(tmp_path / "new")
    said = problem(tmp_path / "none", tmp_path / "empty", tmp_path / "new", out=tmp_path / "curve.gif")
    assert "4 problems (exit 3)" in said
    for words in ("the directory of a run", "No such file", "at least one step", ".png, .svg, .pdf"):
        assert words in said
    assert not (tmp_path / "curve.gif").exists()


@pytest.mark.parametrize(
    "line",
    ["{", "3", "[]", '{"kind": "step"}', '{"kind": "step", "step": 2, "loss": "low"}', '{"step": 2}', "[" * 100_000],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    run = record(tmp_path / "a", step(1, 8.0))
    with open(run / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    assert "line 2 is a record" in problem(run, out=tmp_path / "curve.png")


def test_records_that_are_not_text_are_refused(tmp_path: Path) -> None:
    run = record(tmp_path / "a")
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    assert "not text" in problem(run, out=tmp_path / "curve.png")


@pytest.mark.parametrize("out", ["absent/curve.png", "directory.png"])
def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path, out: str) -> None:
    (tmp_path / "directory.png").mkdir()
    run = record(tmp_path / "a", step(1, 8.0))
    assert "--out" in problem(run, out=tmp_path / out)


def test_without_matplotlib_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record(tmp_path / "a", step(1, 8.0))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what Python keeps of a module that is not there
    said = problem(run, out=tmp_path / "curve.png")
    assert "pip install --constraint constraints.txt matplotlib" in said


def test_the_script_draws_and_its_mistakes_exit_3_without_a_traceback(tmp_path: Path) -> None:
    record(tmp_path / "a", step(1, 8.0))
    for arguments, code in ((["a", "--out", "c.png"], 0), (["b", "--out", "c.png"], 3), (["a"], 3)):
        done = subprocess.run(
            [sys.executable, str(harness.ROOT / "scripts" / "plot.py"), *arguments],
            cwd=tmp_path,
            env={**harness.environment(), "PYTHONPATH": str(harness.ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "c.png").is_file()
