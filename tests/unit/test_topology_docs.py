"""The tables of docs/topology.md are what the code says. `python -m tests.unit.test_topology_docs` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests import harness
from tests.unit.test_topology import CASES, FINE, check
from trainer.errors import ConfigError
from trainer.trainium.environment import EVERY, REFUSED

PAGE = harness.ROOT / "docs" / "topology.md"


def table(*rows: Iterable[str]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    width = lines[0].count("|") - 1
    return "\n".join([lines[0], "|" + "---|" * width, *lines[1:]])


def verdicts() -> str:
    rows = []
    for name, case in CASES.items():
        try:
            check(case)
            assert case.key == FINE
            rows.append((name, "allowed", "", ""))
        except ConfigError as error:
            (problem,) = error.problems
            rows.append((name, f"`{problem.key}` = {problem.value}", problem.rule, f"`{problem.remedy}`"))
    return table(("situation", "refused", "rule", "remedy"), *rows)


def variable_rows() -> str:
    rows = [(f"`{v.name}`", f"`{v.value}`", "fixed" if v.fixed else "", v.reason, v.source) for v in EVERY]
    return table(("variable", "value", "", "reason", "source"), *rows)


def refused_rows() -> str:
    rows = [(f"`{name}`", ", ".join(fine), why, source) for name, (fine, why, source) in REFUSED.items()]
    return table(("variable", "harmless", "because it", "source"), *rows)


def page(text: str) -> str:
    for mark, content in (("verdicts", verdicts()), ("variables", variable_rows()), ("refused", refused_rows())):
        pattern = rf"(<!-- {mark}[^\n]*-->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, count=1, flags=re.DOTALL)
        assert count == 1, mark
    return text


def test_the_page_is_current() -> None:
    text = PAGE.read_text()
    assert text == page(text), "python -m tests.unit.test_topology_docs"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
