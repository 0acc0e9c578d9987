"""The comparison's page in a browser: no console error, both curves drawn, hidden and shown, and no name that acts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser import needs_chromium, opened
from tests.unit.test_compare_runs import NASTY, make
from trainer.commands.compare_runs.comparison import compare
from trainer.commands.compare_runs.page import page
from trainer.commands.compare_runs.runs import collect

pytestmark = [pytest.mark.slow, needs_chromium]

ACT = """<script>
document.querySelector("input[data-run=run-1]").click();
document.querySelector("svg").dispatchEvent(new MouseEvent("mousemove", {clientX: 1e6}));
</script>"""


def test_the_page_opens_without_an_error_and_its_script_works(tmp_path: Path) -> None:
    a = make(tmp_path / "a", {step: 9.0 / step if step % 7 else None for step in range(1, 3001)})
    b = make(tmp_path / NASTY.replace("/", ""), {1: 8.0, 2: 4.0}, model={"name": NASTY})
    file = tmp_path / "page.html"
    file.write_text(page(compare(collect([a, b]))) + ACT)
    seen = opened(file, tmp_path / "profile")
    assert seen.console == []
    assert len(re.findall(r"<path", seen.dom)) == 2
    assert 'class="curve run-1 off"' in seen.dom
    assert 'class="curve run-0"' in seen.dom
    readout = re.search(r'<p id="readout">(.*?)</p>', seen.dom)
    assert readout is not None
    assert "a 0.0030 at 3000" in readout[1]
    assert "<img" not in seen.dom


def test_a_key_stays_whole_beside_long_values(tmp_path: Path) -> None:
    long = "registry/assistant/versions/nightly-20261130t190625z/" * 3
    runs = [
        make(tmp_path / f"{i}", {1: 8.0}, model={"init_from": f"{long}{i}"}, seed=i, optim={"lr": i, "eps": i})
        for i in range(1, 4)
    ]
    file = tmp_path / "page.html"
    measure = """<script>
const key = [...document.querySelectorAll("td")].find((cell) => cell.textContent === "model.init_from");
const text = document.createRange();
text.selectNodeContents(key);
document.title = "lines: " + text.getClientRects().length;
</script>"""
    file.write_text(page(compare(collect(runs))) + measure)
    assert "<title>lines: 1</title>" in opened(file, tmp_path / "profile").dom


def test_a_console_error_is_seen(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<script>nothing()</script>")
    assert "ReferenceError" in opened(tmp_path / "page.html", tmp_path / "profile").console[0]
