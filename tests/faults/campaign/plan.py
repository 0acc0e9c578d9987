"""Where the campaign works, its random draws, and the runs that nobody disturbs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import harness
from tests.faults.campaign.settings import SETTINGS, Setting
from tests.faults.campaign.subject import Subject, all_of
from tests.faults.campaign.table import Row


class Plan:
    """Of one campaign, in the working directory. seed: of all its choices."""

    def __init__(self, seed: int, settings: Sequence[Setting] = SETTINGS) -> None:
        self.seed, self._subjects = seed, 0
        harness.write_corpus(Path("corpus"))
        self._references = {}
        for setting in settings:
            row = Row("undisturbed")
            subject = Subject(row, setting, Path(f"undisturbed-{setting.processes}-{setting.mode}"))
            with subject.launched() as launch:
                launch.watch()
            if row.complaints or not all_of(0)(launch.codes):
                raise AssertionError("\n".join([*row.complaints, launch.output]))
            self._references[setting] = subject.path

    def draw(self, what: str) -> random.Random:
        """Random numbers that do not depend on what other rows draw."""
        return random.Random(f"{self.seed} {what}")

    def shared(self, count: int, settings: Sequence[Setting]) -> Iterator[tuple[Setting, int]]:
        """So many faults over the settings that this campaign has, as evenly as can be."""
        mine = [setting for setting in settings if setting in self._references]
        for index, setting in enumerate(mine):
            if share := count // len(mine) + (index < count % len(mine)):
                yield setting, share

    def subject(self, row: Row, setting: Setting, like: Path | None = None) -> Subject:
        """A run in a root of its own. like: a root to begin as a copy of."""
        self._subjects += 1
        return Subject(row, setting, Path(f"runs-{self._subjects:03d}"), like)

    def tries(
        self, row: Row, setting: Setting, count: int, kinds: Sequence[str] = ("",)
    ) -> Iterator[tuple[Subject, str]]:
        """A run for each fault, and the kind of instant for it, until ``count`` faults came in time to matter."""
        first, wanted = row.count, row.count + count
        for number in range(first, first + 3 * count):
            if row.count == wanted or row.complaints:
                return
            yield self.subject(row, setting), kinds[number % len(kinds)]

    def reference(self, setting: Setting) -> Path:
        """The run that nobody disturbed."""
        return self._references[setting]

    def half_way(self, setting: Setting, step: int) -> Path:
        """The root of a run that ends at a step, to begin others from."""
        subject = Subject(Row("half-way"), setting, Path(f"until-{step}-{setting.processes}-{setting.mode}"))
        if not subject.path.exists():
            with subject.launched(more=(f"train.stop_after_steps={step}",)) as launch:
                launch.watch()
            assert not subject.row.complaints, subject.row.complaints
        return subject.root
