"""A disk that is full, and a directory that is read-only, from a random instant of a launch to its end.

Full: the kernel's limit on the size of files (RLIMIT_FSIZE), set to 0 from outside. It refuses every byte to every
file, with EFBIG where a full disk says ENOSPC, and takes no rights. Read-only: chmod, which root does not heed; so
ranks that root runs give that privilege up first.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from functools import partial

from tests.faults.campaign.launches import Launch
from tests.faults.campaign.moments import Instant
from tests.faults.campaign.plan import Plan
from tests.faults.campaign.settings import SETTINGS
from tests.faults.campaign.subject import all_of
from tests.faults.campaign.table import Row

_VERSION_3, _DAC_OVERRIDE = 0x20080522, 1  # linux/capability.h
FULL_AFTER = ("save", "step", "rename", "launch", "save")
READ_ONLY_AFTER = ("save", "step", "rename")


def full(plan: Plan, count: int) -> Iterator[Row]:
    """No room for another byte: of one rank's files, or of all."""
    row, draw = Row("full disk", count), plan.draw("full")
    for setting, share in plan.shared(count, SETTINGS):
        for subject, kind in plan.tries(row, setting, share, FULL_AFTER):
            ranks = draw.sample(range(setting.processes), draw.randint(1, setting.processes))
            subject.strike(Instant.drawn(draw, kind), partial(_fill, ranks=ranks), all_of(3))
            subject.conclude(plan.reference(setting))
    yield row


def _fill(launch: Launch, ranks: list[int]) -> None:
    for rank in ranks:
        if rank not in launch.codes:
            resource.prlimit(launch.pids[rank], resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def read_only(plan: Plan, count: int) -> Iterator[Row]:
    """The run's directory, or that of its checkpoints."""
    row, draw = Row("read-only directory", count), plan.draw("read-only")
    for setting, share in plan.shared(count, SETTINGS):
        for subject, kind in plan.tries(row, setting, share, READ_ONLY_AFTER):
            target = draw.choice((subject.path, subject.path / "checkpoints"))
            target.mkdir(parents=True)
            faults = dict.fromkeys(range(setting.processes), heed_modes)
            try:
                subject.strike(Instant.drawn(draw, kind), lambda _, t=target: t.chmod(0o555), all_of(3), faults)
            finally:
                target.chmod(0o755)
            subject.conclude(plan.reference(setting))
    yield row


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def heed_modes() -> None:
    """Make a directory's mode mean something to this thread, and to those it starts, where root runs it."""
    if os.geteuid():
        return
    header, sets = _Header(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~(1 << _DAC_OVERRIDE)  # of those in effect
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")
