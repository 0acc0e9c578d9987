"""The loop makes at most two small exchanges a step; and what opens a step is agreed on by all ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recipes.parts import make_backend, make_loader
from tests import harness
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.data.corpus import prepare_corpus
from trainer.models.family import family_of
from trainer.models.initialise import Initialiser
from trainer.rules.derived import derive
from trainer.run.world import World
from trainer.training.loop import Trainer
from trainer.training.saving import Saves
from trainer.training.watchdog import Watchdog


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A small run as the recipe puts it together, on one process."""
    monkeypatch.chdir(tmp_path)
    harness.write_corpus(tmp_path / "corpus")
    entry.register_schema()
    overrides = [*harness.SMALL, "data.sources=[{name: c, paths: [corpus]}]", "precision=fp32", "run.name=r"]
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = to_config(compose("train", overrides=overrides))
    world = World()
    derived, family, watchdog = derive(config, world), family_of(config.model), Watchdog.alone()
    backend = make_backend(config, derived, world)
    backend.setup()
    corpus = prepare_corpus(config.data, config.model.vocab, None)
    backend.shard(family.build, family.plan, "fp32")
    backend.load_initial(Initialiser(family.plan, config.seed))
    backend.facts()  # ranks measure their peak together, once
    state = TrainState()
    saves = Saves(config.checkpoint, Saver(tmp_path / "checkpoints", 2, "", {}), backend, watchdog, newest=0)
    loader = make_loader(config, derived, corpus, 0, state)
    return Trainer(config, derived, backend, loader, None, saves, [], state, watchdog)


def test_two_exchanges_a_step(trainer: Trainer) -> None:
    """One before the step, one before gradients are reduced; the first step of a launch looks once more for draws."""
    counts, last = [], trainer.backend.host.calls
    for _ in trainer.steps():
        counts.append(trainer.backend.host.calls - last)
        last = trainer.backend.host.calls
        if trainer.state.step == 6:
            break
    assert counts == [3, 2, 2, 2, 2, 2]


def test_a_save_is_due_by_its_clock_and_not_by_another(trainer: Trainer, tmp_path: Path) -> None:
    now = 1000.0
    config = replace(trainer.config.checkpoint, every_minutes=30)
    saver = Saver(tmp_path / "checkpoints", 2, "", {})
    saves = Saves(config, saver, trainer.backend, trainer.watchdog, newest=0, clock=lambda: now)
    assert not saves.due_by_clock()
    now += 29.9 * 60
    assert not saves.due_by_clock()
    now += 0.1 * 60
    assert saves.due_by_clock()
    trainer.state.step = 1
    assert saves.save(trainer.state, wait=True) is not None
    assert not saves.due_by_clock()
    assert saves.save(trainer.state, wait=True) is None, "there is one of this step already"
