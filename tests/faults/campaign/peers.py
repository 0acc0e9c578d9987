"""A rank that hangs, is lost, or is slow; and a batch that is not a number."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Mapping

from tests.faults import injected
from tests.faults.campaign import proof
from tests.faults.campaign.launches import Launch
from tests.faults.campaign.moments import Instant
from tests.faults.campaign.plan import Plan
from tests.faults.campaign.settings import EVERY, SETTINGS, STEP_SECONDS, STEPS, TOGETHER
from tests.faults.campaign.subject import Subject, all_of
from tests.faults.campaign.table import Row

AFTER = ("step", "save", "launch", "evaluation")
GONE = (12, -signal.SIGKILL)


def _hang(codes: Mapping[int, int]) -> bool:
    """12 on every rank that was not killed."""
    return set(codes.values()) in ({12}, set(GONE))


def lost(plan: Plan, count: int) -> Iterator[Row]:
    """SIGKILL to one rank of two: the other names it, and ends."""
    row, draw = Row("lost rank", count), plan.draw("lost")
    for setting, share in plan.shared(count, TOGETHER):
        for subject, kind in plan.tries(row, setting, share, AFTER):
            rank, instant = draw.randrange(setting.processes), Instant.drawn(draw, kind)
            subject.strike(instant, lambda launch, rank=rank: launch.signal(signal.SIGKILL, rank), _hang)
            _says_hang(subject)
            subject.conclude(plan.reference(setting))
    yield row


def hung(plan: Plan, count: int) -> Iterator[Row]:
    """A rank that stops (SIGSTOP), or sleeps for ever in a step."""
    row, draw = Row("hung rank", count), plan.draw("hung")
    for setting, share in plan.shared(count, TOGETHER):
        for subject, kind in plan.tries(row, setting, share, ("step", "", "save", "launch", "", "evaluation")):
            rank = draw.randrange(setting.processes)
            if not kind:
                faults = {rank: injected.stuck(draw.randint(2, STEPS - 2))}
                subject.strike(Instant("launch", 1, 0.0), lambda _: None, all_of(12), faults, name="stuck in a step")
            else:
                instant = Instant.drawn(draw, kind)
                subject.strike(instant, lambda launch, rank=rank: _stop_for_ever(launch, rank), _hang)
            _says_hang(subject)
            subject.conclude(plan.reference(setting))
    yield row


def _stop_for_ever(launch: Launch, rank: int) -> None:
    launch.signal(signal.SIGSTOP, rank)
    launch.watch(lambda: len(launch.codes) == len(launch.pids) - 1)
    launch.signal(signal.SIGKILL)


def _says_hang(subject: Subject) -> None:
    if subject.path.exists() and subject.left_exit_code() not in (12, 0):
        subject.complain(f"exit.json says {subject.left_exit_code()}")


def slow(plan: Plan, count: int) -> Iterator[Row]:
    """A rank that is slower than the others at every microbatch, or pauses for less than the limit, ends nothing."""
    row, draw = Row("slow rank", count), plan.draw("slow")
    for setting, share in plan.shared(count, TOGETHER):
        for subject, kind in plan.tries(row, setting, share, ("step", "", "save")):
            rank = draw.randrange(setting.processes)
            if not kind:
                faults = {rank: injected.slow(draw.uniform(0.03, 0.1))}
                subject.strike(Instant("launch", 1, 0.0), lambda _: None, all_of(0), faults, name="each microbatch")
            else:
                instant = Instant.drawn(draw, kind)
                subject.strike(instant, lambda launch, rank=rank, draw=draw: _pause(launch, rank, draw), all_of(0))
            subject.conclude(plan.reference(setting))
    yield row


def _pause(launch: Launch, rank: int, draw: random.Random) -> None:
    launch.signal(signal.SIGSTOP, rank)
    launch.sleep(draw.uniform(0.3, 0.6) * STEP_SECONDS)
    launch.signal(signal.SIGCONT, rank)


def not_a_number(plan: Plan, count: int) -> Iterator[Row]:
    """A loss that is NaN on one rank, with the policy stop: 11, and nothing is saved after it."""
    row, draw = Row("NaN batch", count), plan.draw("not a number")
    for setting, share in plan.shared(count, SETTINGS):
        for subject, _ in plan.tries(row, setting, share):
            step = draw.randint(2, STEPS)
            faults = {draw.randrange(setting.processes): injected.poisoned(step)}
            with subject.launched(faults) as launch:
                launch.watch()
            row.add("step", launch.codes)
            newest = (step - 1) // EVERY * EVERY
            if not all_of(11)(launch.codes) or subject.left_exit_code() != 11:
                subject.complain("ended otherwise than documented", launch)
            if proof.newest_sound(subject.path) != newest or f"gradient norm of step {step}" not in launch.output:
                subject.complain(f"step {step} was poisoned; saved: {proof.stored(subject.path)}", launch)
            subject.conclude(plan.reference(setting))
    yield row
