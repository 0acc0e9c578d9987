"""What scripts/launch.py leans on in torch's elastic agent, and whom it names as the cause of an end."""

from __future__ import annotations

import inspect
import re
import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.agent.server.api import SimpleElasticAgent
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import PContext, SubprocessContext
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
from torch.distributed.elastic.rendezvous import RendezvousConnectionError
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
from torch.distributed.launcher.api import _get_addr_and_port

from tests import harness
from trainer.commands.launch import nodes as nodes_module
from trainer.commands.launch.ends import FINAL, End, in_order, judge
from trainer.commands.launch.meeting import CACHED, Meeting
from trainer.commands.launch.nodes import Node, Nodes
from trainer.errors import ExitCode


def test_torch_still_has_what_we_override() -> None:
    for name in ("_rendezvous", "_restart_workers", "_start_workers", "_monitor_workers", "_stop_workers"):
        assert callable(getattr(LocalElasticAgent, name))
    assert "_remaining_restarts" in inspect.getsource(SimpleElasticAgent)
    assert "_pcontext" in inspect.getsource(LocalElasticAgent)
    assert "subprocess_handlers" in inspect.getsource(SubprocessContext)
    assert "self.proc" in inspect.getsource(SubprocessHandler)
    assert "killpg" in inspect.getsource(SubprocessHandler.close), "what a worker has started ends with it"
    assert list(inspect.signature(PContext.close).parameters) == ["self", "death_sig", "timeout"]
    assert "threading.main_thread()" in inspect.getsource(PContext.start), "no handlers outside the main thread"
    assert CACHED in inspect.getsource(DynamicRendezvousHandler.next_rendezvous)
    assert callable(_get_addr_and_port)


def ended(codes: list[int], ours: tuple[int, ...] = ()) -> list[End]:
    """Workers by rank, in the order in which they ended."""
    return [End(rank, code, "h", rank in ours) for rank, code in enumerate(codes)]


@pytest.mark.parametrize(
    ("codes", "handed_on", "expected", "rank"),
    [
        ([3], set(), 3, 0),
        ([1, 3], set(), 3, 1),  # a rank that crashed because another gave up
        ([1, 12], set(), 1, 0),  # a rank that waited for one that has crashed
        ([12, 1], set(), 12, 0),
        ([12, -9], set(), 12, 0),
        ([-9, 1], set(), 137, 0),
        ([-9, 12], set(), 137, 0),
        ([-9, 3], set(), 137, 0),
        ([1, -9], set(), 137, 1),  # seen late, on another node: nothing makes a worker die of SIGKILL
        ([3, -9], set(), 3, 0),
        ([4, 1], set(), 4, 0),
        ([15, 1], set(), 15, 0),
        ([-11, 1], set(), 139, 0),
        ([1, -11], set(), 1, 0),  # on the way out of Python
        ([-6, 1], set(), 134, 0),
        ([-6, -9], set(), 137, 1),  # NCCL's watchdog aborts
        ([1, -15], set(), 1, 0),
        ([-15, 1], set(), 143, 0),
        ([10, 10], {15}, 10, 0),
        ([-15, -15], {15}, 10, 0),  # before it could listen
        ([-10, 1], {10}, 10, 0),
        ([-2, 10], {15, 2}, 10, 0),  # after it had saved: the second signal of a person in a hurry
        ([-64, 1], set(), 192, 0),  # a real-time signal
    ],
)
def test_the_code_of_a_launch_and_whose_it_is(codes: list[int], handed_on: set[int], expected: int, rank: int) -> None:
    verdict = judge(ended(codes), handed_on)
    assert (verdict.code, verdict.rank) == (expected, rank)


def test_those_that_the_launcher_killed_are_no_cause() -> None:
    assert judge(ended([12, -9], ours=(1,))).code == 12
    assert judge([*reversed(ended([12, -9], ours=(1,)))]).code == 12
    overdue = judge(ended([-9], ours=(0,)), {15})
    assert overdue.code == 137
    assert "did not end within reliability.grace_seconds" in overdue.text
    assert "out of memory" not in overdue.text


def test_of_those_that_ended_at_the_same_moment_the_killed_one_comes_first() -> None:
    order = in_order([End(0, 1, "h"), End(1, 12, "h"), End(2, -6, "h"), End(3, -9, "h"), End(4, 3, "h")])
    assert [end.rank for end in order] == [3, 1, 4, 0, 2]


def test_the_words() -> None:
    killed = judge([End(5, -9, "trn1-b"), End(0, 1, "trn1-a")], several_nodes=True)
    assert killed.text == "rank 5 on trn1-b was killed by SIGKILL (out of memory?)"
    assert not killed.seen_by_workers
    assert judge(ended([-11])).text == "rank 0 was killed by SIGSEGV"
    assert judge(ended([1])).text == "rank 0 crashed"
    assert judge(ended([4])).text == "rank 0 ended first with DATA"


def test_what_a_restart_cannot_cure_is_final() -> None:
    assert {int(code) for code in FINAL} == {3, 4, 10, 11, 13, 14}
    cured = set(ExitCode) - FINAL - {ExitCode.DONE}
    assert cured == {12, 15}
    assert not any(judge(ended([code])).final for code in (1, 12, 15, -9, -11))
    assert all(judge(ended([code])).final for code in FINAL)


def test_the_docs_say_which_codes_are_restarted() -> None:
    page = (harness.ROOT / "docs" / "exit_codes.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| `--max-restarts` |"))
    cured, final = row.split("restarts after")[2].split("not after")
    assert {int(code) for code in re.findall(r"\b\d+\b", final)} == {int(code) for code in FINAL}
    assert {int(code) for code in re.findall(r"\b\d+\b", cured)} == {1, 12, 15, 128}


class Host:
    """A rendezvous store and the nodes that use it."""

    def __init__(self, count: int) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))
        self.nodes = [self.join(number, count) for number in range(count)]

    def join(self, number: int, count: int) -> Nodes:
        client = TCPStore("127.0.0.1", self.store.port, wait_for_workers=False, timeout=timedelta(seconds=5))
        return Nodes(PrefixStore("attempt", client), number, count, Node(f"host-{number}", number, number))


def test_all_nodes_see_all_ends_in_one_order() -> None:
    host = Host(2)
    first, second = host.nodes
    second.tell([End(1, -9, "host-1")])
    first.tell([End(0, 1, "host-0")])
    first.finish()
    second.finish()
    assert first.wait(5) == second.wait(5) == []
    assert [end.rank for end in first.ends] == [end.rank for end in second.ends] == [1, 0]


def test_a_node_that_is_slow_is_waited_for_and_one_that_is_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "SILENT_SECONDS", 2.0)
    host = Host(3)
    first, second, third = host.nodes
    third.beat()  # and never again
    stop = time.monotonic() + 4

    def be_slow() -> None:
        while time.monotonic() < stop:
            second.beat()
            time.sleep(0.1)
        second.finish()

    thread = threading.Thread(target=be_slow)
    thread.start()
    first.finish()
    assert first.wait(30) == [Node("host-2", 2, 2)]
    assert time.monotonic() >= stop
    thread.join()
    assert str(Node("trn1-b", 32, 63)) == "trn1-b (ranks 32 to 63)"


def test_a_store_that_is_gone_leaves_a_node_what_it_knows() -> None:
    host = Host(2)
    node = host.nodes[1]
    host.nodes[0].tell([End(0, 3, "host-0")])
    node.tell([])
    del host.store
    node.tell([End(1, 1, "host-1")])
    assert node.gone
    assert node.wait(5) == []
    assert [end.rank for end in node.ends] == [0, 1]


def test_one_node_asks_nothing_of_the_store() -> None:
    alone = Nodes(None, 0, 1, Node("h", 0, 1))  # type: ignore[arg-type]
    alone.tell([End(1, -9, "h")])
    alone.beat()
    alone.finish()
    assert alone.wait(5) == []
    alone.part(5)
    assert [end.rank for end in alone.ends] == [1]


def test_each_round_publishes_the_address_of_its_store() -> None:
    """torch keeps the first round's: a node that joins later would wait for it until all time out."""

    class Handler:
        _bootstrap_store_info = "of the first round"

        def next_rendezvous(self) -> object:
            return self._bootstrap_store_info

        def num_nodes_waiting(self) -> int:
            raise RendezvousConnectionError

    meeting = Meeting(Handler(), "h:1")  # type: ignore[arg-type]
    assert meeting.next_rendezvous() is None
    assert meeting.num_nodes_waiting() == 0
