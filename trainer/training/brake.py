"""Ends a step between two of its microbatches, on all ranks, once any rank was asked to stop.

The ranks that meet within a microbatch (the tensor- and context-parallel ranks of a stage, and with ZeRO 2 and 3 those
along the data axes) have to end before the same one. The first of them decides: it sees that a stop was asked for
before microbatch n, and posts that its group ends before n + margin. No other rank of the group can pass n without it,
so all of them read the post before they get there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.distributed as dist

from trainer.backends.common.peers import Peers
from trainer.parallel.mesh import Mesh


class Brake:
    """Called before each microbatch with its number, counted from 0; answers whether it is to be trained."""

    def __init__(
        self,
        peers: Peers,
        mesh: Mesh,
        axes: Sequence[str],
        margin: int,
        asked: Callable[[], bool],
        passed: Callable[[], object],
    ) -> None:
        """axes: whose ranks meet within a microbatch. margin: microbatches by which a rank may be ahead of another in
        its group, and one more. asked: whether this rank was asked to stop.
        passed: told at every microbatch.
        """
        self._leader = min(mesh.group(*axes))
        self._peers, self._margin, self._asked, self._passed = peers, margin, asked, passed
        self._told = self._lost = False
        self._end: int | None = None
        self._work = ""

    def begin(self, work: str) -> None:
        """Another piece of work, whose microbatches are counted anew: a step or an evaluation, by its name."""
        self._work, self._end = work, None

    def __call__(self, number: int) -> bool:
        self._passed()
        if self._end is None and not self._lost:
            try:
                self._tell()
                self._end = self._read(number)
            except dist.DistError:  # the launcher that had the store is gone; a step is then trained to its end
                self._lost = True
        return self._end is None or number < self._end

    def _tell(self) -> None:
        if self._asked() and not self._told:
            self._peers.post("stop", str(self._peers.rank))
            self._told = True

    def _read(self, number: int) -> int | None:
        if self._peers.size == 1:
            return number if self._told else None
        key = f"brake/{self._leader}/{self._work}"
        if self._peers.rank != self._leader:
            text = self._peers.look(key)
            return None if text is None else int(text)
        if self._peers.look("stop") is None:
            return None
        self._peers.post(key, str(number + self._margin))
        return number + self._margin
