"""Every process group has a configured timeout: torch gives those without one half an hour, whatever the world has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import Task, run
from tests.selection import long
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.reliability import ReliabilityConfig

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("layout", ["tp2-pp2", *long("dp2-tp2")])
def test_every_group_has_the_timeout_of_training_or_of_a_save(tmp_path: Path, layout: str) -> None:
    ranks = run(Task("tests.distributed.timeouts_worker:timeouts", 4, {"layout": layout}), tmp_path)
    for found in ranks:
        assert len(found) >= 5
        training, save = BackendConfig.timeout_seconds, ReliabilityConfig.save_seconds
        assert set(found.values()) == {training, save}, found
        assert list(found.values()).count(save) == 2
