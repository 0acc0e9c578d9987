"""What a training reads has to be where its container looks for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.evaluation import EvaluationConfig, EvaluationSetConfig
from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.launchers.inputs import unmounted


def reading(*paths: str, kind: str = "files", launcher: str = "kubernetes") -> Config:
    source = SourceConfig(name="chat", kind=kind, paths=list(paths))
    return Config(launcher=LauncherConfig(name=launcher), data=DataConfig(sources=[source]))


@pytest.mark.parametrize("launcher", ["kubernetes", "batch"])
@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("data/chat", True),
        ("runsets/chat", True),
        ("./runs/../data/chat", True),
        ("runs/data/chat", False),
        ("./runs/data", False),
        ("/opt/trainer/runs/data", False),
        ("/data/of/the/image", False),
        ("s3://bucket/chat", False),
    ],
)
def test_a_relative_path_beside_the_volume_is_refused(launcher: str, path: str, refused: bool) -> None:
    found = [(problem.key, problem.value) for problem in unmounted(reading(path, launcher=launcher))]
    assert found == ([("data.sources[chat].paths", path)] if refused else [])


def test_other_launchers_and_names_of_a_hub_are_left_alone() -> None:
    assert not list(unmounted(reading("data/chat", launcher="slurm")))
    assert not list(unmounted(reading("owner/data", kind="huggingface")))


def test_weights_and_sets_are_looked_at_too() -> None:
    config = replace(
        Config(launcher=LauncherConfig(name="batch")),
        model=ModelConfig(init_from="models/a"),
        data=DataConfig(tokenizer=TokenizerConfig(path="models/a/tokenizer.json")),  # of the model: told once
        adapter=AdapterConfig(init_from="my-adapter"),
        evaluation=EvaluationConfig(sets=[EvaluationSetConfig(name="frozen", paths=["frozen.txt"])]),
    )
    keys = [problem.key for problem in unmounted(config)]
    assert keys == ["model.init_from", "adapter.init_from", "evaluation.sets[frozen].paths"]
    other = Config(launcher=config.launcher, data=DataConfig(tokenizer=TokenizerConfig(path="tokenizer.json")))
    assert [problem.key for problem in unmounted(other)] == ["data.tokenizer.path"]
