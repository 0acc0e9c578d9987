"""Task files: what they may hold, and one problem for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import DataError
from trainer.evaluation import files
from trainer.evaluation.tasks import MOST, Choice, Exact, read_tasks

GOOD: dict[str, Any] = {"question": "q", "choices": ["a", "b"], "answer": 0}
PROMPT: dict[str, Any] = {"prompt": "p", "answer": "a"}


def write(tmp_path: Path, *lines: Any) -> str:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_choices_are_read(tmp_path: Path) -> None:
    lines = [
        {**GOOD, "id": 7},
        "",
        {"context": "", "choices": ["x", "y", "x"], "answer": [1], "delimiter": ""},
    ]
    (task,) = read_tasks([write(tmp_path, *lines)])
    assert task.choices == (Choice("q", ("a", "b"), 0), Choice("", ("x", "y", "x"), 1, ""))
    assert task.exacts == ()


def test_exact_matches_are_read(tmp_path: Path) -> None:
    lines = [PROMPT, {"prompt": "", "answer": ["4", "four"], "stop": [], "tokens": 5}]
    (task,) = read_tasks([write(tmp_path, *lines)])
    assert task.exacts == (Exact("p", ("a",)), Exact("", ("4", "four"), (), 5))


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "'question' or 'context'"),
        ({"question": "q", "answer": 0}, "'choices'"),
        ({"question": "q", "choices": ["a", "b"]}, "'answer'"),
        ({**GOOD, "context": "c"}, "one of"),
        ({**GOOD, "question": 5}, "is a text"),
        ({**GOOD, "question": "\ud800"}, "surrogate"),
        ({**GOOD, "choices": []}, "two or more"),
        ({**GOOD, "choices": ["a"]}, "two or more"),
        ({**GOOD, "choices": "ab"}, "a list of texts"),
        ({**GOOD, "choices": ["a", 2]}, "a list of texts"),
        ({**GOOD, "choices": ["a", ""]}, "no choice is empty"),
        ({**GOOD, "choices": ["a", "b", "a"]}, "stands there twice"),
        ({**GOOD, "answer": [0, 1]}, "2 are marked"),
        ({**GOOD, "answer": []}, "0 are marked"),
        ({**GOOD, "answer": 2}, "0 to 1"),
        ({**GOOD, "answer": -1}, "0 to 1"),
        ({**GOOD, "answer": True}, "number of the right choice"),
        ({**GOOD, "answer": "a"}, "number of the right choice"),
        ({**GOOD, "answer": None}, "number of the right choice"),
        ({**GOOD, "delimiter": 1}, "is a text"),
        ('{"question": "q", "answer": 0, "answer": 1, "choices": ["a", "b"]}', "'answer' stands there twice"),
        ("{'question': 'q'}", "line of JSON"),
        ('{"question": "q"', "line of JSON"),
        ("[" * 100_000, "line of JSON"),
        ("[]", "is an object"),
        (PROMPT, "'question' or 'context'"),
    ],
)
def test_a_bad_line_is_one_problem(line: Any, rule: str, tmp_path: Path) -> None:
    name = write(tmp_path, GOOD, line, GOOD)
    with pytest.raises(DataError) as raised:
        read_tasks([name])
    (problem,) = raised.value.problems
    assert problem.key == f"{name}:2"
    assert rule in problem.rule
    assert len(str(problem)) < 600


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ({"prompt": "p"}, "'answer'"),
        ({**PROMPT, "answer": ""}, "is a text"),
        ({**PROMPT, "answer": " "}, "each is right"),
        ({**PROMPT, "answer": []}, "each is right"),
        ({**PROMPT, "answer": 4}, "is a text"),
        ({**PROMPT, "stop": "x"}, "a list of texts"),
        ({**PROMPT, "stop": [""]}, "stop string"),
        ({**PROMPT, "tokens": 0}, "1 or more"),
        ({**PROMPT, "tokens": 2.5}, "1 or more"),
        (GOOD, "'prompt'"),
    ],
)
def test_a_bad_exact_match_is_one_problem(line: Any, rule: str, tmp_path: Path) -> None:
    name = write(tmp_path, PROMPT, line)
    with pytest.raises(DataError) as raised:
        read_tasks([name])
    (problem,) = raised.value.problems
    assert problem.key == f"{name}:2"
    assert rule in problem.rule


def test_files_without_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "latin").write_bytes(b'{"question": "\xfc"}')
    (tmp_path / "huge").write_text("x" * 300)
    monkeypatch.setattr(files, "LARGEST", 200)
    names = [str(tmp_path / name) for name in ("missing", "empty", "latin", "huge", ".")]
    with pytest.raises(DataError) as raised:
        read_tasks(names)
    keys = [problem.key for problem in raised.value.problems]
    assert keys == ["--tasks", "--tasks", f"{tmp_path}/latin:1", "--tasks", "--tasks"]


def test_every_line_is_looked_at(tmp_path: Path) -> None:
    name = write(tmp_path, {**GOOD, "answer": [0, 1]}, "no", GOOD, "[]", {**GOOD, "choices": []})
    with pytest.raises(DataError) as raised:
        read_tasks([name])
    assert [problem.key for problem in raised.value.problems] == [f"{name}:{number}" for number in (1, 2, 4, 5)]


def test_no_more_problems_than_can_be_read(tmp_path: Path) -> None:
    name = write(tmp_path, *[{**GOOD, "answer": 9}] * 500)
    with pytest.raises(DataError) as raised:
        read_tasks([name])
    assert len(raised.value.problems) == MOST
