"""Every process collects the same tests in the same order: pytest-xdist runs nothing where two of them differ."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import harness

pytestmark = [pytest.mark.slow, pytest.mark.long]


def collecting(seed: int) -> subprocess.Popen[str]:
    # The project's own options ask for fewer words than names.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    return subprocess.Popen(
        command,
        cwd=harness.ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_no_test_takes_its_place_from_the_order_of_a_set() -> None:
    """A set's order changes with the seed of hashes, which is another one in every process."""
    said = [process.communicate()[0].splitlines() for process in [collecting(seed) for seed in (1, 2, 3)]]
    names = [[line for line in lines if "::" in line] for lines in said]
    assert len(names[0]) > 1000
    assert names[0] == names[1] == names[2]
