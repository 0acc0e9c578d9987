"""A run that faults are tried on: launched again and again, looked at after each launch, compared at its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.faults.campaign import proof
from tests.faults.campaign.launches import Act, Hung, Launch
from tests.faults.campaign.moments import BEGINS, Instant, look, moment
from tests.faults.campaign.settings import EVERY, MILESTONE, NAME, Setting
from tests.faults.campaign.table import Row

Accepted = Callable[[Mapping[int, int]], bool]
"""Whether the ranks' exit codes are those that the documentation promises."""
LINES = 25


def all_of(*codes: int) -> Accepted:
    """Every rank ended with one and the same of these."""
    return lambda found: len(set(found.values())) == 1 and set(found.values()) <= set(codes)


class Subject:
    """Of one setting. row: takes what is found. root: run.root, which is the run's own."""

    def __init__(self, row: Row, setting: Setting, root: Path, like: Path | None = None) -> None:
        """like: a run's root to begin as a copy of; checkpoints of the copy may be damaged until a launch has begun."""
        self.row, self.setting, self.root, self.path = row, setting, root, root / NAME
        self.unevaluated = False
        self.copied = self.struck = like is not None
        if like is not None:
            shutil.copytree(like, root)

    @contextmanager
    def launched(self, faults: Mapping[int, Act] | None = None, more: tuple[str, ...] = ()) -> Iterator[Launch]:
        """A launch; at the end of the block all its ranks have to have ended, or are killed."""
        awaited, before = proof.newest_sound(self.path), proof.stored(self.path)
        with Launch([*self.setting.overrides(self.root), *more], self.setting.processes, faults) as launch:
            try:
                yield launch
            except Hung as hung:
                self.complain(f"hangs {hung}", launch)
        if began := BEGINS.search(launch.output):
            if self.struck:
                self.row.resumed.add(int(began[1]))
            if int(began[1]) != awaited:
                self.complain(f"went on from step {began[1]}; the newest sound one was {awaited}", launch)
        self.struck = True
        if "Traceback" in launch.output:
            self.complain("a traceback", launch)
        self._look_over(launch, before, awaited)

    def _look_over(self, launch: Launch, before: list[int], awaited: int) -> None:
        """What has the name of a checkpoint is whole, and nothing finished is lost, however the launch ended."""
        now = proof.stored(self.path)
        newest = max(now, default=0)
        faults = {step: fault for step in now if (fault := proof.fault(proof.checkpoint(self.path, step)))}
        if faults and (not self.copied or BEGINS.search(launch.output)):
            self.complain(f"unsound: {faults}", launch)
        if newest < awaited:
            self.complain(f"checkpoints {before} became {now}", launch)
        if gone := [step for step in before if step <= awaited and step % MILESTONE == 0 and step not in now]:
            self.complain(f"milestones {gone} are gone", launch)
        lost = proof.recorded(self.path) - newest
        most = EVERY * (1 if self.setting.mode == "sync" else 2)  # one since, and one whose write was under way
        if lost > most and not faults:
            self.complain(f"{lost} steps are lost", launch)

    def complain(self, what: str, launch: Launch | None = None) -> None:
        """Something that fails the row; with the end of what the launch printed."""
        output = "" if launch is None else "\n".join(["", *launch.output.splitlines()[-LINES:]]).replace("\n", "\n    ")
        codes = "" if launch is None else f" (codes {launch.codes})"
        self.row.complaints.append(f"{self.root.name}, {self.setting}: {what}{codes}{output}")

    def strike(
        self,
        instant: Instant,
        act: Callable[[Launch], object],
        accepted: Accepted,
        faults: Mapping[int, Act] | None = None,
        more: tuple[str, ...] = (),
        name: str = "",
    ) -> int | None:
        """Launch, act at an instant, and wait for the end: its exit code (of the first rank that was not killed).

        name: of the instant in the table, if not what is under way then. None where the launch had ended before, or
        ended well because the fault came too late to matter.
        """
        before, came = look(self.path), False
        with self.launched(faults, more) as launch:
            if came := instant.come(launch, self.path, before):
                seen, said = look(self.path), launch.output
                act(launch)
                launch.watch()
                if set(launch.codes.values()) == {-9}:
                    seen = look(self.path)  # nothing has changed since
        ended = set(launch.codes.values())
        if ended == {0} and not accepted(launch.codes):
            return None  # complete before the fault could matter
        if not came:
            if ended != {0}:
                self.complain(f"ended before the instant after {instant.after}", launch)
            return None
        self.row.add(name or moment(before, seen, said), launch.codes)
        if not accepted(launch.codes):
            self.complain(f"ended otherwise than documented, {instant}", launch)
        return next((code for code in launch.codes.values() if code >= 0), min(ended))

    def conclude(self, reference: Path) -> None:
        """Launch without a fault until the run is complete, and compare it."""
        if not (self.path / "result.json").exists():
            with self.launched() as launch:
                launch.watch()
            if not all_of(0)(launch.codes):
                self.complain("the last launch, without a fault, did not end well", launch)
                self.row.compare(["no final checkpoint"])
                return
        self.row.compare(proof.differences(self.path, reference, self.unevaluated))
        if not self.row.complaints:
            shutil.rmtree(self.root)  # what was right is nothing to look at

    def left_exit_code(self) -> int | None:
        """What exit.json says."""
        try:
            return int(json.loads((self.path / "exit.json").read_text())["code"])
        except (OSError, ValueError):
            return None
