"""A family's map of names and rows is invertible, names what transformers names, and knows each parameter's shape."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.families.cases import CLASSES, MODELS, NAMES, config
from tests.families.mapping import to_ours, to_theirs
from trainer.config.arithmetic import parameters
from trainer.config.groups.model import ModelConfig
from trainer.models.families import FAMILIES
from trainer.models.family import family_of
from trainer.pretrained.config_json import config_json, format_of, read_config
from trainer.pretrained.shapes import parameter_shapes


def described(family: str, name: str) -> ModelConfig:
    return ModelConfig(family=family, **read_config(config(family, name).to_dict())[1])


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_there_and_back_is_the_identity(family: str, name: str) -> None:
    model = described(family, name)
    files = list(format_of(family).tensors(model))
    with torch.device("meta"):
        theirs = CLASSES[family][1](config(family, name))
        ours = family_of(model).build()
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.named_parameters()}
    assert {file.name: file.shape for file in files} == shapes
    assert parameter_shapes(model) == {key: tuple(tensor.shape) for key, tensor in ours.named_parameters()}
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters(model)
    drawn = {file.name: torch.randn(file.shape) for file in files}
    there = to_ours(drawn, files, parameter_shapes(model))
    back = to_theirs(there, files)
    assert back.keys() == drawn.keys()
    assert all(torch.equal(back[key], drawn[key]) for key in drawn)


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_a_model_survives_its_config_json(family: str, name: str) -> None:
    model = described(family, name)
    assert not list(format_of(family).lacks(model))
    assert read_config(config_json(model, "float32")) == (family, read_config(config(family, name).to_dict())[1])


def test_every_family_has_its_cases_and_a_format_without_torch() -> None:
    assert set(MODELS) == set(FAMILIES)
    assert all(len(models) >= 5 for models in MODELS.values())
    lines = [
        "import sys",
        "from trainer.models.families import FAMILIES",
        "from trainer.pretrained.config_json import format_of",
        "print([format_of(name).model_types for name in FAMILIES], 'torch' in sys.modules)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False"), done.stdout


def test_what_writes_into_gpt2s_residual_stream_begins_smaller() -> None:
    model = replace(described("gpt2", "deep"), init_std=0.04)
    plan = family_of(model).plan
    names = parameter_shapes(model)
    smaller = {name for name in names if plan.rule(name).init.std == 0.04 / 8**0.5}
    assert smaller == {name for name in names if name.endswith(("o_proj.weight", "down_proj.weight"))}
    assert plan.rule("model.embed_positions.weight").init.std == 0.04
