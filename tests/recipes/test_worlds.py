"""Full-size recipes on the command line: what they say without their nodes, and on which numbers of them they run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests import harness
from tests.unit.test_front_door import run
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.errors import ConfigError
from trainer.rules.check import validate
from trainer.rules.derived import derive
from trainer.run.world import World

FULL_SIZE = {
    # nodes of trn1.32xlarge that hold one copy of the model
    "smollm2_135m": 1, "deepseek7b": 1, "llama3_8b": 1, "deepseek67b": 4, "llama65b": 4, "llama3_70b": 4,
    "llama2_7b": 1, "r1_distill_llama_8b": 1, "r1_distill_qwen_7b": 1, "qwen3_8b": 1, "mistral_7b": 1,
    "falcon7b": 1, "falcon40b": 1, "gpt3_6b7": 1, "gpt3_23b": 1, "gpt3_175b": 8,
    "deepseek7b_sft": 1, "deepseek7b_lora": 1, "llama3_8b_lora": 1, "qwen3_8b_lora": 1, "deepseek67b_lora": 1,
}  # fmt: skip

ANYWHERE = ("smollm2_sft", "smollm2_lora")
"""A model that a laptop fine-tunes, real and whole."""


def test_every_recipe_but_the_tiny_one_is_full_size() -> None:
    recipes = {path.stem for path in (harness.ROOT / "conf" / "recipe").glob("*.yaml")}
    assert recipes == {"tiny", *ANYWHERE, *FULL_SIZE}


FINE_TUNED = [recipe for recipe in FULL_SIZE if recipe.endswith(("_sft", "_lora"))]


@pytest.mark.parametrize("recipe", [*FINE_TUNED[:1], *ANYWHERE])
def test_a_recipe_of_fine_tuning_says_which_weights_it_wants(tmp_path: Path, recipe: str) -> None:
    done = run(tmp_path, f"recipe={recipe}")
    assert done.code == 3
    assert "model.init_from = 'models/" in done.output
    assert "hf download" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("recipe", [recipe for recipe in FULL_SIZE if recipe not in FINE_TUNED])
def test_a_full_size_recipe_says_what_it_needs_within_ten_seconds(tmp_path: Path, recipe: str) -> None:
    start = time.monotonic()
    done = run(tmp_path, f"recipe={recipe}")
    assert time.monotonic() - start < 10
    assert done.code == 3
    nodes = FULL_SIZE[recipe]
    assert f"{nodes} trn1.32xlarge instance" in done.output
    assert "python scripts/train.py recipe=tiny" in done.output
    assert "Traceback" not in done.output
    if recipe != "smollm2_135m":
        multi = "--rdzv_endpoint HOST:29500 " if nodes > 1 else ""
        assert f"--nproc_per_node 32 {'--rdzv_backend c10d ' if nodes > 1 else ''}{multi}" in done.output


@pytest.mark.parametrize("recipe", FULL_SIZE)
@pytest.mark.parametrize("multiple", [1, 2, 4, 8])
def test_a_full_size_recipe_is_valid_on_its_nodes(recipe: str, multiple: int) -> None:
    entry.register_schema()
    with initialize_config_dir(str(harness.ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", overrides=[f"recipe={recipe}"]))
    world = World(size=32 * FULL_SIZE[recipe] * multiple, trainium=True)
    validate(config, world)
    assert derive(config, world).accumulation >= 1
    for cores in (3, 16, 48):
        with pytest.raises(ConfigError) as raised:
            validate(config, World(size=cores, trainium=True))
        assert {"parallel", "number of processes"} & {problem.key for problem in raised.value.problems}
