"""The ledger's page: whole, escaped, and without a word on a browser's console."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import needs_chromium, opened
from tests.jobs.pretended import NIGHTLY, Pretended, registry_of, tick
from trainer.commands.jobs.page import write_page
from trainer.errors import ConfigError
from trainer.jobs.ledger import Ledger
from trainer.jobs.work import Job

JOB = Job("nightly", NIGHTLY)
EVIL = "<script>document.title = 'taken'</script>"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of three nights: published, rejected, and failed with a reason that would like to be a script."""
    monkeypatch.chdir(tmp_path)
    world = Pretended(tmp_path)
    tick(world, JOB)
    for night in range(3):
        world.data = f"night {night}"
        for _ in range(24 * 3):
            world.now += timedelta(minutes=20)
            if night == 2:
                world.codes.setdefault(f"{world.now:%Y%m%d}t003000z", [3])
            tick(world, JOB)
    run = Path("runs/nightly-20261001t003000z")
    run.mkdir(parents=True)
    records = [{"kind": "step", "step": step, "loss": 4.0 / step, "tokens_per_second": 9.0} for step in range(1, 30)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    evil = Job("nightly", replace(NIGHTLY, recipe=EVIL))
    list(write_page(Ledger(world.storage, "ledger"), [evil], lambda job: registry_of(world, job), Path("page.html")))
    return tmp_path / "page.html"


class Words(HTMLParser):
    """Text of a page, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", []  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_tells_what_has_happened(page: Path) -> None:
    words = Words()
    words.feed(page.read_text())
    for text in ("3 occurrences", "published", "rejected", "failed", "a tie keeps the champion", "Training loss"):
        assert text in words.text, text
    assert EVIL in words.text
    assert "script" not in words.tags
    assert words.tags.count("path") == 1


@needs_chromium
@pytest.mark.slow
def test_a_browser_has_nothing_to_say(page: Path, tmp_path: Path) -> None:
    found = opened(page, tmp_path / "profile")
    assert found.console == []
    assert "<title>Scheduled jobs</title>" in found.dom
    assert "20261001t003000z" in found.dom


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory that exists"):
        list(write_page(Ledger.at(str(tmp_path)), [], lambda job: None, tmp_path / "no" / "page.html"))  # type: ignore[arg-type,return-value]
