"""What ranks say to each other out of band: over the rendezvous store, without a collective and from any thread."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from trainer.errors import HangError, Problem
from trainer.run.world import World, attempt

LOOK_SECONDS = (0.01, 0.5)
"""Between two looks at the store while waiting: at first, and after a while."""
SAY_SECONDS = 30.0
"""Between two lines about ranks that are waited for."""
REMEDY = "look at these ranks' hosts and at their output; the same command goes on from the last checkpoint"

Say = Callable[[str], object]


class Peers:
    """This rank among ``size``. host: where it runs. A thread that may wait needs its own: ``another``."""

    def __init__(self, store: dist.Store, rank: int = 0, size: int = 1) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.host = socket.gethostname()

    @classmethod
    def join(cls, world: World, seconds: float) -> Peers:
        """Meet the launch's store, within ``seconds``; one process has a store of its own.

        Raises HangError where the store does not answer.
        """
        if world.size == 1:
            return cls(dist.HashStore())
        timeout = timedelta(seconds=seconds)
        try:
            store, rank, size = next(rendezvous("env://", timeout=timeout))
        except (dist.DistStoreError, dist.DistNetworkError) as error:
            rule = f"all {world.size} ranks meet at rank 0's host within reliability.setup_seconds ({seconds:g})"
            raise HangError(Problem("launch", str(error).splitlines()[0], rule, REMEDY)) from error
        peers = cls(dist.PrefixStore(attempt(), store), rank, size)
        peers.store.set_timeout(timeout)
        return peers

    def another(self) -> Peers:
        """The same rank over another connection: what waits on this one does not hold that one up."""
        return Peers(self.store.clone(), self.rank, self.size)  # type: ignore[attr-defined]

    def post(self, key: str, text: str) -> None:
        """Let everyone know."""
        self.store.set(key, text)

    def look(self, key: str) -> str | None:
        """What was posted under a key; None while nothing is. Does not wait."""
        return self.store.get(key).decode() if self.store.check([key]) else None

    def everyone(self, topic: str, mine: str, seconds: float, say: Say | None = None) -> list[str]:
        """Every rank's text on a topic, by rank. Waits for all: no collective, so that no timeout of one applies.

        Each topic is used once. seconds: longest wait, after which HangError names who did not come. say: told every
        SAY_SECONDS who is waited for; on rank 0 only.
        """
        self.post(f"{topic}/{self.rank}", json.dumps([self.host, mine]))
        deadline = time.monotonic() + seconds
        if self.rank == 0:
            texts = [self._wait(topic, f"{topic}/{rank}", deadline, seconds, say) for rank in range(self.size)]
            self.post(f"{topic}/all", json.dumps([json.loads(text)[1] for text in texts]))
        found: list[str] = json.loads(self._wait(topic, f"{topic}/all", deadline, seconds, None))
        return found

    def wait(self, key: str, topic: str, seconds: float) -> str:
        """What is posted under a key, once it is."""
        return self._wait(topic, key, time.monotonic() + seconds, seconds, None)

    def _wait(self, topic: str, key: str, deadline: float, seconds: float, say: Say | None) -> str:
        pause, told = LOOK_SECONDS[0], time.monotonic()
        while (text := self.look(key)) is None:
            now = time.monotonic()
            if now > deadline:
                missing = self.missing(topic)
                rule = f"every rank comes within {seconds:g} s; {self.who(missing)} did not"
                raise HangError(Problem(topic, f"{self.size - len(missing)} of {self.size} ranks came", rule, REMEDY))
            if say is not None and now - told > SAY_SECONDS:
                told = now
                say(f"waiting for {self.who(self.missing(topic))}: {topic}")
            time.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS[1])
        return text

    def missing(self, topic: str) -> list[int]:
        """Ranks that have not said anything on a topic."""
        return [rank for rank in range(self.size) if not self.store.check([f"{topic}/{rank}"])]

    def who(self, ranks: Sequence[int], most: int = 8) -> str:
        """Ranks with their hosts, where these are known: ``rank 3 (HOST)``."""
        shown = [f"{rank} ({host})" if (host := self.host_of(rank)) else str(rank) for rank in ranks[:most]]
        more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
        return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(shown)}{more}"

    def host_of(self, rank: int) -> str | None:
        """Where a rank runs, once it has taken part in the first exchange; None too where the store has gone."""
        try:
            text = self.look(f"launch/{rank}")
        except dist.DistError:  # whoever asks has something to report, of which the host's name is the least
            return None
        return None if text is None else str(json.loads(text)[0])
