"""docs/kubernetes.md and docs/batch.md: valid manifests, and commands whose configurations the launcher takes."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from tests import harness
from tests.end_to_end.test_readme import commands
from tests.launchers.rendered import request
from tests.launchers.strict import errors
from tests.unit.test_overrides import composed
from trainer.launchers.making import launcher_of
from trainer.rules.names import secrets
from trainer.run.world import World


def test_manifests_of_the_page() -> None:
    text = (harness.ROOT / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    assert [errors(found) for block in blocks for found in yaml.safe_load_all(block)] == [[]]


def test_entries_of_maps() -> None:
    found = composed(
        "launcher.kubernetes.resources={nvidia.com/gpu: 8, cpu: 4}",
        "launcher.kubernetes.node_selector.pool=a",
        "launcher.batch.secrets.KEY=arn:aws:ssm:us-west-2:1:parameter/a",
    ).launcher
    assert found.kubernetes.resources == {"nvidia.com/gpu": "8", "cpu": "4"}
    assert found.kubernetes.node_selector == {"pool": "a"}
    assert found.batch.secrets == {"KEY": "arn:aws:ssm:us-west-2:1:parameter/a"}


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("launcher.kubernetes.secret=trainer-keys", False),
        ("launcher.batch.secrets.WANDB_API_KEY=arn:aws:ssm:us-west-2:1:parameter/a", False),
        ("launcher.batch.secrets.WANDB_API_KEY=0123456789abcdef", True),
        ("launcher.environment.WANDB_API_KEY=0123456789abcdef", True),
    ],
)
def test_a_secrets_name_is_taken_and_a_secret_is_not(override: str, refused: bool) -> None:
    found = [problem.key for problem in secrets(composed(override), World())]
    assert found == ([override.partition("=")[0]] if refused else [])


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/kubernetes.md", "docs/batch.md"])
def test_commands_of_the_page(page: str) -> None:
    lines = [line for line in commands(page) if "scripts/submit.py" in line]
    assert len(lines) == 3
    for line in lines:
        words = [word for word in shlex.split(line)[2:] if not word.startswith("--")]
        config = composed(*(re.sub("^nodes=", "launcher.nodes=", word) for word in words)).launcher
        wanted = request(nodes=config.nodes, limit_minutes=config.limit_minutes)
        launcher = launcher_of(config)
        assert launcher.problems(wanted, launcher.render(wanted)) == []
