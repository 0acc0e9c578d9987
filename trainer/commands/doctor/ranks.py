"""The ranks of a launch examined together: who is there, whether they agree, share a directory, and add numbers up.

Ranks speak through the launch's store, which needs no collective: so rank 0 can name who says nothing. Every rank takes
the same stages in the same order; rank 0 writes the lines, and tells the others how it ended.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.commands.doctor.line import Line
from trainer.commands.doctor.present import Present, agreement, arrival, clocks, doubles, known_hosts, machines, names
from trainer.errors import ConfigError, HangError, Problem, RunError
from trainer.run.shared import find_nonce, leave_nonce, remove_nonce
from trainer.run.world import World, attempt

if TYPE_CHECKING:
    from trainer.backends.common.peers import Peers

HERE, GO, ASK, ANSWER, NONCE, END = "here", "go", "ask", "answer", "nonce", "end"
"""Keys of the store."""
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Meeting:
    """What every rank knows before it meets the others. hosts: of the nodes in order, where the user has named them."""

    peers: Peers
    per_node: int
    runs: Path
    seconds: float
    """Longest wait of each stage."""
    hosts: tuple[str, ...] = ()
    reduce: Callable[[], float] = float
    """Adds one up over all ranks, by a collective."""

    def gather(self, topic: str) -> dict[int, str]:
        """On rank 0: each rank's text on a topic, of those that have posted it in time."""
        missing, found = set(range(self.peers.size)), dict[int, str]()
        deadline = time.monotonic() + self.seconds
        while missing and time.monotonic() < deadline:
            for rank in sorted(missing):
                if (text := self.peers.look(f"{topic}/{rank}")) is not None:
                    found[rank] = text
            missing -= found.keys()
            time.sleep(LOOK_SECONDS)
        return found

    def say(self, topic: str, text: str) -> None:
        """This rank's text on a topic."""
        self.peers.post(f"{topic}/{self.peers.rank}", text)


def join(world: World, seconds: float) -> Peers:
    """Meet at the launch's store without waiting for the others. Raises HangError where it does not answer."""
    import torch.distributed as dist

    from trainer.backends.common.peers import REMEDY, Peers

    # torchrun's agent keeps the store for its workers; without one rank 0 does. torch's own way in waits for every
    # rank, and does not know who is missing.
    keeps = world.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    timeout = timedelta(seconds=seconds)
    try:
        store = dist.TCPStore(address, port, None, keeps, timeout, wait_for_workers=False)
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        rule = f"answers within {seconds:g} s: the store of the launch, MASTER_ADDR:MASTER_PORT"
        said = f"{address}:{port} ({str(error).splitlines()[0]})"
        raise HangError(Problem("store", said, rule, REMEDY)) from error
    return Peers(dist.PrefixStore(f"doctor-{attempt()}", store), world.rank, world.size)


def attend(meeting: Meeting, me: Present) -> bool:
    """What a rank other than 0 does; whether all was fine. Raises HangError where rank 0 goes silent."""
    peers, wait = meeting.peers, meeting.seconds
    _arrive(meeting, me)
    if peers.wait(GO, "the doctor's rank 0", 2 * wait) != "go":
        return False
    if _leads(me.rank, meeting):
        peers.wait(f"{ASK}/{me.rank}", "the doctor's clock", 2 * wait)
        peers.post(f"{ANSWER}/{me.rank}", repr(time.time()))
    nonce = int(peers.wait(NONCE, "the doctor's shared directory", 2 * wait), 16)
    if nonce:
        meeting.say("shared", _shared(meeting, nonce))
    meeting.say("sum", _sum(meeting))
    return peers.wait(END, "the doctor's verdict", 2 * wait) == "fine"


def examine(meeting: Meeting, me: Present) -> Iterator[Line]:
    """What rank 0 does: the lines, until one makes the later ones senseless."""
    peers = meeting.peers
    _arrive(meeting, me)
    told = meeting.gather(HERE)
    present = [Present.from_json(text) for text in told.values()]
    yield (line := arrival(present, peers.size, meeting.per_node, meeting.hosts, meeting.seconds))
    yield doubles({one.rank: peers.store.add(f"count/{one.rank}", 0) for one in present})
    yield from agreement(present)
    yield from machines(present)
    peers.post(GO, "go" if line.fine else "stop")
    if not line.fine:
        return
    hosts = meeting.hosts or tuple(known_hosts(present))
    yield from _clocks(meeting, hosts)
    yield _directory(meeting, hosts)
    yield _reduction(meeting, hosts)


def end(meeting: Meeting, fine: bool) -> None:
    """On rank 0, when all lines are known: let the others go."""
    meeting.peers.post(END, "fine" if fine else "mend")


def _arrive(meeting: Meeting, me: Present) -> None:
    meeting.peers.store.add(f"count/{me.rank}", 1)
    meeting.say(HERE, me.to_json())


def _leads(rank: int, meeting: Meeting) -> bool:
    """Whether it is the first of another node than rank 0's."""
    return rank > 0 and rank % meeting.per_node == 0


def _clocks(meeting: Meeting, hosts: Sequence[str]) -> Iterator[Line]:
    """As NTP does: an answer's time against the middle of the question's way there and back."""
    ahead: dict[str, float] = {}
    peers = meeting.peers
    for rank in filter(lambda rank: _leads(rank, meeting), range(peers.size)):
        asked = time.time()
        peers.post(f"{ASK}/{rank}", "")
        try:
            theirs = float(peers.wait(f"{ANSWER}/{rank}", "the doctor's clock", meeting.seconds))
        except HangError:
            continue  # the sum below names a rank that says nothing
        returned = time.time()
        beyond = abs(theirs - (asked + returned) / 2) - (returned - asked) / 2
        if beyond > 0:
            node = rank // meeting.per_node
            ahead[hosts[node] if node < len(hosts) else f"node {node}"] = beyond if theirs > returned else -beyond
    if peers.size > meeting.per_node:
        yield clocks(ahead)


def _directory(meeting: Meeting, hosts: Sequence[str]) -> Line:
    """Rank 0 leaves a file that all ranks have to see."""
    peers, runs = meeting.peers, meeting.runs
    what, wanted = f"shared {runs}", "one directory on all ranks, which all can write"
    nonce = time.time_ns()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        leave_nonce(runs, nonce)
    except (OSError, RunError) as error:
        peers.post(NONCE, "0")
        why = error.strerror if isinstance(error, OSError) else error.problems[0].rule
        return Line(what, str(why), wanted, False, "restore access, or run.root=<another directory>")
    peers.post(NONCE, f"{nonce:x}")
    meeting.say("shared", _shared(meeting, nonce))
    found = meeting.gather("shared")
    remove_nonce(runs, nonce)
    blind = [rank for rank in range(peers.size) if found.get(rank) != ""]
    said = names(blind, meeting.per_node, hosts)
    seen = f"not on {said}" if blind else f"seen by {peers.size} ranks"
    remedy = f"mount it on {said}, or run.root=<an absolute path on a file system that all nodes share>"
    return Line(what, seen, wanted, not blind, remedy)


def _shared(meeting: Meeting, nonce: int) -> str:
    """Why this rank does not see rank 0's file or cannot write beside it; empty where it does and can."""
    try:
        find_nonce(meeting.runs, nonce, meeting.peers.rank, min(10.0, meeting.seconds))
    except ConfigError as error:
        return error.problems[0].rule
    return ""


def _reduction(meeting: Meeting, hosts: Sequence[str]) -> Line:
    """All ranks add one up; who does not say a result in time is silent, whatever the others have seen of it."""
    size = meeting.peers.size
    meeting.say("sum", _sum(meeting))
    found = meeting.gather("sum")
    silent = [rank for rank in range(size) if rank not in found]
    wrong = [rank for rank, text in found.items() if text != str(float(size))]
    said = names(silent or wrong, meeting.per_node, hosts)
    text = f"silent: {said}" if silent else (f"{found[wrong[0]]} on {said}" if wrong else f"{size} on all ranks")
    remedy = f"on {said}: let the nodes reach each other on every port (a security group that allows itself)"
    remedy += "; GLOO_SOCKET_IFNAME=<the interface between the nodes>; the host's name must lead to its own address"
    return Line("all-reduce", text, f"{size} on all ranks", not silent and not wrong, remedy)


def _sum(meeting: Meeting) -> str:
    """The sum, or the first line of why there is none."""
    try:
        return str(float(meeting.reduce()))
    except (RuntimeError, ValueError, OSError) as error:
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]


def gloo(peers: Peers, seconds: float) -> float:
    """One from every rank, summed by gloo on CPU: ``peers.size``. Raises RuntimeError where a rank is not reached."""
    import torch
    import torch.distributed as dist

    # Each rank connects to each: this, and no more, is what a training run does first.
    store = dist.PrefixStore("doctor", peers.store)
    timeout = timedelta(seconds=seconds)
    with _silent_output():
        dist.init_process_group("gloo", store=store, rank=peers.rank, world_size=peers.size, timeout=timeout)
        try:
            one = torch.ones(2)
            dist.all_reduce(one)
            return float(one[1])
        finally:
            dist.destroy_process_group()


@contextmanager
def _silent_output() -> Iterator[None]:
    """gloo's library prints to standard output, which is a program's with --json: meanwhile it is standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
