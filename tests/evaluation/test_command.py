"""scripts/eval.py: what it prints and writes, and one problem for each mistake."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from pathlib import Path

import pytest

from tests import directories
from tests.evaluation.test_text import write
from tests.families.checkpoints import parameters, save_run
from tests.families.pairs import pair
from tests.launched import Run
from trainer.data import progress


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "model"
    write(path, "llama", "grouped")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 30)
    return tmp_path / "text.txt"


def test_text_is_scored(model: Path, text: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run(model, "--data", text, text, "--seq-len", 32, "--output", tmp_path / "result.json")
    assert (code, err) == (0, "")
    value = json.loads((tmp_path / "result.json").read_text())
    assert value["format"] == 1
    said = {**value["model"], "window": 128}
    assert said == {
        **{"given": str(model), "kind": "directory", "path": str(model.resolve()), "step": None},
        **{"family": "llama", "dtype": "float32", "window": 128, "ranks": 1},
    }
    one, two = value["data"]
    assert {key: one[key] for key in one if key != "seconds"} == {key: two[key] for key in two if key != "seconds"}
    assert (one["name"], one["files"], one["documents"]) == (str(text), 1, 1)
    assert (one["seq_len"], one["stride"], one["windows"]) == (32, 32, math.ceil(one["targets"] / 32))
    assert one["perplexity"] == pytest.approx(math.exp(one["loss"]))
    assert one["bits_per_byte"] * one["bytes"] == pytest.approx(one["loss"] * one["targets"] / math.log(2))
    assert out.count(f"{one['loss']:.4f}") >= 2
    content = text.read_bytes()
    assert one["digest"] == hashlib.sha256(len(content).to_bytes(8, "little") + content).hexdigest()


def test_tasks_are_scored(model: Path, tmp_path: Path, run: Run) -> None:
    choices, exact, out = (tmp_path / name for name in ("choices.jsonl", "exact.jsonl", "result.json"))
    choices.write_text('{"question": "the cat sat on the", "choices": ["mat.", "cat"], "answer": 1}\n' * 3)
    exact.write_text('{"prompt": "the cat", "answer": "never", "tokens": 3}\n')
    code, shown, err = run(model, "--tasks", choices, exact, "--output", out)
    assert (code, err) == (0, "")
    value = json.loads(out.read_text())
    assert value["data"] == []
    one, two = value["tasks"]
    assert (one["kind"], one["name"], one["items"]) == ("multiple_choice", str(choices), 3)
    assert set(one["picked"]) == {"acc", "acc_norm", "acc_bytes", "acc_tokens"}
    assert all(one[measure] == picked.count(1) / 3 for measure, picked in one["picked"].items())
    assert (two["kind"], two["items"], two["exact_match"], len(two["said"])) == ("exact_match", 1, 0.0, 1)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (choices, exact)]
    assert [one["digest"], two["digest"]] == digests
    assert "acc_tokens" in shown
    assert "exact match" in shown


def test_every_file_is_looked_at(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": [0, 1]}')
    code, out, err = run(model, "--data", tmp_path / "none.txt", "--tasks", tmp_path / "bad.jsonl", tmp_path / "no")
    assert (code, out) == (4, "")
    assert err.count("rule:") == 3
    assert f"{tmp_path / 'bad.jsonl'}:1" in err


def test_a_model_that_has_diverged_is_right_in_nothing(text: Path, tmp_path: Path, run: Run) -> None:
    theirs = write(tmp_path / "broken", "llama", "grouped")
    theirs.model.norm.weight.data.fill_(float("nan"))
    theirs.save_pretrained(tmp_path / "broken")
    (tmp_path / "tasks.jsonl").write_text('{"question": "the", "choices": ["mat.", "cat"], "answer": 0}\n')
    out = tmp_path / "result.json"
    code, shown, _ = run(tmp_path / "broken", "--data", text, "--tasks", tmp_path / "tasks.jsonl", "--output", out)
    assert code == 0
    value = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (value["data"][0]["loss"], value["data"][0]["perplexity"]) == (None, None)
    assert (value["tasks"][0]["acc"], value["tasks"][0]["picked"]["acc"]) == (0, [-1])
    assert "1 items count as wrong" in shown


def test_a_run_says_its_step(text: Path, tmp_path: Path, run: Run) -> None:
    two = pair("llama", "grouped")
    checkpoint = save_run(tmp_path / "run", two.model, parameters(two.ours), step=7)
    (tmp_path / "run" / "tokenizer").mkdir()
    directories.write_tokenizer(tmp_path / "run" / "tokenizer", 96)
    (tmp_path / "words.txt").write_text("w5 w6 w7 w8 " * 20)
    out = tmp_path / "result.json"
    assert run(tmp_path / "run", "--data", tmp_path / "words.txt", "--output", out)[0] == 0
    said = json.loads(out.read_text())["model"]
    assert (said["kind"], said["step"], said["path"]) == ("checkpoint", 7, str(checkpoint.resolve()))


@pytest.mark.parametrize(
    ("arguments", "code", "key"),
    [
        ((), 3, "--data"),
        (("--data", "TEXT", "--seq-len", 0), 3, "--seq-len"),
        (("--data", "TEXT", "--seq-len", 129), 3, "--seq-len"),
        (("--data", "TEXT", "--seq-len", 16, "--stride", 17), 3, "--stride"),
        (("--data", "TEXT", "--stride", 0), 3, "--stride"),
        (("--data", "TEXT", "--stride", 500), 3, "--stride"),
        (("--data", "TEXT", "--batch", 0), 3, "--batch"),
        (("--data", "TEXT", "--output", "/proc/nowhere/x.json"), 3, "--output"),
        (("--data", "TEXT", "--output", "."), 3, "--output"),
        (("--data", "nowhere.txt"), 4, "--data"),
    ],
)
def test_a_mistake_is_one_problem(
    arguments: tuple[object, ...], code: int, key: str, model: Path, text: Path, run: Run
) -> None:
    found, out, err = run(model, *(text if one == "TEXT" else one for one in arguments))
    assert (found, out) == (code, "")
    assert err.count("rule:") == 1
    assert f"1. {key} = " in err


def test_a_model_without_a_tokenizer_is_refused(text: Path, tmp_path: Path, run: Run) -> None:
    directories.write(tmp_path / "bare")
    code, _, err = run(tmp_path / "bare", "--data", text)
    assert code == 3
    assert "1. MODEL = " in err


def test_an_option_that_nobody_knows(model: Path, run: Run) -> None:
    assert run(model, "--dta", "x")[0] == 3


@pytest.mark.parametrize("kind", ["pipe", "directory", "long", "nul", "proc", "below a file", "no directory"])
def test_a_result_that_cannot_be_written_is_refused_before_the_work(
    kind: str, model: Path, text: Path, tmp_path: Path, run: Run
) -> None:
    targets = {
        **{"pipe": tmp_path / "pipe", "directory": tmp_path, "long": tmp_path / ("y" * 250)},
        **{
            "nul": "x\0y",
            "proc": "/proc/x.json",
            "below a file": text / "x.json",
            "no directory": tmp_path / "no" / "x",
        },
    }
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    code, out, err = run(model, "--data", text, "--output", targets[kind])
    assert (code, out) == (3, "")
    assert "1. --output = " in err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe").is_fifo()


def test_a_result_goes_where_a_link_leads(model: Path, text: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "link.json").symlink_to("there.json")
    assert run(model, "--data", text, "--output", tmp_path / "link.json")[0] == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "there.json").read_text())["format"] == 1


def test_a_result_that_fails_to_be_written_leaves_nothing(
    model: Path, text: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(model, "--data", text, "--output", tmp_path / "x.json")
    assert code == 3
    assert "No space left on device" in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_long_evaluation_says_how_far_it_is(
    model: Path, text: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    choices, exact = tmp_path / "choices.jsonl", tmp_path / "exact.jsonl"
    choices.write_text('{"question": "the cat sat on the", "choices": ["mat.", "cat"], "answer": 1}\n' * 3)
    exact.write_text('{"prompt": "the cat", "answer": "never", "tokens": 3}\n' * 3)
    out = tmp_path / "x.json"
    code, shown, err = run(model, "--data", text, "--tasks", choices, exact, "--batch", 2, "--output", out)
    assert code == 0
    assert "tokenising" not in shown
    tokens = json.loads(out.read_text())["data"][0]["targets"]
    lines = err.splitlines()
    assert f"{text}: tokenising: 1 documents of 1 documents" in lines
    assert f"{text}: {tokens:,} tokens of {tokens:,} tokens" in lines
    assert any(re.fullmatch(rf"{choices}: [\d,]+ tokens of [\d,]+ tokens, \d+ s left", line) for line in lines)
    assert re.fullmatch(rf"{exact}: 2 items of 3 items, \d+ s left", lines[-2])
    assert lines[-1] == f"{exact}: 3 items of 3 items"
