"""A model cut over two ranks has the scores that it has on one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_text import TEXT, write
from tests.ranks import Task as OnRanks
from tests.ranks import run
from trainer.evaluation.choices import score_choices
from trainer.evaluation.exact import score_exact
from trainer.evaluation.files import Texts
from trainer.evaluation.tasks import Choice, Exact, Task
from trainer.evaluation.text import score_text
from trainer.generation.opened import opened_model

CHOICES = tuple(Choice(context, ("mat.", "hello world", "on", "cat"), 0) for context in ("the cat", "", "hello ", "on"))
EXACTS = (Exact("the cat", ("x",), ("q",), 6), Exact("hello", ("x",), (), 9), Exact("", ("x",), (), 9))


def scores(directory: str) -> dict[str, dict[str, Any]]:
    with opened_model(directory) as opened:
        assert opened.words is not None
        found: dict[str, Any] = {
            "text": score_text(opened, opened.words, Texts("x", 1, (TEXT, "hello"), ""), 40, 20, 3),
            "choices": score_choices(opened, opened.words, Task("x", "", choices=CHOICES), 3),
            "exact": score_exact(opened, opened.words, Task("x", "", exacts=EXACTS), 2),
        }
    return {name: {key: value for key, value in asdict(one).items() if key != "seconds"} for name, one in found.items()}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("family", "name"), [("llama", "grouped"), ("gpt2", "gpt2")])
def test_two_ranks_say_what_one_says(family: str, name: str, tmp_path: Path) -> None:
    write(tmp_path / "model", family, name)
    alone = scores(str(tmp_path / "model"))
    tasks = OnRanks("tests.evaluation.test_layouts:scores", 2, {"directory": str(tmp_path / "model")})
    for rank in run(tasks, tmp_path):
        assert (rank["choices"], rank["exact"]) == (alone["choices"], alone["exact"])
        figures = [{key: value for key, value in one.items() if key != "name"} for one in (rank["text"], alone["text"])]
        assert figures[0] == pytest.approx(figures[1], rel=1e-5)
