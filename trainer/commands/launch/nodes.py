"""What the launchers of one attempt tell each other through the rendezvous store: who ended, and that they live.

A launcher sees its own workers only. A worker that crashed because a peer on another node was killed must not be taken
for the cause, and a worker that ended on another node must not be waited for until a collective times out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from trainer.commands.launch.ends import End

BEAT_SECONDS = 1.0
"""How often a launcher says that it lives, and looks at what the others have said."""
SILENT_SECONDS = 10.0
"""A launcher that says nothing for so long is gone."""

T = TypeVar("T")


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def add(self, key: str, value: int) -> int: ...
    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True)
class Node:
    """One launcher's workers: global ranks first to last, on a host."""

    host: str
    first: int
    last: int

    def __str__(self) -> str:
        ranks = f"rank {self.first}" if self.first == self.last else f"ranks {self.first} to {self.last}"
        return f"{self.host} ({ranks})"


class Nodes:
    """The nodes of one attempt, as this one sees them. With one node, nothing is asked of the store.

    store: under a prefix that belongs to this attempt. number: this node's, of ``count``. ``gone`` turns true when the
    store does not answer any more: the launcher that hosts it has died, or cannot be reached.
    """

    def __init__(self, store: Store, number: int, count: int, node: Node) -> None:
        self.number, self.count, self.gone = number, count, False
        self._store = store
        self._own: list[End] = []
        self._read: list[End] = []
        self._next_beat = 0.0
        self._ask(lambda: store.set(f"node/{number}", json.dumps(asdict(node))), None)

    def _ask(self, question: Callable[[], T], otherwise: T) -> T:
        """The store's answer; ``otherwise`` where there is one node, or no store any more."""
        if self.count == 1 or self.gone:
            return otherwise
        try:
            return question()
        except (RuntimeError, ValueError, TimeoutError):  # torch's errors of a store, DistError among them
            self.gone = True
            return otherwise

    def _add(self, key: str, amount: int) -> int:
        """Add to a counter of the store and return its sum; this never waits."""
        return self._ask(lambda: self._store.add(key, amount), 0)

    def _get(self, key: str) -> dict[str, Any] | None:
        """What is under a key by now."""
        if not self._ask(lambda: self._store.check([key]), False):
            return None
        text = self._ask(lambda: self._store.get(key), b"")
        record: dict[str, Any] | None = json.loads(text) if text else None
        return record

    def beat(self) -> bool:
        """Say that this launcher lives, and read what others say, once in BEAT_SECONDS. Whether it was time."""
        if time.monotonic() < self._next_beat:
            return False
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._add(f"beat/{self.number}", 1)
        self._read_ends()
        return True

    def tell(self, ends: Iterable[End]) -> None:
        """Report workers of this node that have ended. All nodes see all ends in one order, the store's."""
        for end in ends:
            self._own.append(end)
            text = json.dumps(asdict(end))
            if number := self._add("ends", 1):
                self._ask(partial(self._store.set, f"end/{number}", text), None)
        self._read_ends()

    def _read_ends(self) -> None:
        """Read what was reported since the last time, up to one that is being written."""
        while (record := self._get(f"end/{len(self._read) + 1}")) is not None:
            self._read.append(End(**record))

    @property
    def ends(self) -> list[End]:
        """The ends on all nodes that are known here, in order."""
        return self._read + [end for end in self._own if end not in self._read]

    def finish(self) -> None:
        """Say that no worker of this node runs any more, and that their ends are reported."""
        self._add(f"finished/{self.number}", 1)
        self._add("finished", 1)

    def wait(self, seconds: float) -> list[Node]:
        """Wait until all nodes have finished, and all know all ends; return the nodes that went away.

        A node has gone away when it has been silent for SILENT_SECONDS. Waits ``seconds`` at most, and ends early when
        the store does not answer.
        """
        silent = self._wait_for_all("finished", seconds)
        self._read_ends()
        records = [self._get(f"node/{number}") for number in silent]
        return [Node(**record) for record in records if record is not None]

    def part(self, seconds: float) -> None:
        """Wait until all nodes have read what they need: one of them hosts the store, and may end after this."""
        self._add("parted", 1)
        self._wait_for_all("parted", seconds)

    def _wait_for_all(self, word: str, seconds: float) -> list[int]:
        """Wait until all nodes but silent ones have said a word; those."""
        if self.count == 1:
            return []
        start, said = time.monotonic(), self._add(word, 0)
        heard = {number: (-1, start) for number in range(self.count) if number != self.number}
        silent: list[int] = []
        while said + len(silent) < self.count and not self.gone and time.monotonic() - start < seconds:
            time.sleep(0.1)
            if self.beat():
                silent = [number for number in heard if self._is_silent(number, heard)]
            said = self._add(word, 0)
        return silent

    def _is_silent(self, number: int, heard: dict[int, tuple[int, float]]) -> bool:
        """Whether a node has neither finished nor said anything for long. heard: its beats, and when they last grew."""
        beats, now = self._add(f"beat/{number}", 0), time.monotonic()
        if beats != heard[number][0]:
            heard[number] = beats, now
        return now - heard[number][1] > SILENT_SECONDS and not self._add(f"finished/{number}", 0)
