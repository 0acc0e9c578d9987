"""Records, sinks and the step's clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness
from trainer.observe.records import EvaluationRecord, SaveRecord, SetRecord, StepRecord
from trainer.observe.sinks import JsonLines, Lines, describe, duration
from trainer.observe.stopwatch import Stopwatch
from trainer.observe.wandb_sink import WandbSink


def step(number: int, loss: float = 2.0) -> StepRecord:
    return StepRecord(number, 10 * number, loss, 1.0, loss == loss, 1e-3, 9, 100.0, 0.4, 2.0, 0.5, 1.4, 0.1, 30.0)


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write(step(1, float("nan")))
    sink.write(step(2, float("inf")))
    sink.write(SaveRecord(2, "x", 0.1))
    sink.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "step", "save"]
    assert lines[0]["loss"] is None
    assert lines[1]["loss"] is None


def test_a_record_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write(step(1))
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")


def test_lines_show_one_step_in_n_the_first_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Lines(steps=7, every_steps=3)
    for number in range(1, 8):
        sink.write(step(number))
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["1/7", "3/7", "6/7", "7/7"]


def test_a_reader_that_leaves_does_not_stop_training() -> None:
    """As in `train.py | head -1`: the pipe breaks, the process goes on to its end."""
    code = (
        "import time; from trainer.observe.sinks import Lines; from tests.unit.test_observe import step\n"
        "from trainer.run.output import outlive_readers; outlive_readers()\n"
        "sink = Lines(99, 1)\n"
        "for n in range(1, 20): sink.write(step(n)); time.sleep(0.02)\n"
        "import sys; sys.exit(7)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=harness.ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 7


def test_the_clock_has_no_gaps() -> None:
    """Two steps and what is between them: laps, the rest and the excluded time add up to the wall."""
    begin = time.perf_counter()
    watch = Stopwatch()
    time.sleep(0.02)
    watch.lap("data")
    time.sleep(0.03)
    watch.lap("compute")
    first = watch.close()
    time.sleep(0.01)  # writing the record: on the next step's clock
    paused = time.perf_counter()
    time.sleep(0.05)  # evaluation: on nobody's
    excluded = time.perf_counter() - paused
    watch.exclude(excluded)
    watch.charge_rest()
    time.sleep(0.02)
    watch.lap("compute")
    second = watch.close()
    assert sum(first[1:]) == pytest.approx(first[0])
    assert sum(second[1:]) == pytest.approx(second[0])
    assert first[0] + second[0] + excluded == pytest.approx(time.perf_counter() - begin, abs=2e-3)
    assert second[3] >= 0.01, "the record's time is other, not compute"
    assert second[2] < 0.045


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (5, 59.4, 61, 3599, 7320)] == ["5s", "59s", "1m01s", "59m59s", "2h02m"]


class Rows:
    """Takes what a W&B run takes, with W&B's own rule: no row of a step before the last."""

    starting_step = 0

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, object]]] = []

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        pass

    def log(self, values: dict[str, object], step: int) -> None:
        assert not self.rows or step >= self.rows[-1][0], "W&B would drop it"
        self.rows.append((step, values))


def test_a_set_has_its_own_columns_and_line(tmp_path: Path) -> None:
    record = SetRecord(6, 60, "quiz", {"acc": 0.5, "acc_norm": math.nan}, 0.1)
    rows = Rows()
    WandbSink(rows).write(record)
    assert {key for key in rows.rows[-1][1] if "acc" in key} == {"set/quiz/acc", "set/quiz/acc_norm"}
    assert "quiz: acc 0.5000" in describe(record, 10)
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write(record)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    said = {"kind": "set", "step": 6, "tokens": 60, "set": "quiz", "seconds": 0.1, "acc": 0.5, "acc_norm": None}
    assert json.loads(line) == said


def test_a_save_that_ends_later_is_a_row_of_the_step_at_hand() -> None:
    rows = Rows()
    sink = WandbSink(rows)
    sink.write(EvaluationRecord(6, 60, 1.0, 1.0, 1.0, 0.1, ""))
    sink.write(SaveRecord(4, "checkpoints/step-00000004", 2.5))
    assert rows.rows[-1][0] == 6
    assert rows.rows[-1][1]["save/step"] == 4
    assert rows.rows[-1][1]["save/seconds"] == 2.5
