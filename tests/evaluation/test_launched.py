"""scripts/eval.py cut over two ranks: the figures of one process, and one report of whatever a rank finds wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import directories, harness
from tests.evaluation.test_chat import TAGGED, TALKS
from tests.evaluation.test_text import TEXT, write
from tests.launched import assert_one_report, command
from tests.ranks import Outcomes, Task, attempt
from tests.selection import in_ci, long

pytestmark = pytest.mark.slow

LONGEST = 60.0
"""Seconds until everybody has ended, on a busy machine."""
CHOICES = [
    {"question": "the cat", "choices": ["sat", "mat.", "hello world"], "answer": 0},
    {"context": "", "choices": ["on", "cat sat"], "answer": 1},
    {"question": "hello ", "choices": ["world", "\u65e5\u672c"], "answer": 0},
]
EXACTS = [
    {"prompt": "the cat", "answer": "sat", "tokens": 7},
    {"prompt": "", "answer": ["x", "y"], "tokens": 5, "stop": ["q"]},
    {"prompt": "hello world, the cat sat on the", "answer": "mat.", "tokens": 9},
]


def lines(values: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and files, right ones and wrong ones."""
    path = tmp_path_factory.mktemp("launched")
    write(path / "llama", "llama", "grouped")
    write(path / "gpt2", "gpt2", "gpt2", vocab_size=301)
    directories.write(path / "uncuttable", {**directories.CONFIG, "intermediate_size": 25})
    directories.write_tokenizer(path / "uncuttable", 40)
    (path / "text.txt").write_text(TEXT * 3)
    (path / "other.txt").write_text(TEXT * 2)
    (path / "short.txt").write_text("t")
    (path / "choices.jsonl").write_text(lines(CHOICES))
    (path / "other.jsonl").write_text(lines(CHOICES[:2]))
    (path / "exact.jsonl").write_text(lines(EXACTS))
    (path / "talk.jsonl").write_text(lines([{"messages": talk} for talk in TALKS]))
    (path / "tagged.jinja").write_text(TAGGED)
    (path / "other.jinja").write_text(f"{TAGGED} ")
    (path / "wrong.jsonl").write_text(lines([{**CHOICES[0], "answer": 3}]))
    (path / "long.jsonl").write_text(lines([{**EXACTS[0], "tokens": 128}]))
    return path


ALL = ["--data", "text.txt", "other.txt", "--tasks", "choices.jsonl", "exact.jsonl", "--chat", "talk.jsonl"]
ALL += ["--seq-len", "40", "--stride", "30", "--batch", "3"]


@pytest.mark.parametrize("name", ["gpt2", *long("llama")])
def test_two_ranks_find_what_one_finds(name: str, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gpt2: of a vocabulary that two ranks cannot share evenly."""
    monkeypatch.chdir(cwd)
    assert command("eval", [[name, *ALL, "--output", f"{name}-1.json"]])["code"] == 0
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line += [str(harness.ROOT / "scripts" / "eval.py"), name, *ALL, "--output", f"{name}-2.json"]
    done = subprocess.run(line, env=harness.environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((cwd / f"{name}-{ranks}.json").read_text()) for ranks in (1, 2))
    assert [value["model"].pop("ranks") for value in (one, two)] == [1, 2]
    assert one["model"] == two["model"]
    for mine, theirs in zip([*one["data"], *one["chats"]], [*two["data"], *two["chats"]], strict=True):
        close = [key for key in ("loss", "perplexity", "bits_per_byte") if key in mine]
        assert [theirs.pop(key) for key in close] == pytest.approx([mine.pop(key) for key in close], rel=1e-6)
    # Choices, texts and counts to the last.
    every = ([found for kind in ("data", "tasks", "chats") for found in value[kind]] for value in (one, two))
    for mine, theirs in zip(*every, strict=True):
        assert mine.pop("seconds") > 0 < theirs.pop("seconds")
        assert mine == theirs


TALK = ["llama", "--chat", "talk.jsonl", "--chat-template"]
FINE = ["--data", "text.txt", "--tasks", "choices.jsonl"]
WRONG: dict[str, tuple[list[list[str]], int, int, str]] = {
    # what: arguments by rank, exit code, the rank that tells it, what it says
    "no model on one": ([["llama", *FINE], ["nowhere", *FINE]], 3, 1, "MODEL = 'nowhere'"),
    "another model": ([["llama", *FINE], ["gpt2", *FINE]], 3, 0, "on ranks [1] it is not what rank 0 has"),
    "too many ranks": ([["uncuttable", *FINE]], 3, 0, "number of processes = 2"),
    "no file on one": ([["llama", *FINE], ["llama", "--data", "no.txt", *FINE[2:]]], 4, 1, "--data = 'no.txt'"),
    "another text": ([["llama", *FINE], ["llama", "--data", "other.txt", *FINE[2:]]], 4, 0, "--data = 'text.txt'"),
    "other tasks": ([["llama", *FINE], ["llama", *FINE[:3], "other.jsonl"]], 4, 0, "--tasks = 'choices.jsonl'"),
    "other files": ([["llama", *FINE], ["llama", *FINE[:2]]], 3, 0, "--tasks = 0"),
    "another template": ([[*TALK, "tagged.jinja"], [*TALK, "other.jinja"]], 3, 0, "--chat-template = 'other.jinja'"),
    "a wrong line": ([["llama", "--tasks", "wrong.jsonl"]], 4, 0, "wrong.jsonl:1 = 3"),
    "other options": ([["llama", *FINE], ["llama", *FINE, "--batch", "2"]], 3, 0, "--batch = 2"),
    "a long window": ([["llama", *FINE, "--seq-len", "999"]], 3, 0, "--seq-len = 999"),
    "a token": ([["llama", "--data", "short.txt"]], 4, 0, "--data = 'short.txt'"),
    "no room": ([["llama", "--tasks", "long.jsonl"]], 4, 0, "long.jsonl, item 1: tokens = 128"),
    "no place to write": ([["llama", *FINE, "--output", "no/x.json"]], 3, 0, "--output = 'no/x.json'"),
}
IN_CI = ("no model on one", "another text", "a wrong line", "other options", "no place to write")
"""A model, files, their content, options and the result: one mistake of each."""


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], cwd: Path) -> Outcomes:
    """All launches that tests ask for, one after the other in forks of one process."""
    names = [params["wrong"] for params in selected if "wrong" in params]
    given = {name: {"name": "eval", "arguments": WRONG[name][0]} for name in names}
    return attempt({name: Task("tests.launched:command", 2, given[name], LONGEST) for name in names}, cwd)


@pytest.mark.parametrize("wrong", in_ci(WRONG, IN_CI))
def test_a_mistake_ends_all_ranks_with_one_report(wrong: str, outcomes: Outcomes) -> None:
    _, code, reporter, said = WRONG[wrong]
    ranks: list[dict[str, Any]] = outcomes[wrong]
    assert [rank["out"] for rank in ranks] == ["", ""]
    assert_one_report(ranks, code, reporter, said, LONGEST)


STARVED = """
import sys
from tests.launched import script, starve
from trainer.commands.command_line import run

starve()
sys.exit(run(script("eval").parser(), script("eval").act))
"""


def test_a_rank_that_goes_leaves_no_traceback(cwd: Path) -> None:
    (cwd / "starved.py").write_text(STARVED)
    line = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), "--standalone", "--nproc_per_node", "2"]
    line += ["starved.py", "llama", "--data", "text.txt", "--seq-len", "16", "--batch", "2"]
    environment = {**harness.environment(), "PYTHONPATH": str(harness.ROOT)}
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "rank 1: the configuration cannot run: 1 problem (exit 3)\n  1. memory = '128 bytes'" in done.stderr
    assert "a rank did not arrive: 1 problem (exit 12)\n  1. ranks = " in done.stderr
    assert "Traceback" not in done.stderr
