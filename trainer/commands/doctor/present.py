"""What a rank says of itself when it arrives, and what is wrong when all have been heard. No torch."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.commands.doctor.line import Line
from trainer.run.directory import environment

CLOCK_SECONDS = 2.0
"""This project's own choice: logs of several nodes are read side by side, and leases of jobs last minutes. AWS refuses
signatures, and munge credentials, only when clocks differ by minutes."""
COMPARED = ("python", "machine", "git_commit")
"""What has to be the same on all ranks, beside the packages."""


@dataclass(frozen=True)
class Present:
    """One rank, as it sees itself."""

    rank: int
    node: int
    """Number of the node that its launcher has: the same for ranks that were started together."""
    host: str
    machine: str
    """The kernel's id of this boot: two containers of one machine have the same."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    mend: Sequence[Mapping[str, Any]] = ()
    """Of its machine, where it is the first of a node: the lines that are not fine."""

    @classmethod
    def here(cls, rank: int, per_node: int, lines: Sequence[Line] = ()) -> Present:
        """This process. per_node: ranks of a node. lines: on its machine."""
        found: dict[str, Any] = environment()
        versions = {name: found[name] for name in COMPARED} | found["packages"]
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        node = int(os.environ.get("GROUP_RANK", rank // per_node))
        mend = [asdict(line) for line in lines if not line.fine]
        return cls(rank, node, socket.gethostname(), boot, versions, mend)

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Present:
        """What another rank has written. Raises TypeError or ValueError where another version of this file did."""
        return cls(**json.loads(text))


def arrival(present: Sequence[Present], size: int, per_node: int, hosts: Sequence[str], seconds: float) -> Line:
    """Whether all ranks came, and on which hosts those are that did not. hosts: of the nodes in order, where known."""
    here = {one.rank for one in present}
    missing = [rank for rank in range(size) if rank not in here]
    said = names(missing, per_node, hosts or known_hosts(present))
    found = f"{len(here)} of {size}" + (f" in {seconds:g} s; silent: {said}" if missing else "")
    remedy = (
        f"on {said}: is the process there, and does it reach MASTER_ADDR:MASTER_PORT (nc -vz)? Security groups, DNS"
    )
    return Line("ranks", found, f"all {size}", not missing, remedy)


def names(ranks: Sequence[int], per_node: int, hosts: Sequence[str]) -> str:
    """Ranks by the host they are on: node-3 (ranks 24 to 31), node 4 (rank 33)."""
    words = []
    for node in sorted({rank // per_node for rank in ranks}):
        of = [rank for rank in ranks if rank // per_node == node]
        host = hosts[node] if node < len(hosts) and hosts[node] else f"node {node}"
        span = f"rank {of[0]}" if len(of) == 1 else f"ranks {of[0]} to {of[-1]}"
        words.append(f"{host} ({span})")
    return ", ".join(words)


def known_hosts(present: Sequence[Present]) -> list[str]:
    """The hosts of the nodes of which a rank has come, by the node's number; empty for the others."""
    found = {one.node: one.host for one in present}
    return [found.get(node, "") for node in range(max(found, default=-1) + 1)]


def machines(present: Sequence[Present]) -> Iterator[Line]:
    """What is to mend on other nodes than rank 0's."""
    for one in present:
        for line in one.mend:
            yield replace(Line(**line), what=f"{one.host}: {line['what']}")


def agreement(present: Sequence[Present]) -> Iterator[Line]:
    """Lines on ranks that should not differ, and on nodes that should."""
    yield _machines(present)
    yield _names(present)
    reference = min(present, key=lambda one: one.rank)
    keys = sorted({key for one in present for key in one.versions})
    odd = [key for key in keys if len({one.versions.get(key) for one in present}) > 1]
    if not odd:
        yield Line("versions", f"the same on {len(present)} ranks", "one set on all ranks", True)
    for key in odd:
        mine = reference.versions.get(key)
        other = next(one for one in present if one.versions.get(key) != mine)
        found = f"{mine} on {reference.host}, {other.versions.get(key)} on {other.host} (rank {other.rank})"
        what = "the checkout" if key == "git_commit" else key
        how = "git checkout" if key == "git_commit" else "make setup, with one constraints file"
        yield Line(f"versions: {what}", found, "one set on all ranks", False, f"on {other.host}: {how}")


def _machines(present: Sequence[Present]) -> Line:
    """Two nodes of a launch that are one machine share its cores, and one of them is missing elsewhere."""
    first: dict[str, Present] = {}
    for one in present:
        before = first.setdefault(one.machine, one)
        if one.machine and before.node != one.node:
            found = f"nodes {before.node} and {one.node} are both {one.host}"
            remedy = "start the launcher once on each host; in a host list, take the double entry out"
            return Line("machines", found, "one node of the launch on each", False, remedy)
    return Line("machines", f"{len({one.node for one in present})}", "one node of the launch on each", True)


def _names(present: Sequence[Present]) -> Line:
    first: dict[str, Present] = {}
    for one in present:
        before = first.setdefault(one.host, one)
        if before.machine != one.machine:
            found = f"{one.host} is the name of two machines (ranks {before.rank} and {one.rank})"
            remedy = "sudo hostnamectl set-hostname <a name of its own>; reports could not tell them apart"
            return Line("host names", found, "different ones", False, remedy)
    return Line("host names", ", ".join(sorted(first)[:4]) + (" ..." if len(first) > 4 else ""), "different ones", True)


def clocks(ahead: Mapping[str, float]) -> Line:
    """ahead: by host, how many seconds its clock is before rank 0's, as far as the network's delay allows to say."""
    host, seconds = max(ahead.items(), key=lambda item: abs(item[1]), default=("", 0.0))
    fine = abs(seconds) <= CLOCK_SECONDS
    direction = "ahead" if seconds > 0 else "behind"
    found = f"{abs(seconds):.1f} s at most" if fine else f"{host} is {abs(seconds):.1f} s {direction} of rank 0"
    remedy = f"on {host}: timedatectl set-ntp true, or chronyc makestep (169.254.169.123 is EC2's own time)"
    return Line("clocks", found, f"within {CLOCK_SECONDS:g} s", fine, remedy)


def doubles(counts: Mapping[int, int]) -> Line:
    """counts: how many processes came as each rank."""
    twice = [rank for rank, count in counts.items() if count > 1]
    remedy = (
        "--node_rank or RANK is the same on two nodes; or an old launch is still there: end it, or another --rdzv_id"
    )
    found = f"rank {twice[0]} came {counts[twice[0]]} times" if twice else "each once"
    return Line("rank numbers", found, "each once", not twice, remedy)
