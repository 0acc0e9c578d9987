"""What trainer/launch leans on in torch's elastic agent, and how codes are chosen."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.agent.server.api import RunResult, SimpleElasticAgent, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import PContext, SubprocessContext
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
from torch.distributed.launcher.api import _get_addr_and_port

from trainer.commands.launch.agent import FINAL, PatientAgent


def test_torch_still_has_what_we_override() -> None:
    for name in ("_rendezvous", "_start_workers", "_monitor_workers", "_stop_workers"):
        assert callable(getattr(LocalElasticAgent, name))
    assert "_remaining_restarts" in inspect.getsource(SimpleElasticAgent)
    assert "_pcontext" in inspect.getsource(LocalElasticAgent)
    assert "subprocess_handlers" in inspect.getsource(SubprocessContext)
    assert "self.proc" in inspect.getsource(SubprocessHandler)
    assert list(inspect.signature(PContext.close).parameters) == ["self", "death_sig", "timeout"]
    assert "threading.main_thread()" in inspect.getsource(PContext.start), "no handlers outside the main thread"
    assert callable(_get_addr_and_port)


@pytest.mark.parametrize(
    ("codes", "handed_on", "expected"),
    [
        ([3], set(), 3),
        ([1, 3], set(), 3),  # a rank that crashed because another gave up
        ([-9, 1], set(), 137),
        ([1, -15], set(), 1),
        ([10, 10], {15}, 10),
        ([-15, -15], {15}, 10),  # before it could listen
        ([-10, 1], {10}, 10),
        ([-2, 10], {15, 2}, 10),  # after it had saved: the second signal of a person in a hurry
        ([-9], {15}, 137),  # killed after the grace
    ],
)
def test_the_code_of_a_launch(codes: list[int], handed_on: set[int], expected: int) -> None:
    failures = {rank: SimpleNamespace(exitcode=code, timestamp=rank) for rank, code in enumerate(codes)}
    agent = SimpleNamespace(handed_on=handed_on)
    assert PatientAgent.code(agent, RunResult(state=WorkerState.FAILED, failures=failures)) == expected


def test_what_a_restart_cannot_cure_is_final() -> None:
    assert {3, 4, 10, 11, 14} <= {int(code) for code in FINAL}
    assert not {1, 12} & {int(code) for code in FINAL}
