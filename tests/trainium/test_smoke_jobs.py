"""The smoke test's jobs: legal configurations, whose halves are one run and whose curves the golden file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.harness import ROOT
from tests.trainium.test_smoke import CACHE, GOLDEN
from trainer.commands.entry import register_schema
from trainer.commands.smoke.jobs import TINY, Setting, jobs
from trainer.commands.smoke.machine import PRETENDED
from trainer.config.arithmetic import parameters
from trainer.config.compose import to_config
from trainer.rules.check import RULES, validate
from trainer.rules.derived import derive
from trainer.run.world import World


def test_the_golden_file_is_of_these_settings() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["overrides"] == list(TINY)
    assert {precision: len(curve["loss"]) for precision, curve in golden["curves"].items()} == {
        "fp32": 20,
        "bf16_mixed": 20,
    }
    for curve in golden["curves"].values():
        assert curve["loss"][-1] < 0.95 * curve["loss"][0], "the layout contract asks for a falling loss"


def test_both_halves_are_one_run(tmp_path: Path) -> None:
    made = jobs(Setting(tmp_path, tmp_path / CACHE, dry=False, timeout_seconds=1))
    first, second = made["tiny-32-first-half"], made["tiny-32-second-half"]
    assert first.name == second.name != made["tiny-32"].name
    assert second.overrides == made["tiny-32"].overrides


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("name", list(jobs(Setting(Path("runs"), Path(CACHE), dry=False, timeout_seconds=1))))
def test_every_job_is_a_legal_configuration(tmp_path: Path, name: str, dry: bool) -> None:
    """The validator, given a trn1.32xlarge with the pinned release, has nothing against a job on a device."""
    setting = Setting(tmp_path / "smoke", tmp_path / CACHE, dry, timeout_seconds=1)
    job = jobs(setting)[name]
    command = job.command(setting)
    register_schema()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", command[command.index("scripts/train.py") + 1 :]))
    size = setting.processes(job.cores)
    world = World(size) if dry else World(size, trainium=True, local_rank=0, local_size=size, host=PRETENDED)
    validate(config, world, RULES)
    derived = derive(config, world)
    assert (derived.backend, derived.steps) == ("native" if dry else "neuron", 20)
    assert config.train.tokens_per_step // config.data.seq_len % derived.dp == 0
    if not dry:
        assert (derived.precision, derived.dp) == {
            "tiny-8": ("fp32", 1),
            "7b-8": ("bf16", 1),
            "7b-32": ("bf16_mixed", 4),
        }.get(name, ("bf16_mixed", 4))
        assert parameters(config.model) == (6_910_365_696 if name.startswith("7b") else 459_392)
