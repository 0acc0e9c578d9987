"""The kinds of faults: what tries each, and how often in a whole campaign."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping

from tests.faults.campaign.damage import flipped, nothing_sound, truncated
from tests.faults.campaign.disks import full, read_only
from tests.faults.campaign.peers import hung, lost, not_a_number, slow
from tests.faults.campaign.plan import Plan
from tests.faults.campaign.signals import killed, stopped
from tests.faults.campaign.table import Row

KINDS: Mapping[str, tuple[Callable[[Plan, int], Iterator[Row]], int]] = {
    "killed": (killed, 60),
    "stopped": (stopped, 20),
    "full": (full, 12),
    "read_only": (read_only, 8),
    "truncated": (truncated, 16),
    "flipped": (flipped, 16),
    "nothing_sound": (nothing_sound, 4),
    "not_a_number": (not_a_number, 4),
    "hung": (hung, 6),
    "lost": (lost, 6),
    "slow": (slow, 4),
}


def tried(kind: str, plan: Plan, count: int) -> Iterator[Row]:
    """The rows of a kind. A mistake of the campaign's own fails its row, and costs no other."""
    try:
        yield from KINDS[kind][0](plan, count)
    except Exception:
        yield Row(kind, count, complaints=[traceback.format_exc()])
