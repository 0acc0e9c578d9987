"""What make says before it makes .venv: one line for a Python that cannot work, and nothing half made is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, Finished

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The Python that runs these tests."""

OTHER = "3.12" if HERE != "3.12" else "3.13"

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What make reads of a checkout, without an environment."""
    for name in ("Makefile", "environment.mk", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Pythons that claim to be others."""
    return tmp_path_factory.mktemp("fakes")


def fake(folder: Path, version: str, change: str = "") -> str:
    """This Python, which takes itself for another one: where a program is given with -c, and nowhere else."""
    major, minor = re.findall(r"\d+", version)
    flags = "t" * version.endswith("t")
    lie = f"import sys; sys.version_info = ({major}, {minor}, 1); sys.abiflags = {flags!r}; {change}"
    path = folder / f"python-{version}"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exec "{sys.executable}" "$@"\nexec "{sys.executable}" -c "{lie}\n$2"\n'
    )
    path.chmod(0o755)
    return str(path)


def make(checkout: Path, *arguments: str, path: Path | None = None, **variables: str) -> Finished:
    """make in a checkout. path: a folder before the others on PATH."""
    # Those of a make that runs these tests would reach this one.
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")
    }
    if path is not None:
        kept["PATH"] = f"{path}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={**kept, "LC_ALL": "C", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout)


def refusal(done: Finished) -> str:
    """The only line of a make that refused."""
    assert done.code == 2, done.output
    (line,) = done.output.splitlines()
    return line


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.14", "3.15", "3.13t"])
def test_an_unsupported_python_is_one_line(checkout: Path, fakes: Path, version: str) -> None:
    python = fake(fakes, version)
    line = refusal(make(checkout, "train", f"PYTHON={python}"))
    assert f"{python} is Python {version}, " in line
    assert "Python 3.10 or 3.11 or 3.12 or 3.13: " in line
    assert re.search(r"make train PYTHON=python3\.1[0-3] ", line)
    assert not (checkout / ".venv").exists()


def test_the_default_is_looked_at_too(checkout: Path, fakes: Path) -> None:
    Path(fake(fakes, "3.9")).rename(fakes / "python3")
    assert "python3 is Python 3.9, " in refusal(make(checkout, "test", path=fakes))


def test_a_supported_python_that_is_there_is_named(checkout: Path, fakes: Path) -> None:
    for version in SUPPORTED[:-1]:
        Path(fake(fakes, "3.9")).rename(fakes / f"python{version}")
    Path(fake(fakes, "3.13")).rename(fakes / "python3.13")
    line = refusal(make(checkout, "setup", f"PYTHON={fake(fakes, '3.9')}", path=fakes))
    assert "make setup PYTHON=python3.13 (it is here)" in line


def test_a_missing_python_is_one_line(checkout: Path) -> None:
    assert "no-such-python does not run here, " in refusal(make(checkout, "train", "PYTHON=no-such-python"))
    assert not (checkout / ".venv").exists()


def test_a_python_without_ensurepip_is_one_line(checkout: Path, fakes: Path) -> None:
    """Debian's and Ubuntu's python3 without python3-venv."""
    python = fake(fakes, "3.13", change="sys.modules['ensurepip'] = None")
    line = refusal(make(checkout, "train", f"PYTHON={python}"))
    assert f"{python} has no ensurepip " in line
    assert "python3-venv" in line
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_supported_python_makes_the_environment(checkout: Path, fakes: Path, version: str) -> None:
    python = fake(fakes, version)
    done = make(checkout, "-n", "setup", f"PYTHON={python}")
    assert done.code == 0, done.output
    assert done.output.startswith(f"{python} -m venv ")
    assert '--constraint constraints.txt --editable ".[dev]"' in done.output
    assert not (checkout / ".venv").exists()


def test_a_setup_that_was_cut_short_is_begun_anew(checkout: Path, fakes: Path) -> None:
    (fakes / "ensurepip.py").write_text("if __name__ == '__main__':\n    raise SystemExit(1)\n")
    cut = make(checkout, "setup", f"PYTHON={sys.executable}", PYTHONPATH=str(fakes))
    assert cut.code == 2, cut.output
    assert not (checkout / ".venv" / ".ready").exists()
    (checkout / ".venv" / "half").touch()
    again = make(checkout, "setup", f"PYTHON={sys.executable}", PYTHONPATH=str(fakes))
    assert " -m venv --clear " in again.output
    assert not (checkout / ".venv" / "half").exists()


@pytest.mark.parametrize("remains", ["nothing", "a file", "a link to nowhere"])
def test_an_environment_that_does_not_run_is_begun_anew(checkout: Path, remains: str) -> None:
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    if remains == "a file":
        (binaries / "python").touch()
    elif remains == "a link to nowhere":
        (binaries / "python").symlink_to("/nowhere/python")
    done = make(checkout, "-n", "setup", f"PYTHON={sys.executable}")
    assert done.code == 0, done.output
    assert " -m venv --clear " in done.output


def test_an_environment_that_is_being_made_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".making").write_text(f"{os.getpid()}\n")
    assert f"being made by process {os.getpid()}" in refusal(make(checkout, "setup", f"PYTHON={sys.executable}"))


def environment(checkout: Path, *, ready: bool) -> None:
    """An environment of this Python, without pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")], check=True)
    if ready:
        for name in ("pyproject.toml", "constraints.txt"):
            os.utime(checkout / name, (0, 0))  # make compares their times
        (checkout / ".venv" / ".ready").touch()


def test_an_environment_made_by_hand_is_added_to(checkout: Path) -> None:
    """On trn1 it holds Neuron's packages, which no make brings back."""
    environment(checkout, ready=False)
    done = make(checkout, "-n", "setup")
    assert done.code == 0, done.output
    assert "-m pip install" in done.output
    assert "-m venv" not in done.output


def test_another_python_than_the_environments_is_not_passed_over(checkout: Path, fakes: Path) -> None:
    environment(checkout, ready=True)
    assert "Nothing to be done" in make(checkout, "-n", "setup", f"PYTHON={sys.executable}").output
    line = refusal(make(checkout, "-n", "setup", f"PYTHON={fake(fakes, OTHER)}"))
    assert f".venv is of Python {HERE}, " in line
    assert f"is Python {OTHER}: rm -r .venv && make setup PYTHON=" in line


def test_make_without_a_goal_only_helps(checkout: Path) -> None:
    done = make(checkout)
    assert done.code == 0
    assert "make train " in done.output
    assert not (checkout / ".venv").exists()


def test_pip_is_told_the_same_versions() -> None:
    found = re.search(r"^PYTHONS := (.*)$", (ROOT / "environment.mk").read_text(), re.MULTILINE)
    assert found is not None
    assert tuple(found[1].split()) == SUPPORTED
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()
