"""What ranks compare before anything is built: one store, a thread for each rank."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from trainer.backends.common import peers as peers_module
from trainer.backends.common.peers import Peers
from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, HangError
from trainer.training.trust import agree_on, launch_facts, source_digest


def in_ranks(size: int, work: Callable[[Peers], object]) -> list[object]:
    """What each rank returned or raised; ranks that ``work`` leaves at once have never been there."""
    store = dist.HashStore()
    found: list[object] = [None] * size

    def one(rank: int) -> None:
        try:
            found[rank] = work(Peers(store, rank, size))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def agreeing(facts: Callable[[int], Mapping[str, Any]]) -> Callable[[Peers], object]:
    return lambda peers: agree_on(peers, "launch", facts(peers.rank), 20)


def test_equal_facts_pass_on_every_rank() -> None:
    assert in_ranks(4, agreeing(lambda rank: {"optim.lr": 1e-3, "b": [1, 2]})) == [None] * 4


def test_every_rank_raises_and_names_the_one_that_differs() -> None:
    found = in_ranks(4, agreeing(lambda rank: {"optim.lr": 5e-2 if rank == 2 else 1e-3, "seed": 1}))
    for error in found:
        assert isinstance(error, ConfigError)
        (problem,) = error.problems
        assert (problem.key, problem.value) == ("optim.lr", 5e-2)
        assert "rank 2 (" in problem.rule
        assert "has 0.05, the others 0.001" in problem.rule


def test_keys_of_the_configuration_come_before_words_and_all_ranks_with_a_value_are_named() -> None:
    def facts(rank: int) -> dict[str, Any]:
        return {"version of torch": "2.8" if rank else "2.9", "seed": 7 if rank in (1, 3) else 1}

    error = in_ranks(5, agreeing(facts))[0]
    assert isinstance(error, ConfigError)
    assert [problem.key for problem in error.problems] == ["seed", "version of torch"]
    assert "ranks 1 (" in error.problems[0].rule
    assert ", 3 (" in error.problems[0].rule


def test_a_rank_that_never_comes_is_named_within_the_limit() -> None:
    def work(peers: Peers) -> object:
        return None if peers.rank == 1 else agree_on(peers, "launch", {}, 0.5)

    found = in_ranks(3, work)
    for rank in (0, 2):
        error = found[rank]
        assert isinstance(error, HangError)
        assert int(error.code) == 12
        assert "rank 1 did not" in error.problems[0].rule


def test_a_rank_that_takes_long_is_waited_for_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 says whom it waits for and for what, until all have come; so that an hour of silence is no riddle."""
    monkeypatch.setattr(peers_module, "SAY_SECONDS", 0.05)
    said: list[str] = []

    def work(peers: Peers) -> object:
        agree_on(peers, "launch", {}, 20)  # hosts are known from here on
        if peers.rank == 1:
            time.sleep(1)
        return peers.everyone("the text of this run", "", 20, said.append if not peers.rank else None)

    assert in_ranks(3, work) == [[""] * 3] * 3
    assert said
    assert said[-1] == f"waiting for rank 1 ({socket.gethostname()}): the text of this run"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda c: replace(c, optim=replace(c.optim, lr=0.05)), "optim.lr"),
        (lambda c: replace(c, seed=7), "seed"),
        (lambda c: replace(c, precision=replace(c.precision, mode="bf16")), "precision.mode"),
        (lambda c: replace(c, parallel=replace(c.parallel, tp=2)), "parallel.tp"),
        (lambda c: replace(c, checkpoint=replace(c.checkpoint, every_steps=7)), "checkpoint.every_steps"),
        (lambda c: replace(c, data=replace(c.data, sources=[SourceConfig(name="c", weight=2)])), "data.sources"),
        (lambda c: replace(c, data=replace(c.data, sources=[SourceConfig(name="c", paths=["/mnt/b"])])), None),
        (lambda c: replace(c, data=replace(c.data, cache_dir="/local/1")), None),
        (lambda c: replace(c, logging=replace(c.logging, every_steps=3)), None),
    ],
)
def test_what_ranks_start_from(change: Callable[[Config], Config], differs: str | None) -> None:
    """Paths of a node's own disk may differ: what is there is compared once it is read."""
    before = replace(Config(), data=replace(DataConfig(), sources=[SourceConfig(name="c", paths=["/mnt/a"])]))
    environment = {"packages": {"torch": "2.9.1"}, "python": "3.11.7"}
    one, other = (launch_facts(config, environment, "native") for config in (before, change(before)))
    assert [key for key in one if one[key] != other[key]] == ([] if differs is None else [differs])


def test_versions_are_facts_and_a_python_patch_is_none() -> None:
    facts = launch_facts(Config(), {"packages": {"torch": "2.9.1"}, "python": "3.11.7"}, "native")
    assert facts["version of torch"] == "2.9.1"
    assert facts["version of python"] == "3.11"


def test_one_changed_byte_of_code_is_another_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = source_digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2\n")
    changed = source_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, source_digest(tmp_path)}) == 3


def test_a_host_that_cannot_be_asked_for_any_more_is_left_out() -> None:
    """The rank that keeps the store may have ended with its own report: another's is to be told all the same."""

    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise dist.DistNetworkError(f"connection was closed, asking for {keys}")

    assert Peers(Gone(), 1, 2).who([0, 1]) == "ranks 0, 1"  # type: ignore[arg-type]
