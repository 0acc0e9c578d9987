"""Files of checkpoints that are cut short, or have one bit flipped, between two launches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.campaign import proof
from tests.faults.campaign.plan import Plan
from tests.faults.campaign.settings import EVERY, MILESTONE, SETTINGS
from tests.faults.campaign.subject import Subject, all_of
from tests.faults.campaign.table import Row

HALF_WAY = MILESTONE + 2 * EVERY
"""Step of the newest checkpoint that is damaged; the one before it, and a milestone, are there too."""

Damage = Callable[[Path, random.Random], object]


def cut(file: Path, draw: random.Random) -> None:
    """Anywhere, to nothing included."""
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data))])


def flip(file: Path, draw: random.Random) -> None:
    """One bit."""
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def truncated(plan: Plan, count: int) -> Iterator[Row]:
    """Each of the files of a checkpoint by turns, shards and manifests first."""
    yield _damaged(plan, count, "truncated file", cut)


def flipped(plan: Plan, count: int) -> Iterator[Row]:
    """Likewise."""
    yield _damaged(plan, count, "flipped bit", flip)


def _damaged(plan: Plan, count: int, fault: str, damage: Damage) -> Row:
    row, draw = Row(fault, count), plan.draw(fault)
    for setting, share in plan.shared(count, SETTINGS):
        base = plan.half_way(setting, HALF_WAY)
        for number in range(share):
            subject = plan.subject(row, setting, base)
            # Every third time the one before it is damaged too, and the milestone before both is what is left.
            steps = proof.stored(subject.path)[: 2 if number % 3 == 2 else 1]
            for step in steps:
                files = _files(proof.checkpoint(subject.path, step))
                file = files[row.count % len(files)]
                damage(file, draw)
            _go_on(subject, "shard" if file.suffix == ".safetensors" else file.name)
            subject.conclude(plan.reference(setting))
    return row


def _files(checkpoint: Path) -> list[Path]:
    """Shards, the manifest, then the rest."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return sorted(files, key=lambda file: (file.suffix != ".safetensors", file.name != "manifest.json"))


def _go_on(subject: Subject, what: str) -> None:
    awaited = proof.newest_sound(subject.path)
    with subject.launched() as launch:
        launch.watch()
    subject.row.add(what, launch.codes)
    if not all_of(0)(launch.codes):
        subject.complain("ended otherwise than documented", launch)
    passed_over = launch.output.count("passed over step-")
    if bool(passed_over) != (awaited < HALF_WAY):
        subject.complain(f"passed over {passed_over} checkpoints; the newest sound one was {awaited}", launch)


def nothing_sound(plan: Plan, count: int) -> Iterator[Row]:
    """All checkpoints are damaged: refused with 13, nothing changes; with one restored, the run goes on from it."""
    row, draw = Row("no sound checkpoint", count), plan.draw("nothing sound")
    for setting, share in plan.shared(count, SETTINGS):
        for _ in range(share):
            subject = plan.subject(row, setting, plan.half_way(setting, HALF_WAY))
            steps = proof.stored(subject.path)
            whole = proof.contents(proof.checkpoint(subject.path, steps[-1]))
            for step in steps:
                draw.choice((cut, flip))(proof.checkpoint(subject.path, step) / "model/rank-00000.safetensors", draw)
            before = proof.contents(subject.path)
            with subject.launched() as launch:
                launch.watch()
            row.add("all shards", launch.codes)
            if not all_of(13)(launch.codes) or subject.left_exit_code() != 13:
                subject.complain("ended otherwise than documented", launch)
            if proof.contents(subject.path) != before:
                subject.complain("a refused launch changed files", launch)
            for name, data in whole.items():
                (proof.checkpoint(subject.path, steps[-1]) / name).write_bytes(data)
            subject.conclude(plan.reference(setting))
    yield row
