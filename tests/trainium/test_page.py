"""docs/trainium.md against the table of releases, the mesh, and its own promise to mark what has never run."""

from __future__ import annotations

import re

import pytest

from tests.harness import ROOT
from trainer.parallel.mesh import Mesh
from trainer.trainium.releases import ALLOWED, INDEX, PINNED, PLACEHOLDERS
from trainer.trainium.torchrun import torchrun

PAGE = (ROOT / "docs" / "trainium.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
ON_CPU = ("backend=fake", "scripts/command.py", "DRY=1")
"""What makes a command one that needs no device."""


def rows(heading: str) -> list[list[str]]:
    """Cells of the table whose first column is headed so."""
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[1].splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_says_whether_it_has_ever_run(line: str) -> None:
    mark = re.search(r"# ([NC])(?:  |$)", line)
    assert mark is not None
    assert (mark[1] == "C") == any(word in line for word in ON_CPU)


def test_there_are_commands_from_the_account_to_several_nodes() -> None:
    assert len(COMMANDS) > 25
    for needed in (
        "request-service-quota-increase",
        "doctor.py",
        "--nnodes 2",
        "neuron_parallel_compile",
        "trn1-smoke",
    ):
        assert any(needed in line for line in COMMANDS), needed


def test_the_table_of_versions_is_that_of_the_code() -> None:
    table = {row[0].partition(" (")[0]: row[1:] for row in rows("package")}
    expected = {name: [release.apt[name] for release in ALLOWED] for name in PINNED.apt}
    expected |= {name: [release.pip[name] for release in ALLOWED] for name in PINNED.pip}
    expected["EFA installer"] = [release.efa for release in ALLOWED]
    expected["torch / torch-xla"] = ["{torch} / {torch-xla}".format(**release.constrained()) for release in ALLOWED]
    expected["Python"] = [", ".join(release.python) for release in ALLOWED]
    assert table == expected
    assert f"| package | {ALLOWED[0].sdk} | {ALLOWED[1].sdk} |" in PAGE


def test_the_install_lines_are_the_pinned_ones() -> None:
    line = next(line for line in COMMANDS if "--allow-downgrades" in line)
    wanted = [f"{name}={version}*" for name, version in PINNED.apt.items()]
    assert sorted(re.findall(r"aws-neuronx\S+=\S+", line)) == sorted(wanted)
    pip = f'pip install --extra-index-url {INDEX} --constraint {PINNED.constraints} --editable ".[{PINNED.extra}]"'
    assert any(pip in line for line in COMMANDS)
    for name, version in PLACEHOLDERS.items():
        assert name == "neuronx-distributed-training" or f"{name} {version}" in PAGE.replace("\n", " ")


def test_the_launch_lines_are_those_that_the_project_renders() -> None:
    for nodes in (1, 2):
        line = " ".join(argument.text for argument in torchrun(nodes, "deepseek7b"))
        assert any(command.startswith(f"{line} scripts/train.py recipe=deepseek7b ") for command in COMMANDS), line


def test_the_ranks_of_the_picture_are_those_of_the_mesh() -> None:
    head = re.search(r"^\| ranks \|(.*)\|$", PAGE, re.MULTILINE)
    assert head is not None
    ranges = [tuple(map(int, cell.split("-"))) for cell in head[1].split("|")]
    node, copy, stage = ([int(cell) for cell in row[1:]] for row in rows("ranks"))
    assert [last - first for first, last in ranges] == [31] * 8
    for (first, last), *where in zip(ranges, node, copy, stage, strict=True):
        for rank in (first, last):
            mesh = Mesh(rank, tp=32, cp=1, dp=2, pp=4)
            assert where == [rank // 32, mesh.coordinate("dp"), mesh.coordinate("pp")]
