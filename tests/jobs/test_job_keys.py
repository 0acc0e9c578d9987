"""docs/job_keys.md has every key of a job, and no other. `python -m tests.jobs.test_job_keys` writes its table anew."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from tests import harness
from trainer.commands.jobs.load import load
from trainer.config.groups import job as schema
from trainer.config.groups.job import JobConfig
from trainer.config.keys import element_dataclass
from trainer.jobs.gates import KINDS

PAGE = harness.ROOT / "docs" / "job_keys.md"
ROW = re.compile(r"^\| `([\w.\[\]]+)` \| (?:`(.*?)`)? \|", re.MULTILINE)


def texts() -> dict[tuple[str, str], str]:
    """(class, field) -> the string below the field."""
    found = {}
    for one in ast.parse(inspect.getsource(schema)).body:
        if isinstance(one, ast.ClassDef):
            for field, below in zip(one.body, one.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    assert isinstance(below.value, ast.Constant)
                    found[one.name, field.target.id] = " ".join(str(below.value.value).split())
    return found


def rows(kind: Any = JobConfig, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default, text: of every leaf; elements of a list as sets[].name."""
    said, hints = texts(), get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key, inner = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(inner):
            yield from rows(inner, f"{key}.")
        elif (element := element_dataclass(inner)) is not None:
            yield from rows(element, f"{key}[].")
        else:
            made = field.default_factory() if callable(field.default_factory) else field.default
            yield key, "" if made is None else f"`{json.dumps(made)}`", said[kind.__name__, field.name]


def table() -> str:
    lines = [f"| `{key}` | {default} | {text.replace('|', chr(92) + '|')} |" for key, default, text in rows()]
    return "\n".join(["| key | default | |", "|---|---|---|", *lines])


def test_the_page_has_every_key_and_no_other() -> None:
    assert table() in PAGE.read_text(), "python -m tests.jobs.test_job_keys writes it anew"
    named = dict(ROW.findall(PAGE.read_text()))
    assert len(named) == len(list(rows())) == PAGE.read_text().count("\n| `")


def test_the_loader_takes_what_the_page_has(tmp_path: Path) -> None:
    """Each key with the default that the page gives it, as a job file, is the same as a file without it."""
    given: dict[str, Any] = {}
    for key, default in ROW.findall(PAGE.read_text()):
        *groups, name = key.replace("[]", ".0").split(".")
        place = given
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = json.loads(default) if default else None
    needed = {"recipe": "tiny", "schedule": {"cron": "0 2 * * *"}, "sets": [{"name": "a", "paths": ["a.jsonl"]}]}
    needed |= {"gates": [{"name": "g", "set": "a"}]}
    (tmp_path / "short.yaml").write_text(json.dumps(needed))
    whole = {**given, "recipe": "tiny", "schedule": {**given["schedule"], **needed["schedule"]}}
    whole |= {name: [{**given[name]["0"], **needed[name][0]}] for name in ("sets", "gates")}
    (tmp_path / "whole.yaml").write_text(json.dumps(whole))
    short, longer = load(tmp_path)
    assert longer.config == short.config


def test_the_example_of_the_page_is_a_job(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "weekly.yaml").write_text(text)
    (job,) = load(tmp_path)
    assert {gate.kind for gate in job.config.gates} == set(KINDS)


if __name__ == "__main__":
    page = PAGE.read_text()
    begin, end = page.index("| key |"), page.rindex("|\n") + 2
    PAGE.write_text(f"{page[:begin]}{table()}\n{page[end:]}")
