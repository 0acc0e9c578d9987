"""The runs of the campaign: small, saved every three steps, and ended by limits of seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests import harness

NAME = "run"
STEPS, EVERY, KEEP, MILESTONE, EVALUATED = 30, 3, 2, 9, 10
"""Of training; between saves; newest that stay; that stay for good; between evaluations."""
STEP_SECONDS, SETUP_SECONDS = 8, 14
"""Limits for a rank that the others wait for."""


@dataclass(frozen=True)
class Setting:
    """How a run is launched: processes, and checkpoint.mode."""

    processes: int
    mode: str

    def __str__(self) -> str:
        return f"{self.processes} rank{'s' * (self.processes > 1)}, {self.mode}"

    def overrides(self, root: Path) -> list[str]:
        """The command line of a run below ``root``."""
        return [
            *harness.SMALL,
            "model.layers=1",
            "model.dropout=0.1",
            "precision=fp32",
            f"train.steps={STEPS}",
            "train.microbatch=2",
            f"evaluation.every_steps={EVALUATED}",
            f"checkpoint.mode={self.mode}",
            f"checkpoint.every_steps={EVERY}",
            f"checkpoint.keep={KEEP}",
            f"checkpoint.keep_every={MILESTONE}",
            "data.sources=[{name: c, paths: [corpus]}]",
            f"backend.timeout_seconds={STEP_SECONDS}",
            f"reliability.setup_seconds={SETUP_SECONDS}",
            f"reliability.data_seconds={SETUP_SECONDS}",
            f"reliability.save_seconds={STEP_SECONDS}",
            f"run.root={root}",
            f"run.name={NAME}",
        ]


SETTINGS = tuple(Setting(processes, mode) for processes in (1, 2) for mode in ("auto", "sync"))
TOGETHER = tuple(setting for setting in SETTINGS if setting.processes > 1)
