"""The meeting of the nodes: torch's rendezvous, with two changes for nodes that go away. Uses torch's private names."""

from __future__ import annotations

from torch.distributed import DistError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousHandler, RendezvousInfo

CACHED = "_bootstrap_store_info"
"""torch's cache of the address of the workers' store."""


class Meeting(RendezvousHandler):
    """A rendezvous handler that takes in a node which comes after the first round, and outlives its store.

    torch keeps the address of the workers' store from the first round on, but only in the nodes that were there: they
    do not publish it in later rounds, where a replaced node waits for it until all time out. Here each round publishes
    it anew. (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 has the same effect, but then the store lives in the worker of rank
    0: it is gone with that worker, and its port is found long before it is used.)

    Without the second change, a launcher would kill its workers as soon as the host of the rendezvous cannot be
    reached, though they may be about to save and end by themselves.
    """

    def __init__(self, handler: RendezvousHandler, endpoint: str) -> None:
        self._handler = handler
        self.endpoint = endpoint
        """HOST:PORT of the store that the first node's launcher hosts."""
        self.failing = False
        """A worker has failed, and whether there is a restart is not decided yet: no node is taken in."""

    def next_rendezvous(self) -> RendezvousInfo:
        """Meet the other nodes. Raises torch's RendezvousError, or DistError."""
        if hasattr(self._handler, CACHED):
            setattr(self._handler, CACHED, None)
        return self._handler.next_rendezvous()

    def num_nodes_waiting(self) -> int:
        """Nodes that wait for the next round; 0 where nobody can tell."""
        if self.failing:
            return 0
        try:
            return self._handler.num_nodes_waiting()
        except (RendezvousConnectionError, DistError):
            return 0

    @property
    def use_agent_store(self) -> bool:
        """Whether the launcher hosts the workers' store."""
        return self._handler.use_agent_store

    def get_backend(self) -> str:
        """c10d or static."""
        return self._handler.get_backend()

    def get_run_id(self) -> str:
        """The rendezvous's name."""
        return self._handler.get_run_id()

    def is_closed(self) -> bool:
        """Whether nobody can join any more."""
        return self._handler.is_closed()

    def set_closed(self) -> None:
        """Let nobody join any more."""
        self._handler.set_closed()

    def shutdown(self) -> bool:
        """Leave, and close the rendezvous for all."""
        return self._handler.shutdown()
