"""kill -9 and SIGTERM at random instants."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator

from tests.faults.campaign import proof
from tests.faults.campaign.launches import Launch
from tests.faults.campaign.moments import CACHE, SAVING, Instant
from tests.faults.campaign.plan import Plan
from tests.faults.campaign.settings import SETTINGS, Setting
from tests.faults.campaign.subject import Accepted, Subject, all_of
from tests.faults.campaign.table import Row

Act = Callable[[Launch], None]
PER_RUN = 12
"""Faults after which a run may end."""


def killed(plan: Plan, count: int) -> Iterator[Row]:
    """All processes of a launch at once, as when a node is lost; half of the times in a save or after its commit."""
    for setting, share in plan.shared(count, SETTINGS):
        row, draw = Row(f"SIGKILL: {setting}", share), plan.draw(f"killed {setting}")
        elsewhere = itertools.cycle(("step", "launch", "step"))
        kinds = (each for save in itertools.cycle(SAVING) for each in (save, next(elsewhere)))
        strike_until(plan, row, setting, draw, kinds, lambda *_: _killing, all_of(-signal.SIGKILL))
        yield row


def _killing(launch: Launch) -> None:
    launch.signal(signal.SIGKILL)


def stopped(plan: Plan, count: int) -> Iterator[Row]:
    """SIGTERM to all ranks within 20 ms, as scripts/launch.py sends it; in training also to one alone."""
    for setting, share in plan.shared(count, SETTINGS):
        row, draw = Row(f"SIGTERM: {setting}", share), plan.draw(f"stopped {setting}")
        kinds = itertools.cycle(("launch", "save", "step", "data", "evaluation", "step"))
        strike_until(plan, row, setting, draw, kinds, _telling, all_of(10), _nothing_lost)
        yield row


def _telling(draw: random.Random, kind: str) -> Act:
    apart, alone = draw.uniform(0, 0.02), draw.random() < 0.5 and kind not in ("launch", "data")
    order = draw.random() < 0.5

    def tell(launch: Launch) -> None:
        ranks = list(range(len(launch.pids)))[:: 1 if order else -1]
        for rank in ranks[:1] if alone else ranks:
            launch.signal(signal.SIGTERM, rank)
            launch.sleep(apart)

    return tell


def _nothing_lost(subject: Subject, code: int) -> None:
    """A stop costs no finished step, and exit.json says that it was one."""
    subject.unevaluated |= code == 10
    newest, last = proof.newest_sound(subject.path), proof.recorded(subject.path)
    if code == 10 and newest < last:
        subject.complain(f"stopped after step {last} and saved {newest}")
    if code == 10 and subject.path.exists() and subject.left_exit_code() not in (10, None):
        subject.complain(f"exit.json says {subject.left_exit_code()}")


def strike_until(
    plan: Plan,
    row: Row,
    setting: Setting,
    draw: random.Random,
    kinds: Iterator[str],
    act: Callable[[random.Random, str], Act],
    accepted: Accepted,
    after: Callable[[Subject, int], object] = lambda subject, code: None,
) -> None:
    """Run after run, strike each until it is complete or has had PER_RUN faults; as many as the row wants."""
    while row.count < row.wanted and not row.complaints:
        subject = plan.subject(row, setting)
        for number in itertools.count(1):
            kind = next(kinds)
            more = (f"data.cache_dir={subject.root / CACHE / str(number)}",) if kind == "data" else ()
            code = subject.strike(Instant.drawn(draw, kind), act(draw, kind), accepted, more=more)
            if code is None or row.complaints:
                break
            after(subject, code)
            if row.count == row.wanted or number == PER_RUN:
                break
        subject.conclude(plan.reference(setting))
