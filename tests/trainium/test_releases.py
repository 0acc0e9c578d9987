"""The table of releases is AWS's, and everything that repeats it agrees: constraints files, extras, docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.harness import ROOT
from trainer.trainium.installed import INSTALL
from trainer.trainium.releases import (
    ALLOWED,
    ASKED,
    INDEX,
    NEXT,
    PINNED,
    TORCH,
    UNVERIFIED,
    Release,
    is_torchneuron,
    release_of,
)

AWS = json.loads((Path(__file__).parent / "manifest.json").read_text())
PYPROJECT = (ROOT / "pyproject.toml").read_text()
by_sdk = pytest.mark.parametrize("release", ALLOWED, ids=lambda release: release.sdk)


def pins(text: str) -> dict[str, str]:
    """The name==version lines of a requirements file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))


def extra(name: str) -> dict[str, str]:
    """The exact pins of an extra of pyproject.toml (Python 3.10 has no TOML reader)."""
    body = re.search(rf"^{re.escape(name)} = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert body is not None, name
    return dict(re.findall(r'"([a-z0-9-]+)==([^"]+)"', body[1]))


@by_sdk
def test_the_table_is_that_of_aws(release: Release) -> None:
    ours = {**release.pip, **release.apt, "efa-installer": release.efa}
    assert ours == {name.replace("_", "-"): version for name, version in AWS[release.sdk].items()}


@by_sdk
def test_a_release_is_recognised_by_its_own_pins(release: Release) -> None:
    assert release_of(release.pip) is release


@by_sdk
def test_the_constraints_file_agrees(release: Release) -> None:
    text = (ROOT / release.constraints).read_text()
    found = pins(text)
    assert found.pop("transformers") == "4.51.*"  # setup.py of neuronx-distributed, extras "test"
    assert found == release.constrained()
    assert f"SDK {release.sdk} ({release.date})" in text
    assert f'--extra-index-url {INDEX} --constraint {release.constraints} --editable ".[{release.extra}]"' in text


@by_sdk
def test_the_extra_agrees(release: Release) -> None:
    assert extra(release.extra) == {name: release.pip[name] for name in ASKED}


def test_torch_is_the_one_of_every_commit() -> None:
    found = pins((ROOT / "constraints.txt").read_text())
    assert {name: found[name] for name in TORCH} == TORCH
    assert f'"torch-xla=={TORCH["torch-xla"]}; ' in PYPROJECT
    assert all(release.python == ("3.10", "3.11", "3.12") for release in ALLOWED)


def requirements(package: str) -> dict[str, SpecifierSet]:
    """Everything in the repository that asks pip for a package, by where it stands."""
    files = {path.name: path.read_text() for path in ROOT.glob("constraints*.txt")} | {"pyproject.toml": PYPROJECT}
    files |= {"doctor": INSTALL}
    asked = {
        f"{name}, {number}": match[1]
        for name, text in files.items()
        for number, match in enumerate(
            re.finditer(rf'(?<![\w-]){package}((?:[=<>!~]=?[^\s",;]+,?)*)(?=[\s",;]|$)', text)
        )
        if not text[: match.start()].rpartition("\n")[2].lstrip().startswith("#")
    }
    return {where: SpecifierSet(specifier) for where, specifier in asked.items()}


@pytest.mark.parametrize("version", ["2.10.0", "2.13", "2.13.3.0", "2.13.3.0+x", "2.14.3.0", "2.99", "3.0.0", "10.0"])
def test_nothing_here_can_bring_the_other_product(version: str) -> None:
    """torch-neuronx from 2.13 on is TorchNeuron, which does not run on trn1."""
    found = requirements("torch-neuronx")
    assert len(found) == 2 * len(ALLOWED) + 1, "a constraints file and an extra each, and the doctor's remedy"
    for where, specifiers in found.items():
        assert not specifiers.contains(version, prereleases=True), where
    assert is_torchneuron(version) == (Version(version) >= Version("2.13"))


@by_sdk
def test_constraints_and_extra_agree_on_one_wheel(release: Release) -> None:
    """AWS's wheel with its local label, by the rules of pip."""
    wheel = f"{release.pip['torch-neuronx']}+0f1dac25"
    both = SpecifierSet(f"=={pins((ROOT / release.constraints).read_text())['torch-neuronx']}")
    both &= SpecifierSet(f"=={extra(release.extra)['torch-neuronx']}")
    assert both.contains(wheel)
    assert not is_torchneuron(wheel)


WHEELS = {
    "neuronx-cc": "2.23.6484.0+3b612583",
    "torch-neuronx": "2.9.0.2.12.22436+0f1dac25",
    "neuronx-distributed": "0.17.26814+b1e6c2d1",
}
"""As pip reports AWS's wheels: the manifest's versions with a local label (these labels are made up)."""


@pytest.mark.parametrize(
    ("installed", "release"),
    [
        (WHEELS, PINNED),
        ({**WHEELS, "libneuronxla": "2.2.15515.0+50c26cbd", "rich": "15.0.0"}, PINNED),
        ({**WHEELS, "libneuronxla": "2.2.16408.0"}, None),
        ({**WHEELS, "neuronx-cc": "2.24.8799.0"}, None),
        ({"neuronx-cc": "1.0.post1", "torch-neuronx": "1.0", "neuronx-distributed": "0.1"}, None),
        ({key: WHEELS[key] for key in ("neuronx-cc", "torch-neuronx")}, None),
        ({"neuronx-cc": "2.24.8799.0", "torch-neuronx": "2.9.0.2.13.26312", "neuronx-distributed": "0.18.27753"}, NEXT),
        ({"neuronx-cc": "2.24.5133.0", "torch-neuronx": "2.9.0.2.13.24727", "neuronx-distributed": "0.18.27753"}, NEXT),
        ({**UNVERIFIED.pip, "neuronx-distributed": "0.19.28492"}, UNVERIFIED),
        ({**UNVERIFIED.pip, "neuronx-distributed": "0.19.28492", "neuronx-cc": "2.26.6360.0"}, None),
        ({}, None),
    ],
)
def test_release_of(installed: dict[str, str], release: Release | None) -> None:
    assert release_of(installed) is release
