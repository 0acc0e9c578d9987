"""docs/kubernetes.md: its manifests are valid, and its commands are configurations that the launcher takes."""

from __future__ import annotations

import re
import shlex

import yaml

from tests import harness
from tests.end_to_end.test_readme import commands
from tests.launchers.rendered import request
from tests.launchers.strict import errors
from tests.unit.test_overrides import composed
from trainer.launchers.making import launcher_of

PAGE = (harness.ROOT / "docs" / "kubernetes.md").read_text()


def test_manifests_of_the_page() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 1
    assert [errors(found) for block in blocks for found in yaml.safe_load_all(block)] == [[]]


def test_entries_of_maps() -> None:
    config = composed("launcher=kubernetes", "launcher.kubernetes.resources={nvidia.com/gpu: 8, cpu: 4}")
    config_of_node = composed("launcher=kubernetes", "launcher.kubernetes.node_selector.pool=a")
    assert config.launcher.kubernetes.resources == {"nvidia.com/gpu": "8", "cpu": "4"}
    assert config_of_node.launcher.kubernetes.node_selector == {"pool": "a"}


def test_commands_of_the_page() -> None:
    lines = [line for line in commands("docs/kubernetes.md") if "scripts/submit.py" in line]
    assert len(lines) == 3
    for line in lines:
        words = [word for word in shlex.split(line)[2:] if not word.startswith("--")]
        config = composed(*(re.sub("^nodes=", "launcher.nodes=", word) for word in words))
        limit = config.launcher.limit_minutes
        wanted = request(nodes=config.launcher.nodes, limit_minutes=limit)
        launcher = launcher_of(config.launcher)
        assert launcher.problems(wanted, launcher.render(wanted)) == []
